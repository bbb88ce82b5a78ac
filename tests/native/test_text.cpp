// The parts of csrc/text that Python cannot reach one by one. tests/text compares the tokenizers
// as a whole with sentencepiece and tokenizers.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "text/hash_map.h"
#include "text/pretokenize.h"
#include "text/special_tokens.h"
#include "text/tokenizer.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace {

using namespace pyllamacpp;

void test_utf8() {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    append_utf8(&text, code);
    const Utf8Char read = decode_utf8(text, 0);
    CHECK(read.status == Utf8Status::valid && read.code == code && read.size == text.size());
    if (text.size() > 1) {
      text.pop_back();
      CHECK(decode_utf8(text, 0).status == Utf8Status::truncated);
    }
  }
  struct Case {
    std::string_view bytes;
    uint32_t size;
  };
  for (const Case& bad : {Case{"\x80", 1},
                          {"\xC0\x80", 1},
                          {"\xE0\x80\x80", 1},
                          {"\xED\xA0\x80", 1},
                          {"\xE2\x82z", 2},
                          {"\xF0\x9F\x98z", 3},
                          {"\xF4\x90\x80\x80", 1}}) {
    const Utf8Char read = decode_utf8(bad.bytes, 0);
    CHECK(read.status == Utf8Status::invalid && read.size == bad.size);
    CHECK(next_char(bad.bytes, 0).size == 1);
  }
  CHECK(printable("a\xFF") == "a\uFFFD");
  CHECK(printable(std::string_view("a\n\x1b[1m\0\x7f\u009b\u00e9", 12)) ==
        "a\\x0a\\x1b[1m\\x00\\x7f\\x9b\u00e9");
  CHECK(printable(std::string(1000, 'x')).size() < 100);
}

void test_classes() {
  CHECK(class_of('a') == CharClass::letter && class_of(0x2FA1D) == CharClass::letter);
  CHECK(class_of('7') == CharClass::number && class_of(0x216B) == CharClass::number);
  CHECK(class_of(' ') == CharClass::space && class_of(0x85) == CharClass::space);
  CHECK(class_of(0x3000) == CharClass::space && class_of(0x200B) == CharClass::other);
  CHECK(class_of(0x1C) == CharClass::other && class_of(0) == CharClass::other);
  CHECK(class_of(0x10FFFF) == CharClass::other && class_of(0xFFFD) == CharClass::other);
}

std::string words(std::string_view name, std::string_view text) {
  WordSplitter splitter(find_pretokenizer(name), text);
  std::string joined;
  for (std::string_view word; splitter.next(&word);) {
    joined.append(joined.empty() ? "" : "|").append(word);
  }
  return joined;
}

void test_words() {
  CHECK(words("gpt-2", "") == "");
  CHECK(words("gpt-2", "I'll go  home 42x!? \n\n y ") == "I|'ll| go| | home| 42|x|!?| \n\n| y| ");
  CHECK(words("gpt-2", "'LL 's's") == "'|LL| '|s|'s");
  CHECK(words("smollm", "ab 12  3") == "ab| |1|2|  |3");
  CHECK(words("smollm", "\u0663x") == "\u0663|x");
  CHECK(words("llama-bpe", "'LL12345\n\n  a") == "'LL|123|45|\n\n| | a");
  CHECK(words("llama-bpe", "(a) !!\r\n\t\n  x") == "(a|)| !!\r\n|\t\n| | x");
  CHECK(words("llama-bpe", "'\u017F'") == "'\u017F|'");
  CHECK(words("qwen2", "'Ll123 12\n\n  a") == "'Ll|1|2|3| |1|2|\n\n| | a");
  CHECK(words("deepseek-r1-qwen", "(a) !!\r\n\tx1") == "(a|)| !!\r\n|\tx|1");
  CHECK(words("deepseek-llm", "Hi  the!? 12\n\n x ") == "Hi| | the|!?| |1|2|\n|\n| x| ");
  CHECK(words("deepseek-llm", "Stra\u00DFe \u5929\u5730 9\u5730  ") ==
        "Stra|\u00DF|e| |\u5929\u5730| |9|\u5730|  ");
  CHECK(words("deepseek-llm", "!\u3000a\u3000\u00E9") == "!|\u3000|a|\u3000|\u00E9");
  CHECK(words("gpt-2", "a\xFF\xE5!b") == "a|\xFF\xE5!|b");
}

