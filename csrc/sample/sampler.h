// Turns logits into a token. One chain: bias and penalties, top-k, typical, top-p, min-p,
// temperature, then a draw.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace pyllamacpp {

struct SamplingParams {
  float temperature = 0.8f;  // <= 0: greedy
  int32_t top_k = 40;        // <= 0: all tokens
  float top_p = 0.95f;       // >= 1: off
  float min_p = 0.05f;       // <= 0: off
  uint64_t seed = 0;
  float typical_p = 1;       // >= 1: off
  float repeat_penalty = 1;  // divides positive logits of recent tokens, multiplies others; 1: off
  float frequency_penalty = 0;  // subtracted for each time a token is among the recent ones
  float presence_penalty = 0;   // subtracted once if it is
  int32_t penalty_last_n = 64;  // how many tokens are recent; < 0: all, 0: none
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // added to a token's logit
};

class Sampler {
 public:
  // Throws Error(invalid_argument) naming a parameter that is not finite.
  explicit Sampler(const SamplingParams& params);

  // A token of `logits` (one per vocabulary entry), `history` being the text so far, prompt
  // included. The draw depends on the seed, on how many tokens were sampled before, on the logits
  // and, with penalties, on the history only. Throws Error(invalid_argument) when the
  // largest logit is not finite.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history = {});

 private:
  struct Candidate {
    float logit;
    int32_t token;
  };
  static bool before(const Candidate& a, const Candidate& b);
  void take_best(std::span<const float> logits, size_t k);
  double weigh(float temperature);
  std::span<const float> adjusted(std::span<const float> logits, std::span<const int32_t> history);
  void keep_typical();

  SamplingParams params_;
  uint64_t n_sampled_ = 0;
  std::vector<Candidate> candidates_;  // kept between calls: sampling allocates nothing
  std::vector<float> weights_;
  std::vector<float> adjusted_;
  std::vector<int32_t> recent_;
};

}  // namespace pyllamacpp
