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

// w = d * (q - 16). `q` holds the low four bits as in BlockQ4_0, bit i of `high` (little endian,
// over all four bytes) the fifth bit of weight i.
struct BlockQ5_0 {
  half_t d;
  uint8_t high[4];
  uint8_t q[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

// w = d * q + m, bits as in BlockQ5_0.
struct BlockQ5_1 {
  half_t d, m;
  uint8_t high[4];
  uint8_t q[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

// w = d * q.
struct BlockQ8_0 {
  half_t d;
  int8_t q[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// w = d * kIq4Values[q], nibbles as in BlockQ4_0.
struct BlockIQ4_NL {
  half_t d;
  uint8_t q[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

// What the nibbles of the IQ4 types stand for.
// Not inline: a tier's objects must define nothing that another's could be taken for.
constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

// w = d * scale[j] * q - dmin * min[j] for the sub-block j of 16 weights: scale[j] and min[j] are
// the low and high nibble of scales[j]. q: the 32 weights 128 h + 32 i .. are bits 2 i and 2 i + 1
// of bytes 32 h .. 32 h + 31.
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t q[64];
  half_t d, dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

// w = d * (scale[j] - 32) * (q - 4) for the sub-block j of 16 weights. The low two bits of q lie as
// in BlockQ2_K; its third, for weight 32 i + l, is bit i of high[l]. `scales` packs 16 scales of 6
// bits: the low nibbles of bytes 0-7 are the low bits of scales 0-7, the high nibbles those of
// 8-15; bits 2 i and 2 i + 1 of bytes 8-11 are the high bits of scales 4 i .. 4 i + 3.
struct BlockQ3_K {
  uint8_t high[32];
  uint8_t q[64];
  uint8_t scales[12];
  half_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

// w = d * scale[j] * q - dmin * min[j] for the sub-block j of 32 weights. `scales` packs eight
// 6-bit scales and eight 6-bit mins. q: sub-blocks 2i and 2i + 1 are the low and high nibbles of
// bytes 32 i .. 32 i + 31.
struct BlockQ4_K {
  half_t d, dmin;
  uint8_t scales[12];
  uint8_t q[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

// As BlockQ4_K; bit j of high[l] is the fifth bit of weight 32 j + l.
struct BlockQ5_K {
  half_t d, dmin;
  uint8_t scales[12];
  uint8_t high[32];
  uint8_t q[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

// w = d * scale[j] * (q - 32) for the sub-block j of 16 weights; ql holds the low 4 bits, qh the
// high 2. Each half of 128 weights uses 64 bytes of ql and 32 of qh.
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  half_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// w = d * (scale[j] - 32) * kIq4Values[q] for the sub-block j of 32 weights: the low four bits of
// scale[j] are a nibble of scales_low[j / 2], the high two are bits 2 j and 2 j + 1 of scales_high.
// q: sub-block j lies in 16 bytes, nibbles as in BlockQ4_0.
struct BlockIQ4_XS {
  half_t d;
  uint16_t scales_high;
  uint8_t scales_low[4];
  uint8_t q[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

}  // namespace pyllamacpp
