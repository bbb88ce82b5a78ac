// The sampler against a plain implementation in double: which tokens it may draw, how often it
// draws each, and what it does with ties, NaN and infinities.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "sample/sampler.h"

namespace {

using namespace pyllamacpp;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Probability of each token; `clear` says whether every cut is far from its threshold, so that
// rounding cannot change the set.
std::vector<double> plain(const std::vector<float>& logits, const SamplingParams& p, bool* clear) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (p.top_k > 0 && size_t(p.top_k) < order.size()) order.resize(size_t(p.top_k));
  const double best = double(logits[order[0]]);
  const auto weight = [&](size_t token, double temperature) {
    return std::exp((double(logits[token]) - best) / temperature);
  };
  *clear = true;
  const auto at_threshold = [&](double value, double threshold) {
    if (std::fabs(value - threshold) < 1e-5 * threshold) *clear = false;
  };
  if (p.top_p < 1) {
    double total = 0, sum = 0;
    for (size_t token : order) total += weight(token, 1);
    size_t n = 0;
    while (n < order.size() && (n == 0 || sum < double(p.top_p) * total)) {
      sum += weight(order[n++], 1);
      at_threshold(sum, double(p.top_p) * total);
    }
    order.resize(n);
  }
  if (p.min_p > 0) {
    for (size_t token : order) at_threshold(weight(token, 1), double(p.min_p));
    std::erase_if(order, [&](size_t token) { return weight(token, 1) < double(p.min_p); });
  }
  std::vector<double> probability(logits.size());
  double total = 0;
  for (size_t token : order) total += probability[token] = weight(token, double(p.temperature));
  for (double& x : probability) x /= total;
  return probability;
}

// Tokens expected fewer than ten times are taken as one. P(chi-square > k + 2 sqrt(k t) + 2 t) is
// at most exp(-t) with k degrees of freedom (Laurent and Massart, 2000); the seeds are fixed.
void check_distribution(const std::vector<int>& counts, const std::vector<double>& probability) {
  const double n = std::accumulate(counts.begin(), counts.end(), 0);
  double statistic = 0, rare_expected = 0, rare_seen = 0;
  int cells = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = n * probability[i], seen = counts[i];
    if (probability[i] == 0) CHECK(counts[i] == 0);
    if (expected < 10) {
      rare_expected += expected;
      rare_seen += seen;
    } else {
      statistic += (seen - expected) * (seen - expected) / expected;
      ++cells;
    }
  }
  if (rare_expected >= 10) {
    statistic += (rare_seen - rare_expected) * (rare_seen - rare_expected) / rare_expected;
    ++cells;
  }
  const double freedom = std::max(cells - 1, 1), t = 14;
  CHECK(statistic <= freedom + 2 * std::sqrt(freedom * t) + 2 * t);
}

std::vector<float> random_logits(std::mt19937& random, size_t n, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(n);
  for (float& x : logits) x = normal(random);
  return logits;
}

void test_sets_and_distribution() {
  std::mt19937 random(1);
  int checked = 0;
  for (size_t size : {1, 2, 15, 16, 17, 40})
    for (int32_t top_k : {0, 1, 5, 1000})
      for (float top_p : {0.0f, 0.5f, 0.9f, 1.0f})
        for (float min_p : {0.0f, 0.1f, 1.0f}) {
          const float temperature = std::vector<float>{0.5f, 1, 1.7f}[random() % 3];
          const SamplingParams params = {temperature, top_k, top_p, min_p, random()};
          const std::vector<float> logits = random_logits(random, size, 2);
          bool clear;
          const std::vector<double> probability = plain(logits, params, &clear);
          // min_p = 1 keeps the best exactly.
          if (!clear && min_p < 1) continue;
          Sampler sampler(params);
          std::vector<int> counts(size);
          for (int i = 0; i < 1000; ++i) ++counts[size_t(sampler.sample(logits))];
          check_distribution(counts, probability);
          ++checked;
        }
  CHECK(checked > 200);
}

// The first draw over many seeds, and the later draws of one seed, are as even as each other.
void test_draws_are_even() {
  const std::vector<float> logits(16, 1.5f);
  const std::vector<double> even(16, 1.0 / 16);
  for (uint64_t step : {uint64_t(1), uint64_t(1) << 32, uint64_t(0x9e3779b97f4a7c15u)}) {
    std::vector<int> counts(16);
    for (uint64_t i = 0; i < 8000; ++i)
      ++counts[size_t(Sampler({1, 0, 1, 0, i * step}).sample(logits))];
    check_distribution(counts, even);
  }
  Sampler sampler({1, 0, 1, 0, 7});
  std::vector<int> counts(16), pairs(16 * 16);
  for (int i = 0; i < 8000; ++i) {
    const int a = sampler.sample(logits), b = sampler.sample(logits);
    ++counts[size_t(a)];
    ++pairs[size_t(16 * a + b)];
  }
  check_distribution(counts, even);
  check_distribution(pairs, std::vector<double>(16 * 16, 1.0 / (16 * 16)));
}

