// libFuzzer target: no text and no vocabulary crashes a tokenizer, ids are always ids, and what
// has a token for each byte gives every text back. The first byte of the input chooses the mode.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace {

using namespace pyllamacpp;

void add(VocabData* data, std::string token, TokenType type, float score = 0) {
  data->tokens.push_back(std::move(token));
  data->types.push_back(type);
  data->scores.push_back(score);
}

std::unique_ptr<Tokenizer> small_spm(bool phi3) {
  VocabData data;
  data.model = "llama";
  add(&data, "<unk>", TokenType::unknown);
  add(&data, "<s>", TokenType::control);
  add(&data, "</s>", TokenType::control);
  add(&data, "<u>", TokenType::user_defined);
  if (phi3) {
    for (const char* name : {"<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>"}) {
      add(&data, name, TokenType::control);
    }
    add(&data, "\u2581\u2581", TokenType::user_defined);
    add(&data, "aaa", TokenType::unused);
    data.add_space_prefix = false;
  }
  for (const char high : std::string_view("0123456789ABCDEF")) {
    for (const char low : std::string_view("0123456789ABCDEF")) {
      add(&data, std::string("<0x") + high + low + ">", TokenType::byte);
    }
  }
  for (const char* word :
       {"\u2581a", "ab", "aa", "aaaa", "\u2581\u2581", "\u2581", "a", "b", "é"}) {
    add(&data, word, TokenType::normal, -static_cast<float>(data.tokens.size() % 4));
  }
  data.bos = 1;
  data.eos = 2;
  data.unknown = 0;
  data.add_bos = true;
  return Tokenizer::make(std::move(data));
}

std::unique_ptr<Tokenizer> small_bpe(std::string pre) {
  VocabData data;
  data.model = "gpt2";
  data.pre = std::move(pre);
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    std::string token;
    append_utf8(&token, visible ? byte : next++);
    add(&data, token, TokenType::normal);
  }
  for (const char* word : {"aa", "aaaa", "ab", "\u0120a", "12"}) {
    add(&data, word, TokenType::normal);
  }
  add(&data, "<|end|>", TokenType::control);
  add(&data, "<u>", TokenType::user_defined);
  data.merges = {"a a", "aa aa", "a b", "\u0120 a", "1 2"};
  return Tokenizer::make(std::move(data));
}

void check_ids(const Tokenizer& tokenizer, std::string_view text, bool lossless) {
  for (const bool special : {false, true}) {
    const std::vector<TokenId> ids = tokenizer.encode(text, special, special);
    for (const TokenId id : ids) {
      if (id < 0 || id >= tokenizer.size()) __builtin_trap();
    }
    const std::string back = tokenizer.decode(ids, special);
    if (lossless && !special && back != text) __builtin_trap();
  }
}

// Takes one length-prefixed string off the front.
std::string_view take(std::string_view* input) {
  if (input->empty()) return {};
  const size_t size = static_cast<unsigned char>(input->front()) % 8;
  const std::string_view taken = input->substr(1, size);
  input->remove_prefix(1 + taken.size());
  return taken;
}

// A vocabulary read from the input: one byte of flags, tokens, merges; what is left is the text.
void try_vocabulary(std::string_view input) {
  if (input.empty()) return;
  const auto flags = static_cast<unsigned char>(input.front());
  input.remove_prefix(1);
  VocabData data;
  data.model = flags & 1 ? "llama" : "gpt2";
  data.pre = flags & 2 ? "deepseek-llm" : "smollm";
  data.add_space_prefix = flags & 4;
  if (flags & 8) data.unknown = 0;
  for (int i = 0; i < (flags >> 4) + 1; ++i) {
    const std::string_view token = take(&input);
    const int type = input.empty() ? 1 : static_cast<unsigned char>(input.front()) % 8;
    add(&data, std::string(token), static_cast<TokenType>(type), static_cast<float>(type % 3));
  }
  for (int i = 0; i < (flags >> 5) && !(flags & 1); ++i) data.merges.emplace_back(take(&input));
  check_ids(*Tokenizer::make(std::move(data)), input, false);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto spm = small_spm(false);
  static const auto phi3 = small_spm(true);
  static const auto gpt2 = small_bpe("gpt-2");
  static const auto smollm = small_bpe("smollm");
  static const auto llama3 = small_bpe("llama-bpe");
  static const auto qwen2 = small_bpe("qwen2");
  static const auto deepseek = small_bpe("deepseek-llm");
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 8) {
    case 0:
      // U+2581 is how this vocabulary spells a space: the one text that does not come back.
      check_ids(*spm, text, text.find("\u2581") == std::string_view::npos);
      break;
    case 1:
      check_ids(*gpt2, text, true);
      break;
    case 2:
      check_ids(*smollm, text, true);
      break;
    case 3:
      check_ids(*llama3, text, true);
      break;
    case 4:
      check_ids(*qwen2, text, true);
      break;
    case 5:
      check_ids(*deepseek, text, true);
      break;
    case 6:
      check_ids(*phi3, text, text.find("\u2581") == std::string_view::npos);
      break;
    default:
      try {
        try_vocabulary(text);
      } catch (const Error& error) {
        if (std::string(error.what()).size() > 1000) __builtin_trap();
      }
  }
  Utf8Stream stream;
  std::string once = stream.push(text);
  once += stream.flush();
  std::string split = stream.push(text.substr(0, text.size() / 2));
  split += stream.push(text.substr(text.size() / 2));
  split += stream.flush();
  if (once != split) __builtin_trap();
  return 0;
}
