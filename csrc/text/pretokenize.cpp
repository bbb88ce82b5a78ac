#include "text/pretokenize.h"

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
// Source: Llama 3's tokenizer.py (kDigits = 3); the shape of OpenAI's cl100k_base.
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

constexpr Pretokenizer kPretokenizers[] = {
    {"default", gpt2_word_end, false, false},    {"gpt-2", gpt2_word_end, false, false},
    {"smollm", gpt2_word_end, true, false},      {"llama-bpe", cl100k_word_end<3>, false, true},
    {"llama3", cl100k_word_end<3>, false, true}, {"llama-v3", cl100k_word_end<3>, false, true},
};

}  // namespace

const Pretokenizer& find_pretokenizer(std::string_view name) {
  if (name.empty()) name = "default";
  std::string names;
  for (const Pretokenizer& row : kPretokenizers) {
    if (row.name == name) return row;
    names.append(names.empty() ? "" : ", ").append(row.name);
  }
  fail(ErrorKind::unsupported, "the vocabulary's pre-tokenizer '", printable(name),
       "' (tokenizer.ggml.pre) is not supported; supported are ", names);
}

bool WordSplitter::next(std::string_view* word) {
  if (at_ == text_.size()) return false;
  if (at_ == part_end_) part_end_ = end_of_part();
  const size_t end = rule_.word_end(text_.substr(0, part_end_), at_);
  *word = text_.substr(at_, end - at_);
  at_ = end;
  return true;
}

size_t WordSplitter::end_of_part() const {
  if (!rule_.isolate_digits) return text_.size();
  for (size_t at = at_; at < text_.size();) {
    const Classified read = classify(text_, at);
    if (read.kind == CharClass::number) return at > at_ ? at : at + read.size;
    at += read.size;
  }
  return text_.size();
}

}  // namespace pyllamacpp
