// Turns logits into a token. One chain: top-k, top-p, min-p, temperature, then a draw.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pyllamacpp {

struct SamplingParams {
  float temperature = 0.8f;  // <= 0: greedy
  int32_t top_k = 40;        // <= 0: all tokens
  float top_p = 0.95f;       // >= 1: off
  float min_p = 0.05f;       // <= 0: off
  uint64_t seed = 0;
};

class Sampler {
 public:
  // Throws Error(invalid_argument) naming a parameter that is not finite.
  explicit Sampler(const SamplingParams& params);

  // A token of `logits` (one per vocabulary entry). The draw depends on the seed, on how many
  // tokens were sampled before and on the logits only. Throws Error(invalid_argument) when the
  // largest logit is not finite.
  int32_t sample(std::span<const float> logits);

 private:
  struct Candidate {
    float logit;
    int32_t token;
  };
  static bool before(const Candidate& a, const Candidate& b);
  void take_best(std::span<const float> logits, size_t k);
  double weigh(float temperature);

  SamplingParams params_;
  uint64_t n_sampled_ = 0;
  std::vector<Candidate> candidates_;  // kept between calls: sampling allocates nothing
  std::vector<float> weights_;
};

}  // namespace pyllamacpp
