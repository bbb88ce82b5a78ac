#include "text/pretokenize.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>

#include "base/error.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace pyllamacpp {
namespace {

struct Classified {
  uint32_t size;
  CharClass kind;
};

// A byte that is not part of valid UTF-8 counts as U+FFFD, of class `other`: so it keeps company
// with punctuation, as it does where text is decoded with replacement before it is split.
Classified classify(std::string_view text, size_t at) {
  const Utf8Char read = next_char(text, at);
  return {read.size, class_of(read.code)};
}

size_t run_end(std::string_view text, size_t at, CharClass kind, size_t most = SIZE_MAX) {
  for (; at < text.size() && most > 0; --most) {
    const Classified read = classify(text, at);
    if (read.kind != kind) break;
    at += read.size;
  }
  return at;
}

bool is_newline(char c) { return c == '\r' || c == '\n'; }

// 's|'t|'re|'ve|'m|'ll|'d : its length at the quote `at`, 0 if none.
size_t contraction(std::string_view text, size_t at, bool ignore_case) {
  const auto letter = [&](size_t i) -> char {
    if (at + i >= text.size()) return 0;
    const char c = text[at + i];
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char first = letter(1), second = letter(2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  if (first == 'l' && second == 'l') return 3;
  // U+017F, the long s, is an s to a case-insensitive pattern.
  if (ignore_case && text.substr(at + 1, 2) == "\u017F") return 3;
  return 0;
}

// \s+(?!\S)|\s+ : a run of spaces, but its last one is left to the word that follows.
size_t spaces_end(std::string_view text, size_t at) {
  size_t last = at, end = at;
  while (end < text.size()) {
    const Classified read = classify(text, end);
    if (read.kind != CharClass::space) return last > at ? last : end;
    last = end;
    end += read.size;
  }
  return end;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// Source: the encoder of GPT-2 (Radford et al. 2019).
size_t gpt2_word_end(std::string_view text, size_t at) {
  if (text[at] == '\'') {
    if (const size_t size = contraction(text, at, false)) return at + size;
  }
  const size_t start = at + (text[at] == ' ');
  if (start < text.size()) {
    const CharClass kind = classify(text, start).kind;
    if (kind != CharClass::space) return run_end(text, start, kind);
  }
  return spaces_end(text, at);
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,kDigits}|
//  ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
// Source: Llama 3's tokenizer.py (kDigits = 3) and Qwen2's tokenizer.json (1); the shape of
// OpenAI's cl100k_base.
template <size_t kDigits>
size_t cl100k_word_end(std::string_view text, size_t at) {
  if (text[at] == '\'') {
    if (const size_t size = contraction(text, at, true)) return at + size;
  }
  const Classified first = classify(text, at);
  if (first.kind == CharClass::letter) return run_end(text, at, CharClass::letter);
  if (first.kind == CharClass::number) return run_end(text, at, CharClass::number, kDigits);
  if (!is_newline(text[at])) {
    const size_t end = run_end(text, at + first.size, CharClass::letter);
    if (end > at + first.size) return end;
  }
  const size_t start = at + (text[at] == ' ');
  size_t end = run_end(text, start, CharClass::other);
  if (end > start) {
    while (end < text.size() && is_newline(text[end])) ++end;
    return end;
  }
  end = run_end(text, at, CharClass::space);
  const size_t newline = text.substr(at, end - at).find_last_of("\r\n");
  return newline != std::string_view::npos ? at + newline + 1 : spaces_end(text, at);
}

// Each \p{N} is a piece: Digits(individual_digits=True) of the tokenizers package.
size_t digit_end(std::string_view text, size_t at) {
  for (size_t end = at; end < text.size();) {
    const Classified read = classify(text, end);
    if (read.kind == CharClass::number) return end > at ? end : end + read.size;
    end += read.size;
  }
  return text.size();
}

// DeepSeek LLM: six steps, from the pre_tokenizer in tokenizer.json of deepseek-llm-7b-base. They
// are `Split`s with behaviour "isolated", so that a piece is a match or what lies between two.
struct CodeRange {
  char32_t first, last;
};

// The letters with case of its second step, code points in order. Copies of this pattern are often
// NFC-normalized, which turns some ends of ranges into other characters (U+212A into K).
constexpr CodeRange kDeepseekLetters[] = {
    {0x41, 0x5A},       {0x61, 0x7A},       {0xB5, 0xB5},       {0xC0, 0xD6},
    {0xD8, 0xF6},       {0xF8, 0x1BA},      {0x1BC, 0x1BF},     {0x1C4, 0x293},
    {0x295, 0x2AF},     {0x370, 0x373},     {0x376, 0x376},     {0x377, 0x377},
    {0x37B, 0x37D},     {0x37F, 0x37F},     {0x386, 0x386},     {0x388, 0x38A},
    {0x38C, 0x38C},     {0x38E, 0x3A1},     {0x3A3, 0x3F5},     {0x3F7, 0x481},
    {0x48A, 0x52F},     {0x531, 0x556},     {0x10A0, 0x10C5},   {0x13A0, 0x13F5},
    {0x13F8, 0x13FD},   {0x1C90, 0x1CBA},   {0x1CBD, 0x1CBF},   {0x1D00, 0x1D2B},
    {0x1D6B, 0x1D77},   {0x1D79, 0x1D9A},   {0x1E00, 0x1F15},   {0x1F18, 0x1F1D},
    {0x1F20, 0x1F45},   {0x1F48, 0x1F4D},   {0x1F50, 0x1F57},   {0x1F59, 0x1F59},
    {0x1F5B, 0x1F5B},   {0x1F5D, 0x1F5D},   {0x1F5F, 0x1F7D},   {0x1F80, 0x1FB4},
    {0x1FB6, 0x1FBC},   {0x1FBE, 0x1FBE},   {0x1FC2, 0x1FC4},   {0x1FC6, 0x1FCC},
    {0x1FD0, 0x1FD3},   {0x1FD6, 0x1FDB},   {0x1FE0, 0x1FEC},   {0x1FF2, 0x1FF4},
    {0x1FF6, 0x1FFC},   {0x2102, 0x2102},   {0x2107, 0x2107},   {0x210A, 0x2113},
    {0x2115, 0x2115},   {0x2119, 0x211D},   {0x2124, 0x2124},   {0x2126, 0x2126},
    {0x2128, 0x2128},   {0x212A, 0x212D},   {0x212F, 0x2134},   {0x2139, 0x2139},
    {0x213C, 0x213F},   {0x2145, 0x2149},   {0x214E, 0x214E},   {0x2183, 0x2183},
    {0x2184, 0x2184},   {0x2C00, 0x2C7B},   {0x2C7E, 0x2CE4},   {0x2CEB, 0x2CEE},
    {0x2CF2, 0x2CF2},   {0x2CF3, 0x2CF3},   {0xA640, 0xA66D},   {0xA680, 0xA69B},
    {0xA722, 0xA76F},   {0xA771, 0xA787},   {0xA78B, 0xA78E},   {0xAB70, 0xABBF},
    {0xFB00, 0xFB06},   {0xFB13, 0xFB17},   {0xFF21, 0xFF3A},   {0xFF41, 0xFF5A},
    {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB}, {0x10C80, 0x10CB2},
    {0x10CC0, 0x10CF2}, {0x118A0, 0x118DF}, {0x1E900, 0x1E943},
};

template <size_t kSize>
bool is_in(const CodeRange (&ranges)[kSize], char32_t code) {
  const CodeRange* range =
      std::lower_bound(std::begin(ranges), std::end(ranges), code,
                       [](const CodeRange& left, char32_t right) { return left.last < right; });
  return range != std::end(ranges) && range->first <= code;
}

bool is_deepseek_letter(char32_t code) {
  if (code < 128) return (code >= 'A' && code <= 'Z') || (code >= 'a' && code <= 'z');
  return is_in(kDeepseekLetters, code);
}

// [!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]: letters too, and so it parts
// the ASCII ones of a word from the others.
bool is_deepseek_mark(char32_t code) {
  constexpr CodeRange kMarks[] = {{'!', '/'},       {':', '~'},       {0x2018, 0x201F},
                                  {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E}};
  return is_in(kMarks, code);
}

// [\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]
bool is_deepseek_eastern(char32_t code) {
  constexpr CodeRange kEastern[] = {{0x800, 0x9FA5}, {0xAC00, 0xD7FF}};
  return is_in(kEastern, code);
}

template <bool (*kIsIn)(char32_t)>
size_t set_end(std::string_view text, size_t at) {
  while (at < text.size()) {
    const Utf8Char read = next_char(text, at);
    if (!kIsIn(read.code)) break;
    at += read.size;
  }
  return at;
}

// The end of a match at `at` of [set]+, or of \s?[set]+; `at` if there is none.
template <bool (*kIsIn)(char32_t), bool kSpace>
size_t match_end(std::string_view text, size_t at) {
  if constexpr (kSpace) {
    const Classified first = classify(text, at);
    if (first.kind == CharClass::space) {
      const size_t end = set_end<kIsIn>(text, at + first.size);
      if (end > at + first.size) return end;
    }
  }
  return set_end<kIsIn>(text, at);
}

template <bool (*kIsIn)(char32_t), bool kSpace>
size_t isolated_end(std::string_view text, size_t at) {
  size_t end = match_end<kIsIn, kSpace>(text, at);
  if (end > at) return end;
  do {
    end += next_char(text, end).size;
  } while (end < text.size() && match_end<kIsIn, kSpace>(text, end) == end);
  return end;
}

// [\r\n]
size_t newline_end(std::string_view text, size_t at) {
  if (is_newline(text[at])) return at + 1;
  while (at < text.size() && !is_newline(text[at])) ++at;
  return at;
}

// \s+$
size_t last_spaces_end(std::string_view text, size_t at) {
  size_t last = at;  // where the spaces at the end begin
  for (size_t end = at; end < text.size();) {
    const Classified read = classify(text, end);
    end += read.size;
    if (read.kind != CharClass::space) last = end;
  }
  return last > at ? last : text.size();
}

constexpr SplitStep kGpt2[] = {gpt2_word_end};
constexpr SplitStep kSmollm[] = {digit_end, gpt2_word_end};
constexpr SplitStep kLlama3[] = {cl100k_word_end<3>};
constexpr SplitStep kQwen2[] = {cl100k_word_end<1>};
constexpr SplitStep kDeepseek[] = {
    newline_end,     isolated_end<is_deepseek_letter, true>,   isolated_end<is_deepseek_mark, true>,
    last_spaces_end, isolated_end<is_deepseek_eastern, false>, digit_end};
static_assert(std::size(kDeepseek) <= kMostSplitSteps);

// The names that llama.cpp's converter writes for these patterns in files of this family.
constexpr Pretokenizer kPretokenizers[] = {
    {"gpt-2", kGpt2, false},
    {"smollm", kSmollm, false},
    {"llama-bpe", kLlama3, true},
    {"llama3", kLlama3, true},
    {"llama-v3", kLlama3, true},
    {"qwen2", kQwen2, false},
    {"deepseek-r1-qwen", kQwen2, false},
    {"deepseek-llm", kDeepseek, false},
};

}  // namespace

const Pretokenizer& find_pretokenizer(std::string_view name) {
  std::string names;
  for (const Pretokenizer& row : kPretokenizers) {
    if (row.name == name) return row;
    names.append(names.empty() ? "" : ", ").append(row.name);
  }
  fail(ErrorKind::unsupported, "the vocabulary's pre-tokenizer '", printable(name),
       "' (tokenizer.ggml.pre) is not supported; supported are ", names);
}

std::string_view guess_pretokenizer(const std::vector<std::string>& tokens) {
  struct Known {
    std::string_view token;
    size_t fewest, most;  // tokens, padding included
    std::string_view name;
  };
  constexpr Known kKnown[] = {
      {"<|begin_of_text|>", 128000, 129000, "llama-bpe"},
      {"<|im_start|>", 151000, 153000, "qwen2"},
      {"<\uFF5Cbegin\u2581of\u2581sentence\uFF5C>", 100000, 103000, "deepseek-llm"},
  };
  for (const Known& known : kKnown) {
    if (tokens.size() < known.fewest || tokens.size() > known.most) continue;
    if (std::ranges::find(tokens, known.token) != tokens.end()) return known.name;
  }
  return "gpt-2";
}

bool WordSplitter::next(std::string_view* word) {
  if (at_ == text_.size()) return false;
  size_t end = text_.size();
  for (size_t i = 0; i < rule_.steps.size(); ++i) {
    if (ends_[i] == at_) ends_[i] = rule_.steps[i](text_.substr(0, end), at_);
    end = ends_[i];
  }
  *word = text_.substr(at_, end - at_);
  at_ = end;
  return true;
}

}  // namespace pyllamacpp
