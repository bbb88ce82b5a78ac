// What a sampler does, and the names of its steps.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace pyllamacpp {

// The steps that can be ordered. The logit biases always come first, the draw last.
enum class SamplerStep {
  penalties,
  dry,
  top_n_sigma,
  top_k,
  tfs_z,
  typ_p,
  top_p,
  min_p,
  xtc,
  temperature,
};

struct SamplingParams {
  float temperature = 0.8f;  // <= 0: greedy, unless dynatemp_range is positive
  int32_t top_k = 40;        // <= 0: all tokens
  float top_p = 0.95f;       // >= 1: off
  float min_p = 0.05f;       // <= 0: off
  uint64_t seed = 0;
  float tfs_z = 1;           // >= 1: off
  float typical_p = 1;       // >= 1: off
  float repeat_penalty = 1;  // divides positive logits of recent tokens, multiplies others; 1: off
  float frequency_penalty = 0;  // subtracted for each time a token is among the recent ones
  float presence_penalty = 0;   // subtracted once if it is
  int32_t penalty_last_n = 64;  // how many tokens are recent; < 0: all, 0: none
  std::vector<int32_t> unpenalized = {};                   // tokens that these three leave alone
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // added to a token's logit

  // Temperature within +- the range (not below 0), by the entropy of the distribution; 0: off.
  float dynatemp_range = 0;
  float dynatemp_exponent = 1;  // of the normalised entropy

  int32_t mirostat_mode = 0;  // 0: off; 1, 2: takes the place of every step that drops tokens
  float mirostat_tau = 5;     // the surprise aimed at, in bits
  float mirostat_eta = 0.1f;  // how fast it is corrected

  // Tokens are drawn by how near their probability is to adaptive_target, moved by as much as the
  // average probability of those drawn is off it; < 0: off.
  float adaptive_target = -1;
  float adaptive_decay = 0.9f;  // what a token counts in that average is times this per later token

  // A token that would make a repetition of n tokens longer loses multiplier * base^(n - allowed).
  float dry_multiplier = 0;  // 0: off
  float dry_base = 1.75f;
  int32_t dry_allowed_length = 2;   // shorter repetitions are free
  int32_t dry_penalty_last_n = -1;  // how far back repetitions are looked for; < 0: everywhere
  std::vector<std::string> dry_sequence_breakers = {"\n", ":", "\"", "*"};  // end a repetition

  float xtc_probability = 0;   // how often all of the likely tokens but the last are dropped
  float xtc_threshold = 0.1f;  // the probability that makes a token likely; > 0.5: off
  float top_n_sigma = -1;      // keeps logits this many deviations below the best; <= 0: off

  // Steps in the order in which they are taken; one that is not listed is left out.
  std::vector<SamplerStep> samplers = {
      SamplerStep::penalties,   SamplerStep::dry,   SamplerStep::top_n_sigma,
      SamplerStep::top_k,       SamplerStep::tfs_z, SamplerStep::typ_p,
      SamplerStep::top_p,       SamplerStep::min_p, SamplerStep::xtc,
      SamplerStep::temperature,
  };
};

// Throws Error(invalid_argument) naming a parameter that is out of range or not finite.
void check(const SamplingParams& params);

// The step of a name as llama.cpp has it, its short and dashed forms included ("top_k", "top-k",
// "temp", "typical" ...). Throws Error(invalid_argument) listing the names.
SamplerStep sampler_step(const std::string& name);
const char* name_of(SamplerStep step);

}  // namespace pyllamacpp
