// Rotary frequencies (Su et al. 2021, arXiv:2104.09864) and their scalings for longer contexts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gguf/gguf_set.h"

namespace pyllamacpp {

// How a file stretches RoPE.
struct RopeScaling {
  enum class Kind { none, linear, yarn, longrope } kind = Kind::none;
  double factor = 1;             // how many times longer than trained
  double attention_factor = 1;   // of the rotated vectors, beside YaRN's own
  int64_t original_context = 0;  // what the model was trained for
  double beta_fast = 32;         // YaRN: dimensions that turn more often than this are kept,
  double beta_slow = 1;          // and those that turn less often are stretched whole
  double extrapolation = 1;      // YaRN: the share of its own that a kept dimension keeps
  // Divisors per frequency: LLaMA 3's, or LongRoPE's for contexts up to the original and beyond.
  std::vector<float> factors, short_factors, long_factors;
};

struct Rope {
  int32_t dims = 0;
  double theta = 10000;
  RopeScaling scaling;
};

// What a user sets in place of what the file says, for one context.
struct RopeOverrides {
  std::optional<RopeScaling::Kind> kind;
  double theta = 0;             // 0: the file's
  double frequency_scale = 0;   // 1 / factor; 0: the file's
  double extrapolation = -1;    // more than 0 makes YaRN of linear scaling; negative: 1 for YaRN
  double attention_factor = 1;  // times the file's
  std::optional<double> beta_fast, beta_slow;
  int64_t original_context = 0;  // 0: the file's

  // What they change, as text; empty: nothing.
  std::string description() const;
};

// The file's RoPE with them applied. Throws Error(invalid_argument) naming the constructor's
// argument for a value out of range, or one that has no meaning for the kind of scaling.
Rope with_overrides(Rope rope, const RopeOverrides& overrides);

// What one context uses.
struct RopeTable {
  std::vector<double> frequencies;  // [dims / 2], radians per position
  float scale = 1;                  // factor of the rotated vectors
};

// Reads the scaling of a file whose keys begin with `prefix` ("llama."). Throws Error(unsupported)
// for a kind this version does not know, Error(format) for values out of range.
RopeScaling read_rope_scaling(const GgufSet& files, const std::string& prefix, int32_t dims,
                              int64_t n_ctx_train);

// The table for a context of n_ctx tokens (LongRoPE chooses its factors by it).
RopeTable rope_table(const Rope& rope, int64_t n_ctx);

}  // namespace pyllamacpp
