#include "sample/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace pyllamacpp {

namespace {

// A number in [0, 1) that depends on seed and index alone: SplitMix64's output function (Steele,
// Lea, Flood 2014), so that a draw needs no state beyond its number.
double uniform(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return double((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

// Largest of a block of 16; NaN never wins. Lanes are apart so that compilers vectorise it.
float block_max(const float* x) {
  float lanes[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 4; ++j) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
  for (int j = 1; j < 4; ++j) lanes[0] = lanes[j] > lanes[0] ? lanes[j] : lanes[0];
  return lanes[0];
}

// Calls f(i) at least for every i with x[i] > threshold(), which may rise meanwhile.
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

Sampler::Sampler(const SamplingParams& params) : params_(params) {
  const auto check = [](const char* name, float value) {
    if (!std::isfinite(value))
      fail(ErrorKind::invalid_argument, name, " is ", value, ", expected a finite number");
  };
  check("temperature", params.temperature);
  check("top_p", params.top_p);
  check("min_p", params.min_p);
  check("typical_p", params.typical_p);
  check("frequency_penalty", params.frequency_penalty);
  check("presence_penalty", params.presence_penalty);
  check("repeat_penalty", params.repeat_penalty);
  if (params.repeat_penalty <= 0)
    fail(ErrorKind::invalid_argument, "repeat_penalty is ", params.repeat_penalty,
         ", expected a positive number");
  // An infinite bias is a way to force or to forbid a token.
  for (const auto& [token, bias] : params.logit_bias)
    if (std::isnan(bias))
      fail(ErrorKind::invalid_argument, "the logit_bias of token ", token, " is NaN");
}

bool Sampler::before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// Fills candidates_ with the k best of `logits`, best first; equal logits in order of token.
void Sampler::take_best(std::span<const float> logits, size_t k) {
  candidates_.clear();
  float least = -INFINITY;
  for_above(
      logits, [&] { return least; },
      [&](size_t i) {
        candidates_.push_back({logits[i], int32_t(i)});
        std::push_heap(candidates_.begin(), candidates_.end(), before);
        if (candidates_.size() > k) {
          std::pop_heap(candidates_.begin(), candidates_.end(), before);
          candidates_.pop_back();
        }
        if (candidates_.size() == k) least = candidates_.front().logit;
      });
  std::sort_heap(candidates_.begin(), candidates_.end(), before);
}

// weights_[i] = exp((logit_i - best) / temperature); returns their sum.
double Sampler::weigh(float temperature) {
  weights_.clear();
  double total = 0;
  for (const Candidate& c : candidates_) {
    weights_.push_back(std::exp((c.logit - candidates_[0].logit) / temperature));
    total += double(weights_.back());
  }
  return total;
}

// The logits with biases and penalties; `logits` themselves when there are none. Penalties are
// those of Keskar et al. 2019 (arXiv:1909.05858, repeat) and of OpenAI's API (frequency, presence).
std::span<const float> Sampler::adjusted(std::span<const float> logits,
                                         std::span<const int32_t> history) {
  const SamplingParams& p = params_;
  const size_t n =
      p.penalty_last_n < 0 ? history.size() : std::min(history.size(), size_t(p.penalty_last_n));
  const bool penalize =
      n > 0 && (p.repeat_penalty != 1 || p.frequency_penalty != 0 || p.presence_penalty != 0);
  if (p.logit_bias.empty() && !penalize) return logits;
  adjusted_.assign(logits.begin(), logits.end());
  const auto known = [&](int32_t token) { return token >= 0 && size_t(token) < logits.size(); };
  for (const auto& [token, bias] : p.logit_bias) {
    if (!known(token))
      fail(ErrorKind::invalid_argument, "logit_bias names token ", token,
           ", which the vocabulary of ", logits.size(), " does not have");
    adjusted_[size_t(token)] += bias;
  }
  if (!penalize) return adjusted_;
  recent_.assign(history.end() - std::ptrdiff_t(n), history.end());
  std::sort(recent_.begin(), recent_.end());
  for (size_t i = 0; i < recent_.size();) {
    const size_t first = i;
    while (i < recent_.size() && recent_[i] == recent_[first]) ++i;
    if (!known(recent_[first])) continue;
    float& logit = adjusted_[size_t(recent_[first])];
    logit = logit > 0 ? logit / p.repeat_penalty : logit * p.repeat_penalty;
    logit -= float(i - first) * p.frequency_penalty + p.presence_penalty;
  }
  return adjusted_;
}

// Locally typical sampling (Meister et al. 2022, arXiv:2202.00666): keeps the candidates whose
// surprise is nearest to the expected one, up to a share of typical_p, best first again.
void Sampler::keep_typical() {
  const double total = weigh(1);
  double entropy = 0;
  for (float w : weights_)
    if (w > 0) entropy -= double(w) / total * std::log(double(w) / total);
  std::vector<std::pair<double, size_t>> order;  // distance from it
  for (size_t i = 0; i < weights_.size(); ++i)
    order.emplace_back(std::abs(-std::log(double(weights_[i]) / total) - entropy), i);
  std::sort(order.begin(), order.end());
  double sum = 0;
  size_t n = 0;
  while (n < order.size() && (n == 0 || sum < double(params_.typical_p) * total))
    sum += double(weights_[order[n++].second]);
  std::vector<Candidate> kept;
  for (size_t i = 0; i < n; ++i) kept.push_back(candidates_[order[i].second]);
  std::sort(kept.begin(), kept.end(), before);
  candidates_ = std::move(kept);
}

int32_t Sampler::sample(std::span<const float> plain, std::span<const int32_t> history) {
  const std::span<const float> logits = adjusted(plain, history);
  const bool greedy = params_.temperature <= 0;
  const size_t k = greedy ? 1 : params_.top_k <= 0 ? logits.size() : size_t(params_.top_k);
  take_best(logits, std::min(k, logits.size()));
  if (candidates_.empty() || !std::isfinite(candidates_[0].logit))
    fail(ErrorKind::invalid_argument, "no token can be sampled: the logits are not finite");
  const uint64_t index = n_sampled_++;
  if (greedy) return candidates_[0].token;

  if (params_.typical_p < 1) keep_typical();
  if (params_.top_p < 1) {
    const double enough = double(params_.top_p) * weigh(1);
    double sum = 0;
    size_t n = 0;
    while (n < weights_.size() && (n == 0 || sum < enough)) sum += double(weights_[n++]);
    candidates_.resize(n);
  }
  if (params_.min_p > 0) {
    const float least = candidates_[0].logit + std::log(std::min(params_.min_p, 1.0f));
    while (candidates_.back().logit < least) candidates_.pop_back();
  }
  double left = uniform(params_.seed, index) * weigh(params_.temperature);
  for (size_t i = 0; i + 1 < weights_.size(); ++i) {
    left -= double(weights_[i]);
    if (left < 0) return candidates_[i].token;
  }
  return candidates_.back().token;
}

}  // namespace pyllamacpp
