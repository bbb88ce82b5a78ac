// The shape of a model, read from a GGUF file's metadata. Variants are values, not classes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "gguf/gguf_reader.h"

namespace pyllamacpp {

struct ModelConfig {
  std::string architecture;
  int32_t n_layers = 0;
  int32_t n_ctx_train = 0;
  int32_t dim = 0;
  int32_t n_ff = 0;
  int32_t n_heads = 0;
  int32_t n_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t n_vocab = 0;
  float norm_eps = 0;
  float rope_theta = 0;
  int32_t rope_dims = 0;
  RopeLayout rope_layout = RopeLayout::interleaved;
  std::vector<double> rope_frequencies;  // [rope_dims / 2], radians per position, scaling included
};

// Throws Error(unsupported) for an architecture or a scaling this version cannot run, and
// Error(format) naming the key for values that are missing, out of range or contradict each other.
ModelConfig read_config(const GgufFile& file);

}  // namespace pyllamacpp
