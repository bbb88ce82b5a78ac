// The shape of a model, read from a GGUF file's metadata. Variants are values, not classes.
#pragma once

#include <cstdint>
#include <string>

#include "backend/backend.h"
#include "gguf/gguf_set.h"
#include "model/rope.h"

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
  Rope rope;
  RopeLayout rope_layout = RopeLayout::interleaved;
  int32_t window = 0;  // keys a token sees, itself included; 0: all
};

// Throws Error(unsupported) for an architecture or a scaling this version cannot run, and
// Error(format) naming the key for values that are missing, out of range or contradict each other.
ModelConfig read_config(const GgufSet& files);

}  // namespace pyllamacpp
