// The compiled shaders, by name; spirv.cpp is made by shaders/compile.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyllamacpp::vk {

// In the order of their files' names.
enum class Shader {
  add_bias,
  attention,
  matmul,
  matmul_cooperative,
  matmul_dot,
  matvec,
  matvec_dot,
  quantize,
  rms_norm,
  rope_store,
  store_blocks,
  swiglu
};

struct Spirv {
  const uint32_t* words;
  size_t n_bytes;
};

extern const Spirv kSpirv[];  // by Shader

}  // namespace pyllamacpp::vk
