#include "text/tokenizer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"
#include "text/bpe.h"
#include "text/spm.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace pyllamacpp {
namespace {

// Tokens that end a turn or a text in published vocabularies; a file names only one or two of
// those it has (SmolLM2 states <|im_end|> and not <|endoftext|>, Llama 3 not <|eom_id|>).
// Such a token counts when it is a control token or a user defined it: fine-tuned files have their
// <|im_end|> as the latter. As a normal token it is text.
constexpr std::string_view kEndNames[] = {
    "</s>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<EOT>",
    "<\uFF5Cend\u2581of\u2581sentence\uFF5C>",
};

// Phi-3's tokenizer.json says of its special tokens that they take the white space after them
// (`rstrip`), which the GGUF does not state. No other vocabulary has all of the first ones.
constexpr std::string_view kPhi3Tokens[] = {"<|placeholder1|>", "<|system|>", "<|end|>",
                                            "<|user|>"};
constexpr std::string_view kPhi3NotStripping[] = {"<unk>", "<s>", "<|endoftext|>"};

size_t spaces_end(std::string_view text, size_t at) {
  while (at < text.size()) {
    const Utf8Char read = next_char(text, at);
    if (class_of(read.code) != CharClass::space) break;
    at += read.size;
  }
  return at;
}

// `text` without `mark`, in `buffer` if that changes it.
std::string_view without(std::string_view text, std::string_view mark, std::string* buffer) {
  size_t found = mark.empty() ? std::string_view::npos : text.find(mark);
  if (found == std::string_view::npos) return text;
  buffer->clear();
  for (; found != std::string_view::npos; found = text.find(mark)) {
    buffer->append(text.substr(0, found));
    text.remove_prefix(found + mark.size());
  }
  return buffer->append(text);
}

void check_size(const char* what, size_t found, size_t tokens) {
  if (found == tokens) return;
  fail(ErrorKind::format, "the vocabulary has ", tokens, " tokens but ", found, " ", what);
}

void check_id(const char* what, std::optional<TokenId> id, size_t tokens) {
  if (!id || (*id >= 0 && static_cast<size_t>(*id) < tokens)) return;
  fail(ErrorKind::format, "the vocabulary's ", what, " token is ", *id, ", but it has ", tokens,
       " tokens");
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::make(VocabData data) {
  if (data.model == "llama") return std::make_unique<SpmTokenizer>(std::move(data));
  if (data.model == "gpt2") return std::make_unique<BpeTokenizer>(std::move(data));
  fail(ErrorKind::unsupported, "the vocabulary's model '", printable(data.model),
       "' (tokenizer.ggml.model) is not supported; supported are llama, gpt2");
}

Tokenizer::Tokenizer(VocabData data) : data_(std::move(data)) {
  const size_t tokens = data_.tokens.size();
  if (tokens == 0) fail(ErrorKind::format, "the vocabulary has no tokens");
  if (tokens > static_cast<size_t>(std::numeric_limits<TokenId>::max())) {
    fail(ErrorKind::format, "the vocabulary has ", tokens, " tokens, more than ids can number");
  }
  check_size("token types", data_.types.size(), tokens);
  for (size_t i = 0; i < tokens; ++i) {
    const auto type = static_cast<int32_t>(data_.types[i]);
    if (type < 0 || type > static_cast<int32_t>(TokenType::byte)) {
      fail(ErrorKind::format, "token ", i, " of the vocabulary has the unknown type ", type);
    }
  }
  check_id("bos", data_.bos, tokens);
  check_id("eos", data_.eos, tokens);
  check_id("unknown", data_.unknown, tokens);
  check_id("padding", data_.padding, tokens);
  check_id("eot", data_.eot, tokens);
}

void Tokenizer::find_special_tokens() {
  std::vector<SpecialTokens::Entry> user_defined, all;
  for (TokenId id = 0; id < size(); ++id) {
    const bool defined = data_.types[id] == TokenType::user_defined;
    if (!defined && !hidden(id)) continue;
    std::string buffer;
    SpecialTokens::Entry entry{std::string(as_matched(piece(id, true), &buffer)), id};
    if (std::ranges::find(kEndNames, data_.tokens[id]) != std::end(kEndNames))
      end_tokens_.push_back(id);
    if (defined) user_defined.push_back(entry);
    all.push_back(std::move(entry));
  }
  const auto has = [&](std::string_view name) {
    return std::ranges::any_of(all, [&](const auto& entry) { return entry.text == name; });
  };
  if (data_.model == "llama" && std::ranges::all_of(kPhi3Tokens, has)) {
    strips_.resize(data_.tokens.size());
    for (const SpecialTokens::Entry& entry : all) {
      strips_[entry.id] = hidden(entry.id) && std::ranges::find(kPhi3NotStripping, entry.text) ==
                                                  std::end(kPhi3NotStripping);
    }
  }
  user_defined_ = SpecialTokens(std::move(user_defined));
  all_special_ = SpecialTokens(std::move(all));
  if (data_.eos) end_tokens_.push_back(*data_.eos);
  if (data_.eot) end_tokens_.push_back(*data_.eot);
  std::ranges::sort(end_tokens_);
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, bool add_special, bool parse_special,
                                       std::string_view mark) const {
  // Positions are 32 bits, and a space can become three bytes.
  constexpr size_t kMostBytes = 1u << 30;
  if (text.size() > kMostBytes) {
    fail(ErrorKind::invalid_argument, "the text has ", text.size(), " bytes, the most is ",
         kMostBytes);
  }
  std::string buffer, plain;
  text = as_matched(text, &buffer);
  std::vector<TokenId> out;
  if (add_special && data_.add_bos && data_.bos) out.push_back(*data_.bos);
  const SpecialTokens& tokens = parse_special ? all_special_ : user_defined_;
  bool begins = true;
  for (size_t at = 0; at < text.size();) {
    const SpecialTokens::Match match = tokens.find(text, at);
    const bool control = match.size != 0 && hidden(match.id);
    if (begins && has_space_prefix() && tokens.one_begins_with(' ') &&
        !(control && match.at == at)) {
      // The prefix can be part of a user-defined token.
      const std::string head = ' ' + std::string(text.substr(at, tokens.longest()));
      const SpecialTokens::Match first = tokens.find(head, 0);
      if (first.size != 0 && first.at == 0 && !hidden(first.id)) {
        out.push_back(first.id);
        at += first.size - 1;
        begins = false;
        continue;
      }
    }
    if (match.at > at || (begins && !control)) {
      encode_text(without(text.substr(at, match.at - at), mark, &plain), begins, &out);
      begins = false;
    }
    if (match.size != 0) out.push_back(match.id);
    if (control) begins = true;
    at = match.at + match.size;
    if (match.size != 0 && !strips_.empty() && strips_[match.id]) at = spaces_end(text, at);
  }
  if (add_special && data_.add_eos && data_.eos) out.push_back(*data_.eos);
  return out;
}

std::string Tokenizer::marked(std::string_view text, std::string_view mark) const {
  std::string out;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const SpecialTokens::Match match = all_special_.find(text, at);
    if (match.size == 0) break;
    // After its first character: what else begins inside the token is found too.
    at = match.at + next_char(text, match.at).size;
    if (!hidden(match.id) && !ends_generation(match.id)) continue;
    out.append(text.substr(done, at - done)).append(mark);
    done = at;
  }
  return out.append(text.substr(done));
}

std::string_view Tokenizer::piece(TokenId id, bool special) const {
  if (id < 0 || id >= size()) {
    fail(ErrorKind::invalid_argument, "token ", id, " is not in the vocabulary of ", size(),
         " tokens");
  }
  if (hidden(id) && !special) return {};
  const size_t start = id == 0 ? 0 : piece_ends_[id - 1];
  return std::string_view(pieces_).substr(start, piece_ends_[id] - start);
}

std::string Tokenizer::decode(const std::vector<TokenId>& ids, bool special) const {
  std::string out;
  bool begins = has_space_prefix();
  for (const TokenId id : ids) {
    std::string_view bytes = piece(id, special);
    if (begins && !hidden(id)) {
      if (bytes.starts_with(' ')) bytes.remove_prefix(1);
      begins = false;
    }
    out.append(bytes);
  }
  return out;
}

bool Tokenizer::ends_generation(TokenId id) const {
  return std::ranges::binary_search(end_tokens_, id);
}

}  // namespace pyllamacpp