void test_seeds() {
  std::mt19937 random(3);
  const std::vector<float> logits = random_logits(random, 200, 1);
  const auto draws = [&](uint64_t seed) {
    Sampler sampler({0.9f, 0, 1, 0, seed});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 100; ++i) tokens.push_back(sampler.sample(logits));
    return tokens;
  };
  CHECK(draws(1) == draws(1));
  CHECK(draws(1) != draws(2));
  CHECK(draws(0) != draws(UINT64_MAX));
  // A draw depends on its number, not on what was drawn before.
  Sampler sampler({0.9f, 0, 1, 0, 1});
  const std::vector<float> other(200, 0);
  for (int i = 0; i < 99; ++i) sampler.sample(other);
  CHECK(sampler.sample(logits) == draws(1)[99]);
}

// Sizes and places sweep the blocks of 16 that the search for the best skips.
void test_greedy_finds_the_first_of_the_best() {
  std::mt19937 random(4);
  for (float temperature : {0.0f, -1.0f}) {
    Sampler greedy({temperature, 40, 0.95f, 0.05f, 0});
    for (size_t n = 1; n <= 70; ++n)
      for (size_t at = 0; at < n; ++at) {
        std::vector<float> logits = random_logits(random, n, 1);
        logits[at] = 50;
        CHECK(greedy.sample(logits) == int32_t(at));
        logits[n - 1] = logits[at];
        CHECK(greedy.sample(logits) == int32_t(at));
      }
  }
  Sampler greedy({0, 40, 0.95f, 0.05f, 0});
  CHECK(greedy.sample(std::vector<float>(100, -3)) == 0);
}

void test_ties_at_a_cut_go_to_the_lower_token() {
  std::vector<float> logits(50, 1);
  logits[40] = 2;
  Sampler sampler({1, 3, 1, 0, 5});
  std::vector<int> counts(50);
  for (int i = 0; i < 1000; ++i) ++counts[size_t(sampler.sample(logits))];
  CHECK(counts[40] > 0 && counts[0] > 0 && counts[1] > 0);
  CHECK(counts[40] + counts[0] + counts[1] == 1000);

  Sampler equals({1, 0, 1, 1, 5});  // min_p = 1: whatever is as good as the best
  logits[7] = 2;
  std::fill(counts.begin(), counts.end(), 0);
  for (int i = 0; i < 1000; ++i) ++counts[size_t(equals.sample(logits))];
  CHECK(counts[40] > 300 && counts[7] > 300 && counts[40] + counts[7] == 1000);
}

template <class F>
void check_refused(const F& f) {
  bool refused = false;
  try {
    f();
  } catch (const Error& e) {
    refused = e.kind() == ErrorKind::invalid_argument;
  }
  CHECK(refused);
}

// A NaN comes from a broken computation; it is reported wherever it is.
void test_nan_is_refused() {
  for (size_t n : {1, 2, 15, 16, 17, 31, 32, 33, 48})
    for (size_t nan = 0; nan < n; ++nan)
      for (float temperature : {0.0f, 1.0f}) {
        std::vector<float> logits(n, 0);
        logits[nan] = kNan;
        check_refused([&] { Sampler({temperature, 2, 1, 0, 0}).sample(logits); });
      }
}

void test_infinities() {
  // Minus infinity is a token that may not be drawn.
  std::vector<float> logits(33, -kInf);
  logits[3] = logits[32] = 0;
  Sampler sampler({5, 0, 1, 0, 1});
  int last = 0;
  for (int i = 0; i < 1000; ++i) {
    const int32_t token = sampler.sample(logits);
    CHECK(token == 3 || token == 32);
    last += token == 32;
  }
  CHECK(last > 400 && last < 600);

  for (float temperature : {0.0f, 1.0f})
    for (const std::vector<float>& bad : {std::vector<float>{},
                                          {kNan},
                                          {-kInf, kNan, -kInf},
                                          std::vector<float>(40, -kInf),
                                          {0, kInf, 0}})
      check_refused([&] { Sampler({temperature, 0, 1, 0, 0}).sample(bad); });
  // A refused call draws nothing: the next is the first.
  const std::vector<float> even(100, 0);
  Sampler fresh({1, 0, 1, 0, 9}), failed({1, 0, 1, 0, 9});
  check_refused([&] { failed.sample({}); });
  CHECK(failed.sample(even) == fresh.sample(even));
}

void test_extreme_numbers() {
  std::vector<float> logits = {3e38f, -3e38f, 3e38f, 1};
  for (float temperature : {1e-45f, 1e-6f, 1.0f, 1e6f, 3e38f})
    for (uint64_t seed = 0; seed < 50; ++seed) {
      const int32_t token = Sampler({temperature, 0, 0.9f, 0.1f, seed}).sample(logits);
      CHECK(token == 0 || token == 2);
    }
  // Cold takes the best, hot takes all alike.
  logits = {0, 1, 0.999f};
  std::vector<int> counts(3);
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    CHECK(Sampler({1e-5f, 0, 1, 0, seed}).sample(logits) == 1);
    ++counts[size_t(Sampler({1e6f, 0, 1, 0, seed}).sample(logits))];
  }
  check_distribution(counts, {1.0 / 3, 1.0 / 3, 1.0 / 3});
  // A whole vocabulary, every token kept.
  const std::vector<float> vocabulary(128256, 0.25f);
  int upper = 0;
  for (uint64_t seed = 0; seed < 12; ++seed)
    upper += Sampler({1, 0, 1, 0, seed}).sample(vocabulary) >= 64128;
  CHECK(upper > 1 && upper < 11);
}

