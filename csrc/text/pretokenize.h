// Splitting text into the words that byte-level BPE merges within. Each pattern that a vocabulary
// can name is a hand-written scanner: linear time, no regular expression engine.
#pragma once

#include <cstddef>
#include <string_view>

namespace pyllamacpp {

// One row of the table of pre-tokenizers: to add one, add a row to kPretokenizers.
struct Pretokenizer {
  std::string_view name;  // tokenizer.ggml.pre

  // The end (> at) of the word that starts at `at`; `text` ends where the pattern sees an end.
  size_t (*word_end)(std::string_view text, size_t at);

  // Each \p{N} is a word, and the text between two of them is scanned as if it stood alone
  // (`Digits(individual_digits=True)` of the tokenizers package, before the pattern).
  bool isolate_digits;

  // A word that is a token is that token, whatever the merges say (`ignore_merges` of
  // tokenizer.json, which the GGUF does not state).
  bool ignore_merges;
};

// The row of `name`; an empty name is "default". Throws Error(unsupported) listing the names.
const Pretokenizer& find_pretokenizer(std::string_view name);

// Walks over the words of a text; together they are the text.
class WordSplitter {
 public:
  WordSplitter(const Pretokenizer& rule, std::string_view text) : rule_(rule), text_(text) {}

  // False at the end.
  bool next(std::string_view* word);

 private:
  size_t end_of_part() const;

  const Pretokenizer& rule_;
  std::string_view text_;
  size_t at_ = 0;
  size_t part_end_ = 0;  // up to where the pattern may look
};

}  // namespace pyllamacpp
