// The blocks of GGUF's quantized types, exactly as they lie in a file (little endian).
// Source of every layout: the GGUF specification and the dequantizers of the `gguf` package.
// Plain structs only: the per-tier kernel files include this header.
#pragma once

#include <cstdint>

namespace pyllamacpp {

// Weights per block of the simple types, and per super-block of the K types.
inline constexpr int kBlock = 32;
inline constexpr int kSuperBlock = 256;

using half_t = uint16_t;  // binary16 bits

// w = d * (q - 8); q[i] holds weight i in its low nibble and weight i + 16 in its high one.
struct BlockQ4_0 {
  half_t d;
  uint8_t q[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// w = d * q + m, nibbles as in BlockQ4_0.
struct BlockQ4_1 {
  half_t d, m;
  uint8_t q[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

// w = d * q.
struct BlockQ8_0 {
  half_t d;
  int8_t q[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// w = d * scale[j] * q - dmin * min[j] for the sub-block j of 32 weights. `scales` packs eight
// 6-bit scales and eight 6-bit mins. q: sub-blocks 2i and 2i + 1 are the low and high nibbles of
// bytes 32 i .. 32 i + 31.
struct BlockQ4_K {
  half_t d, dmin;
  uint8_t scales[12];
  uint8_t q[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

// w = d * scale[j] * (q - 32) for the sub-block j of 16 weights; ql holds the low 4 bits, qh the
// high 2. Each half of 128 weights uses 64 bytes of ql and 32 of qh.
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  half_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

}  // namespace pyllamacpp
