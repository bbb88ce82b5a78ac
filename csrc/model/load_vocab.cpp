#include "model/load_vocab.h"

#include <string>
#include <utility>

#include "base/error.h"

namespace pyllamacpp {

namespace {

std::vector<std::string> owned(const std::vector<std::string_view>& views) {
  return {views.begin(), views.end()};
}

std::optional<TokenId> token_id(const GgufFile& file, const char* key, size_t n_tokens) {
  const auto id = file.find_uint(key);
  if (!id) return std::nullopt;
  // Written for "none" by some converters.
  if (*id == 0xffffffffu || *id == 0xffffffffffffffffu) return std::nullopt;
  if (*id >= n_tokens)
    fail(ErrorKind::format, file.name(), ": ", key, " is ", *id, ", but the vocabulary has ",
         n_tokens, " tokens");
  return TokenId(*id);
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const GgufFile& file) {
  VocabData data;
  data.model = std::string(file.get_string("tokenizer.ggml.model"));
  data.pre = std::string(file.find_string("tokenizer.ggml.pre").value_or(""));
  data.tokens = owned(file.get_strings("tokenizer.ggml.tokens"));
  data.merges = owned(file.find_strings("tokenizer.ggml.merges"));
  data.scores = file.find_floats("tokenizer.ggml.scores");
  const size_t n = data.tokens.size();
  for (int64_t type : file.find_ints("tokenizer.ggml.token_type")) {
    if (type < 0 || type > int64_t(TokenType::byte))
      fail(ErrorKind::format, file.name(), ": tokenizer.ggml.token_type holds ", type,
           ", expected 0 to 6");
    data.types.push_back(TokenType(type));
  }
  if (data.types.empty()) data.types.assign(n, TokenType::normal);
  data.bos = token_id(file, "tokenizer.ggml.bos_token_id", n);
  data.eos = token_id(file, "tokenizer.ggml.eos_token_id", n);
  data.eot = token_id(file, "tokenizer.ggml.eot_token_id", n);
  data.unknown = token_id(file, "tokenizer.ggml.unknown_token_id", n);
  data.padding = token_id(file, "tokenizer.ggml.padding_token_id", n);
  const bool sentencepiece = data.model == "llama";
  // Defaults of the format where a file does not say: SentencePiece vocabularies begin texts.
  data.add_bos = file.find_bool("tokenizer.ggml.add_bos_token").value_or(sentencepiece);
  data.add_eos = file.find_bool("tokenizer.ggml.add_eos_token").value_or(false);
  data.add_space_prefix = file.find_bool("tokenizer.ggml.add_space_prefix").value_or(sentencepiece);
  return Tokenizer::make(std::move(data));
}

}  // namespace pyllamacpp