void test_parameters() {
  for (float bad : {kNan, kInf, -kInf}) {
    check_refused([&] { Sampler({bad, 0, 1, 0, 0}); });
    check_refused([&] { Sampler({1, 0, bad, 0, 0}); });
    check_refused([&] { Sampler({1, 0, 1, bad, 0}); });
  }
  // The ends of the ranges are no errors: nothing above the best, everything.
  const std::vector<float> logits = {0, 3, 1};
  CHECK(Sampler({1, 0, -1, 0, 0}).sample(logits) == 1);
  CHECK(Sampler({1, 0, 1, 2, 0}).sample(logits) == 1);
  CHECK(Sampler({1, INT32_MAX, 2, -1, 0}).sample(logits) >= 0);
  CHECK(Sampler({1, INT32_MIN, 2, -1, 0}).sample(logits) >= 0);
}

}  // namespace

// The token that greedy sampling takes after biases and penalties, worked out one by one.
void test_bias_and_penalties() {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    const size_t size = 1 + random() % 40;
    const std::vector<float> logits = random_logits(random, size, 3);
    std::vector<int32_t> history(random() % 30);
    for (int32_t& token : history) token = int32_t(random() % (size + 2)) - 1;  // some unknown
    SamplingParams p{.temperature = 0};
    p.repeat_penalty = std::vector<float>{1, 1.3f, 0.8f}[random() % 3];
    p.frequency_penalty = std::vector<float>{0, 0.5f, -0.5f}[random() % 3];
    p.presence_penalty = std::vector<float>{0, 1, -1}[random() % 3];
    p.penalty_last_n = std::vector<int32_t>{0, 5, 64, -1}[random() % 4];
    if (random() % 2) p.unpenalized = {int32_t(random() % size), int32_t(random() % size)};
    if (random() % 2)
      p.logit_bias = {{int32_t(random() % size), 2.5f}, {int32_t(random() % size), -kInf}};
    std::vector<float> expected = logits;
    for (const auto& [token, bias] : p.logit_bias) expected[size_t(token)] += bias;
    const size_t n =
        p.penalty_last_n < 0 ? history.size() : std::min(history.size(), size_t(p.penalty_last_n));
    for (size_t token = 0; token < size; ++token) {
      const auto count = std::count(history.end() - std::ptrdiff_t(n), history.end(), token);
      if (count == 0 || std::count(p.unpenalized.begin(), p.unpenalized.end(), token)) continue;
      float& x = expected[token];
      x = x > 0 ? x / p.repeat_penalty : x * p.repeat_penalty;
      x -= float(count) * p.frequency_penalty + p.presence_penalty;
    }
    const auto best = std::max_element(expected.begin(), expected.end());
    if (!std::isfinite(*best)) continue;
    CHECK(Sampler(p).sample(logits, history) == best - expected.begin());
  }
}

// Typical sampling by its definition, drawn often.
void test_typical() {
  std::mt19937 random(8);
  for (float typical_p : {0.1f, 0.5f, 0.9f}) {
    const std::vector<float> logits = random_logits(random, 30, 2);
    double total = 0, entropy = 0;
    for (float x : logits) total += std::exp(double(x));
    std::vector<double> p;
    for (float x : logits) p.push_back(std::exp(double(x)) / total);
    for (double x : p) entropy -= x * std::log(x);
    std::vector<size_t> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return std::abs(-std::log(p[a]) - entropy) < std::abs(-std::log(p[b]) - entropy);
    });
    std::vector<double> kept(p.size());
    double sum = 0;
    for (size_t i = 0; i < order.size() && (i == 0 || sum < double(typical_p)); ++i)
      sum += kept[order[i]] = p[order[i]];
    for (double& x : kept) x /= sum;
    SamplingParams params{.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .seed = 5};
    params.typical_p = typical_p;
    Sampler sampler(params);
    std::vector<int> counts(p.size());
    for (int i = 0; i < 20000; ++i) ++counts[size_t(sampler.sample(logits))];
    check_distribution(counts, kept);
  }
}

int main() {
  test_bias_and_penalties();
  test_typical();
  test_sets_and_distribution();
  test_draws_are_even();
  test_seeds();
  test_greedy_finds_the_first_of_the_best();
  test_ties_at_a_cut_go_to_the_lower_token();
  test_nan_is_refused();
  test_infinities();
  test_extreme_numbers();
  test_parameters();
  return check_result();
}
