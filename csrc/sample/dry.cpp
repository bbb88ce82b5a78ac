#include "sample/dry.h"

#include <algorithm>
#include <utility>

namespace pyllamacpp {

RepetitionFinder::RepetitionFinder(std::vector<std::string> breakers, PieceOf piece)
    : breakers_(std::move(breakers)), piece_(std::move(piece)) {
  for (const std::string& breaker : breakers_)
    longest_breaker_ = std::max(longest_breaker_, breaker.size());
}

// How many tokens at the end of `history`, `most` at most, come after the last breaker.
size_t RepetitionFinder::unbroken(std::span<const int32_t> history, size_t most) {
  if (!piece_ || longest_breaker_ == 0) return most;
  // text_ holds the text of tokens [first, i] and at least as much before token i as a breaker
  // that ends in it can have there.
  size_t first = history.size();
  text_.clear();
  for (size_t n = 0; n < most; ++n) {
    const size_t i = history.size() - 1 - n;
    const size_t size = piece_(history[i]).size();
    while (first > 0 && (first > i || text_.size() < size + longest_breaker_ - 1))
      text_.insert(0, piece_(history[--first]));
    const size_t start = text_.size() - size;
    for (const std::string& breaker : breakers_) {
      const size_t from = start >= breaker.size() - 1 ? start - (breaker.size() - 1) : 0;
      if (text_.find(breaker, from) != std::string::npos) return n;
    }
    text_.resize(start);
  }
  return most;
}

std::span<const RepetitionFinder::Repetition> RepetitionFinder::find(
    std::span<const int32_t> history, size_t last_n, int32_t least) {
  found_.clear();
  const size_t n = std::min(history.size(), last_n);
  const size_t limit = unbroken(history, n);
  if (n < 2 || limit < size_t(least)) return found_;
  const auto back = [&](size_t i) { return history[history.size() - 1 - i]; };
  // z_[i]: how many tokens, read backwards, are the same from the end and from i before it
  // (Gusfield 1997, the Z algorithm). [from, to) is the match that reaches farthest.
  z_.assign(n, 0);
  for (size_t i = 1, from = 0, to = 0; i < n; ++i) {
    size_t length = i < to ? std::min(to - i, size_t(z_[i - from])) : 0;
    while (i + length < n && back(length) == back(i + length)) ++length;
    z_[i] = int32_t(length);
    if (i + length > to) {
      from = i;
      to = i + length;
    }
    const auto repeated = int32_t(std::min(length, limit));
    if (repeated >= least) found_.push_back({back(i - 1), repeated});
  }
  // The longest of each token.
  std::sort(found_.begin(), found_.end(), [](const Repetition& a, const Repetition& b) {
    return a.token < b.token || (a.token == b.token && a.length > b.length);
  });
  found_.erase(
      std::unique(found_.begin(), found_.end(),
                  [](const Repetition& a, const Repetition& b) { return a.token == b.token; }),
      found_.end());
  return found_;
}

}  // namespace pyllamacpp
