// Tokenizers built from the vocabulary stored in a GGUF file. This layer knows no file and no
// model: `model/load_vocab` fills a VocabData.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/special_tokens.h"

namespace pyllamacpp {

// Values of tokenizer.ggml.token_type.
enum class TokenType : int32_t {
  undefined = 0,
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6,
};

// The vocabulary as a file states it.
struct VocabData {
  std::string model;                // tokenizer.ggml.model: "llama" (SentencePiece-style) or "gpt2"
  std::string pre;                  // tokenizer.ggml.pre, guessed if empty; only for "gpt2"
  std::vector<std::string> tokens;  // bytes of each token as stored (byte-level text for "gpt2")
  std::vector<float> scores;        // one per token; only for "llama"
  std::vector<TokenType> types;     // one per token
  std::vector<std::string> merges;  // "left right" in rank order; only for "gpt2"
  std::optional<TokenId> bos, eos, unknown, padding, eot;
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = true;  // only for "llama"
};

// Immutable after construction: any number of threads may use one at the same time.
class Tokenizer {
 public:
  // Throws Error(unsupported) naming an unknown model or pre-tokenizer, and Error(format) for an
  // inconsistent vocabulary (sizes differ, ids out of range, a merge that names no token). Of
  // tokens stored twice, and of merges, the first one counts.
  static std::unique_ptr<Tokenizer> make(VocabData data);
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Ids of `text`, any bytes. Adds the beginning (end) of sequence token when asked and the
  // vocabulary has one and says that it is to be added. Tokens that a user defined are matched in
  // the text always, control tokens only with `parse_special`.
  // Control tokens that carry the `mark` (see marked()) are text, and marks in text are removed.
  std::vector<TokenId> encode(std::string_view text, bool add_special, bool parse_special,
                              std::string_view mark = {}) const;

  // `text`, that somebody else wrote, with `mark` put into every control token and end of turn it
  // spells. `mark` is valid UTF-8 or no part of it, and is not in `text`.
  std::string marked(std::string_view text, std::string_view mark) const;

  // Bytes of one token. Control and unknown tokens give their name with `special`, otherwise
  // nothing. An id out of range throws Error(invalid_argument).
  std::string_view piece(TokenId id, bool special) const;

  // Bytes of a sequence, undoing the space prefix of SentencePiece-style vocabularies at its start.
  std::string decode(const std::vector<TokenId>& ids, bool special) const;

  // True for tokens that end a turn or a text: eos, eot and the like.
  bool ends_generation(TokenId id) const;
  // All of those, ascending.
  const std::vector<TokenId>& end_tokens() const { return end_tokens_; }

  // The vocabulary as given, but without its merges, which live on in a table.
  const VocabData& data() const { return data_; }
  int32_t size() const { return static_cast<int32_t>(data_.tokens.size()); }

 protected:
  // Checks `data`. The derived constructor then calls set_pieces().
  explicit Tokenizer(VocabData data);

  // `render(id, &out)` appends the bytes of a token that is not hidden().
  template <class Render>
  void set_pieces(const Render& render) {
    for (TokenId id = 0; id < size(); ++id) {
      if (hidden(id)) {
        pieces_.append(data_.tokens[id]);
      } else {
        render(id, &pieces_);
      }
      piece_ends_.push_back(pieces_.size());
    }
    find_special_tokens();
  }

  // Control and unknown tokens: not text unless asked for.
  bool hidden(TokenId id) const {
    return data_.types[id] == TokenType::control || data_.types[id] == TokenType::unknown;
  }

  VocabData data_;

 private:
  // Appends the ids of plain text, without special tokens. `begins`: the text starts a sequence,
  // or follows a control token; then it can be empty, before a user-defined token.
  virtual void encode_text(std::string_view text, bool begins, std::vector<TokenId>* out) const = 0;

  // Whether a space is put before the text that begins, and decode() takes it off again.
  virtual bool has_space_prefix() const = 0;

  // `text` as special tokens are looked for in it, in `buffer` if it has to change.
  virtual std::string_view as_matched(std::string_view text, std::string* /*buffer*/) const {
    return text;
  }

  void find_special_tokens();

  std::string pieces_;  // of all tokens
  std::vector<size_t> piece_ends_;
  SpecialTokens user_defined_;
  SpecialTokens all_special_;        // and control and unknown tokens
  std::vector<TokenId> end_tokens_;  // sorted
  std::vector<bool> strips_;         // takes the white space after it; empty if no token does
};

}  // namespace pyllamacpp
