// SentencePiece-style BPE ("llama"): Kudo and Richardson 2018; LLaMA 1 and 2, Mistral and kin.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/hash_map.h"
#include "text/merge.h"
#include "text/tokenizer.h"

namespace pyllamacpp {

// Gives the ids of sentencepiece for a model with identity normalization, with these two choices:
//  - the space prefix, if the vocabulary has one, is put before a text and after each control
//  token,
//    never after a token that a user defined (there sentencepiece puts none);
//  - bytes that are not UTF-8 become byte tokens, where sentencepiece would read U+FFFD.
// U+2581 in a text is, as in sentencepiece, the same as a space.
class SpmTokenizer : public Tokenizer {
 public:
  explicit SpmTokenizer(VocabData data);

 private:
  void encode_text(std::string_view text, bool begins, std::vector<TokenId>* out) const override;
  bool has_space_prefix() const override { return data_.add_space_prefix; }
  std::string_view as_matched(std::string_view text, std::string* buffer) const override;

  void read_byte_tokens();
  void rank_scores();
  void note_neighbours(std::string_view token);
  bool may_merge(char32_t left, char32_t right) const;

  // What an unused token was last made of.
  struct Parts {
    uint32_t left_size;  // bytes
    TokenId left, right;
  };
  using UnusedParts = std::unordered_map<TokenId, Parts>;
  void append_ids(std::string_view bytes, TokenId id, const UnusedParts& parts,
                  std::vector<TokenId>* out) const;

  std::array<std::optional<TokenId>, 256> byte_tokens_;
  bool has_all_bytes_ = false;
  TokenMap ids_;               // of the tokens that merging can make
  size_t longest_ = 0;         // bytes of the longest of them
  std::vector<Merge> merges_;  // by token
  // The pairs of neighbouring characters that occur inside some token. Between other pairs no
  // merge ever happens, so the text is cut there: words instead of pages in the queue.
  std::bitset<128 * 128> ascii_neighbours_;
  PairMap<bool> neighbours_;
};

}  // namespace pyllamacpp
