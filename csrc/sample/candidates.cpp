#include "sample/candidates.h"

namespace pyllamacpp {

namespace {

// Largest of a block of 16. Lanes are apart so that compilers vectorise it.
float block_max(const float* x) {
  float lanes[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 4; ++j) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
  for (int j = 1; j < 4; ++j) lanes[0] = lanes[j] > lanes[0] ? lanes[j] : lanes[0];
  return lanes[0];
}

// Calls f(i) for every i with x[i] > threshold(), which may rise meanwhile.
template <class Threshold, class F>
void for_above(std::span<const float> x, const Threshold& threshold, const F& f) {
  size_t i = 0;
  for (; i + 16 <= x.size(); i += 16) {
    if (block_max(&x[i]) <= threshold()) continue;
    for (size_t j = i; j < i + 16; ++j)
      if (x[j] > threshold()) f(j);
  }
  for (; i < x.size(); ++i)
    if (x[i] > threshold()) f(i);
}

}  // namespace

void Candidates::reset(std::span<const float> logits) {
  is_whole_ = true;
  whole_ = logits;
}

// The whole vocabulary's logits, to be changed.
std::span<float> Candidates::own() {
  if (whole_.data() != changed_.data()) {
    changed_.assign(whole_.begin(), whole_.end());
    whole_ = changed_;
  }
  return changed_;
}

int32_t Candidates::best_token() const {
  int32_t token = -1;
  float best = -INFINITY;
  if (is_whole_) {
    for_above(
        whole_, [&] { return best; },
        [&](size_t i) {
          best = whole_[i];
          token = int32_t(i);
        });
  } else if (!list_.empty()) {
    token = std::min_element(list_.begin(), list_.end(), before)->token;
  }
  return token;
}

float Candidates::best_logit() const {
  float best = -INFINITY;
  if (is_whole_)
    for_above(whole_, [&] { return best; }, [&](size_t i) { best = whole_[i]; });
  else if (!list_.empty())
    best = std::min_element(list_.begin(), list_.end(), before)->logit;
  return best;
}

std::span<const Candidates::Candidate> Candidates::list() {
  if (is_whole_) keep_from(-INFINITY);
  return list_;
}

void Candidates::keep_best(size_t k) {
  if (!is_whole_) {
    keep_best_while([&k](const Candidate&) { return k-- > 0; });
    return;
  }
  // A heap of the k best so far, the worst of them in front.
  list_.clear();
  float least = -INFINITY;
  for_above(
      whole_, [&] { return least; },
      [&](size_t i) {
        list_.push_back({whole_[i], int32_t(i)});
        std::push_heap(list_.begin(), list_.end(), before);
        if (list_.size() > k) {
          std::pop_heap(list_.begin(), list_.end(), before);
          list_.pop_back();
        }
        if (list_.size() == k) least = list_.front().logit;
      });
  std::sort_heap(list_.begin(), list_.end(), before);
  is_whole_ = false;
  is_best_first_ = true;
}

void Candidates::keep_from(float least) {
  if (!is_whole_) {
    std::erase_if(list_, [least](const Candidate& c) { return c.logit < least; });
    return;
  }
  list_.clear();
  // for_above leaves out what equals its threshold, which is right for minus infinity only.
  const float below = std::nextafter(least, -INFINITY);
  for_above(
      whole_, [below] { return below; },
      [&](size_t i) { list_.push_back({whole_[i], int32_t(i)}); });
  is_whole_ = false;
  is_best_first_ = false;
}

}  // namespace pyllamacpp