void test_ascii_classes() {
  for (char32_t code = 0; code < 128; ++code) CHECK(class_of(code) == class_from_tables(code));
}

void test_guess() {
  std::vector<std::string> tokens(102400, "x");
  CHECK(guess_pretokenizer(tokens) == "gpt-2");
  tokens[100] = "<\uFF5Cbegin\u2581of\u2581sentence\uFF5C>";
  CHECK(guess_pretokenizer(tokens) == "deepseek-llm");
}

void test_special_tokens() {
  const SpecialTokens tokens({{"<a>", 1}, {"<a>b", 2}, {"<a>", 3}, {"", 4}, {"<", 5}, {"\xFF", 6}});
  const auto is = [](const SpecialTokens::Match& m, size_t at, size_t size, TokenId id) {
    return m.at == at && m.size == size && m.id == id;
  };
  CHECK(is(tokens.find("x<a>b", 0), 1, 4, 2));
  CHECK(is(tokens.find("x<a>c", 0), 1, 3, 1));
  CHECK(is(tokens.find("<a", 0), 0, 1, 5));
  CHECK(is(tokens.find("xyz\xFF", 1), 3, 1, 6));
  CHECK(tokens.find("xyz", 0).at == 3 && tokens.find("xyz", 0).size == 0);
  CHECK(SpecialTokens().find("<a>", 0).size == 0);
}

void test_maps() {
  PairMap<int32_t> pairs(1);
  for (int32_t i = 0; i < 1000; ++i) pairs.add(i, i * 7, i);
  pairs.add(3, 21, -1);  // the first one counts
  for (int32_t i = 0; i < 1000; ++i) CHECK(pairs.find(i, i * 7) && *pairs.find(i, i * 7) == i);
  CHECK(pairs.find(1, 1) == nullptr && pairs.find(-1, -1) == nullptr);

  const std::vector<std::string> tokens = {"", "a", "abcdefgh", "abcdefghi", "a"};
  TokenMap ids(tokens);
  for (int32_t id = 0; id < 5; ++id) ids.add(id);
  CHECK(ids.find("") == 0 && ids.find("a") == 1 && ids.find("abcdefghi") == 3);
  CHECK(ids.find("b") == TokenMap::kAbsent);
}

VocabData small_vocabulary() {
  VocabData data;
  data.model = "llama";
  data.tokens = {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581ab"};
  data.scores = {0, 0, 0, -9, -9, -9, -1, -2};
  data.types.assign(data.tokens.size(), TokenType::normal);
  data.types[0] = TokenType::unknown;
  data.types[1] = data.types[2] = TokenType::control;
  data.unknown = 0;
  data.bos = 1;
  data.eos = 2;
  data.add_bos = data.add_eos = true;
  return data;
}

void test_tokenizer() {
  const auto tokenizer = Tokenizer::make(small_vocabulary());
  using Ids = std::vector<TokenId>;
  CHECK((tokenizer->encode("ab", true, false) == Ids{1, 7, 2}));
  CHECK((tokenizer->encode("ab</s>ab", false, true) == Ids{7, 2, 7}));
  CHECK((tokenizer->encode("xyab", false, false) == Ids{3, 0, 6}));
  CHECK(tokenizer->decode({1, 7, 7, 2}, false) == "ab ab");
  CHECK(tokenizer->ends_generation(2) && !tokenizer->ends_generation(1));
  CHECK(!tokenizer->ends_generation(-1));

  const auto refused = [](auto change) {
    VocabData data = small_vocabulary();
    change(&data);
    try {
      Tokenizer::make(std::move(data));
    } catch (const Error& error) {
      return error.kind();
    }
    return ErrorKind::cancelled;
  };
  CHECK(refused([](VocabData* d) { d->eot = 8; }) == ErrorKind::format);
  CHECK(refused([](VocabData* d) { d->scores.pop_back(); }) == ErrorKind::format);
  CHECK(refused([](VocabData* d) { d->model = "bert"; }) == ErrorKind::unsupported);
  CHECK(refused([](VocabData* d) { d->model = "gpt2", d->pre = "x"; }) == ErrorKind::unsupported);
}

}  // namespace

int main() {
  test_utf8();
  test_classes();
  test_ascii_classes();
  test_words();
  test_guess();
  test_special_tokens();
  test_maps();
  test_tokenizer();
  return check_result();
}
