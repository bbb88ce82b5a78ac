// The tokens that may still be drawn, with their logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace pyllamacpp {

// At first the whole vocabulary, read where it lies; a list once tokens were dropped. A logit of
// minus infinity is a token that is not there. The order is that of the tokens, or best first
// (equal logits in order of token) after the functions that say so.
class Candidates {
 public:
  struct Candidate {
    float logit;
    int32_t token;
  };

  // Everything in `logits`, which stay as they are and must outlive the next reset().
  void reset(std::span<const float> logits);

  // The largest logit; minus infinity when there is no token.
  float best_logit() const;
  // The first token with it, -1 when there is none.
  int32_t best_token() const;

  // logit = f(logit, i) for the candidates among tokens[i], which ascend. Others are passed over.
  template <class F>
  void update(std::span<const int32_t> tokens, const F& f);
  // logit = f(logit) for all; f must not change their order.
  template <class F>
  void update_all(const F& f);

  // Keeps the k best, k > 0, best first.
  void keep_best(size_t k);
  // Keeps the longest row of the best of which keep(candidate) is true, but at least one; best
  // first.
  template <class F>
  void keep_best_while(const F& keep);
  // Keeps logits >= least.
  void keep_from(float least);
  // Keeps what keep(candidate, i) is true for, i being the place of the candidate.
  template <class F>
  void keep_if(const F& keep);

  // f(logit) for each candidate in order.
  template <class F>
  void for_each(const F& f) const;
  // The candidates as a list.
  std::span<const Candidate> list();

 private:
  static bool before(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  }
  std::span<float> own();

  bool is_whole_ = true;          // whole_ counts, list_ does not
  bool is_best_first_ = false;    // of list_
  std::span<const float> whole_;  // by token; copied to changed_ before the first change
  std::vector<float> changed_;    // kept between calls, as list_ is: sampling allocates nothing
  std::vector<Candidate> list_;
};

template <class F>
void Candidates::update(std::span<const int32_t> tokens, const F& f) {
  if (tokens.empty()) return;  // nothing to copy for
  if (is_whole_) {
    const std::span<float> logits = own();
    for (size_t i = 0; i < tokens.size(); ++i)
      if (tokens[i] >= 0 && size_t(tokens[i]) < logits.size()) {
        float& logit = logits[size_t(tokens[i])];
        if (logit > -INFINITY) logit = f(logit, i);
      }
    return;
  }
  for (Candidate& c : list_) {
    const auto found = std::lower_bound(tokens.begin(), tokens.end(), c.token);
    if (found != tokens.end() && *found == c.token)
      c.logit = f(c.logit, size_t(found - tokens.begin()));
  }
  is_best_first_ = false;
}

template <class F>
void Candidates::update_all(const F& f) {
  if (is_whole_)
    for (float& logit : own()) logit = f(logit);
  else
    for (Candidate& c : list_) c.logit = f(c.logit);
}

template <class F>
void Candidates::keep_best_while(const F& keep) {
  list();
  if (!is_best_first_) {
    // A heap of all, from which the few that stay are taken to the end, best last.
    const auto after = [](const Candidate& a, const Candidate& b) { return before(b, a); };
    std::make_heap(list_.begin(), list_.end(), after);
    auto end = list_.end();
    while (end != list_.begin() && (keep(list_.front()) || end == list_.end()))
      std::pop_heap(list_.begin(), end--, after);
    std::reverse(end, list_.end());
    list_.erase(list_.begin(), end);
    is_best_first_ = true;
    return;
  }
  size_t n = 0;
  while (n < list_.size() && (keep(list_[n]) || n == 0)) ++n;
  list_.resize(n);
}

template <class F>
void Candidates::keep_if(const F& keep) {
  list();
  size_t n = 0;
  for (size_t i = 0; i < list_.size(); ++i)
    if (keep(list_[i], i)) list_[n++] = list_[i];
  list_.resize(n);
}

template <class F>
void Candidates::for_each(const F& f) const {
  if (is_whole_) {
    for (float logit : whole_)
      if (logit > -INFINITY) f(logit);
  } else {
    for (const Candidate& c : list_) f(c.logit);
  }
}

}  // namespace pyllamacpp
