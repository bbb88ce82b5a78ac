// DRY ("don't repeat yourself", p-e-w, text-generation-webui pull request 5677; llama.cpp has it
// too): finds the tokens that would make a repetition longer.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pyllamacpp {

// The text of a token, which must live as long as the function.
using PieceOf = std::function<std::string_view(int32_t token)>;

class RepetitionFinder {
 public:
  // No repetition goes across a token in which one of the strings of `breakers` ends; they are
  // found in the text of the tokens, wherever their borders are.
  RepetitionFinder(std::vector<std::string> breakers, PieceOf piece);

  struct Repetition {
    int32_t token;
    int32_t length;  // of the longest end of the text that `token` has followed before
  };

  // The tokens that have followed, among the last `last_n` of `history`, at least `least` tokens
  // which the history now ends with; in order of token. Linear in last_n (but for sorting what it
  // finds). The result is valid until the next call.
  std::span<const Repetition> find(std::span<const int32_t> history, size_t last_n, int32_t least);

 private:
  size_t unbroken(std::span<const int32_t> history, size_t most);

  std::vector<std::string> breakers_;
  size_t longest_breaker_ = 0;
  PieceOf piece_;
  std::vector<int32_t> z_;  // kept between calls
  std::vector<Repetition> found_;
  std::string text_;
};

}  // namespace pyllamacpp
