// Splitting text into the words that byte-level BPE merges within. Each pattern that a vocabulary
// can name is a hand-written scanner: linear time, no regular expression engine.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pyllamacpp {

// Cuts a piece off the front: its end (> at), where `text` ends where the pattern sees an end.
using SplitStep = size_t (*)(std::string_view text, size_t at);

constexpr size_t kMostSplitSteps = 6;

// One row of the table of pre-tokenizers: to add one, add a row to kPretokenizers.
struct Pretokenizer {
  std::string_view name;  // tokenizer.ggml.pre

  // Each one cuts the pieces of the one before, as if a piece stood alone; the last one's are the
  // words (`Sequence` of the tokenizers package).
  std::span<const SplitStep> steps;

  // A word that is a token is that token, whatever the merges say (`ignore_merges` of
  // tokenizer.json, which the GGUF does not state).
  bool ignore_merges;
};

// The row of `name`. Throws Error(unsupported) naming it and listing the names.
const Pretokenizer& find_pretokenizer(std::string_view name);

// The name for a vocabulary that states none, or "default", as files written before May 2024 do.
// Those of models known to be so published are told by a token and their size; others are split as
// GPT-2 did, which is what the model "gpt2" was.
std::string_view guess_pretokenizer(const std::vector<std::string>& tokens);

// Walks over the words of a text; together they are the text.
class WordSplitter {
 public:
  WordSplitter(const Pretokenizer& rule, std::string_view text) : rule_(rule), text_(text) {}

  // False at the end.
  bool next(std::string_view* word);

 private:
  const Pretokenizer& rule_;
  std::string_view text_;
  size_t at_ = 0;
  std::array<size_t, kMostSplitSteps> ends_{};  // of the current piece of each step
};

}  // namespace pyllamacpp
