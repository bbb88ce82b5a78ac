#include "quant/dequantize.h"

#include <cstring>

#include "base/error.h"
#include "base/formats.h"
#include "base/half.h"

namespace pyllamacpp {

namespace {

void decode(const BlockQ4_0& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * float((b.q[i] & 15) - 8);
    y[i + 16] = d * float((b.q[i] >> 4) - 8);
  }
}

void decode(const BlockQ4_1& b, float* y) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * float(b.q[i] & 15) + m;
    y[i + 16] = d * float(b.q[i] >> 4) + m;
  }
}

// Weight i of 32 whose low four bits are nibbles and whose fifth lies in `high`.
int five_bits(const uint8_t* q, const uint8_t* high, int i) {
  return (i < 16 ? q[i] & 15 : q[i - 16] >> 4) | (high[i / 8] >> (i % 8) & 1) << 4;
}

void decode(const BlockQ5_0& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 32; ++i) y[i] = d * float(five_bits(b.q, b.high, i) - 16);
}

void decode(const BlockQ5_1& b, float* y) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  for (int i = 0; i < 32; ++i) y[i] = d * float(five_bits(b.q, b.high, i)) + m;
}

void decode(const BlockQ8_0& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 32; ++i) y[i] = d * float(b.q[i]);
}

void decode(const BlockIQ4_NL& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * float(kIq4Values[b.q[i] & 15]);
    y[i + 16] = d * float(kIq4Values[b.q[i] >> 4]);
  }
}

// Weight i of 256 in two bits, as BlockQ2_K and BlockQ3_K hold it.
int two_bits(const uint8_t* q, int i) { return q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3; }

void decode(const BlockQ2_K& b, float* y) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int i = 0; i < 256; ++i) {
    const int scale = b.scales[i / 16] & 15, min = b.scales[i / 16] >> 4;
    y[i] = d * float(scale) * float(two_bits(b.q, i)) - dmin * float(min);
  }
}

void decode(const BlockQ3_K& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 256; ++i) {
    const int j = i / 16, high = b.high[i % 32] >> (i / 32) & 1;
    const int scale =
        (b.scales[j % 8] >> (j / 8 * 4) & 15) | (b.scales[8 + j % 4] >> (j / 4 * 2) & 3) << 4;
    y[i] = d * float(scale - 32) * float((two_bits(b.q, i) | high << 2) - 4);
  }
}

struct ScaleMin {
  int scale, min;
};

// Scales and mins 0-3 lie in the low six bits of bytes 0-3 and 4-7; of 4-7 the low four bits share
// bytes 8-11 and the high two are the top bits of bytes 0-3 and 4-7.
ScaleMin six_bits(const uint8_t* s, int j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) | (s[j - 4] >> 6 << 4), (s[j + 4] >> 4) | (s[j] >> 6 << 4)};
}

// Weight i of 256 in a nibble, as BlockQ4_K and BlockQ5_K hold it.
int nibble(const uint8_t* q, int i) { return q[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15; }

void decode(const BlockQ4_K& b, float* y) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int i = 0; i < 256; ++i) {
    const auto [scale, min] = six_bits(b.scales, i / 32);
    y[i] = d * float(scale) * float(nibble(b.q, i)) - dmin * float(min);
  }
}

void decode(const BlockQ5_K& b, float* y) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int i = 0; i < 256; ++i) {
    const auto [scale, min] = six_bits(b.scales, i / 32);
    const int high = b.high[i % 32] >> (i / 32) & 1;
    y[i] = d * float(scale) * float(nibble(b.q, i) | high << 4) - dmin * float(min);
  }
}

void decode(const BlockQ6_K& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, part = i % 128 / 32, at = i % 32;
    const int low = b.ql[64 * half + 32 * (part % 2) + at] >> (part < 2 ? 0 : 4) & 15;
    const int high = b.qh[32 * half + at] >> (2 * part) & 3;
    const int scale = b.scales[i / 16];
    y[i] = d * float(scale) * float((low | high << 4) - 32);
  }
}

void decode(const BlockIQ4_XS& b, float* y) {
  const float d = half_to_float(b.d);
  for (int j = 0; j < 8; ++j) {
    const int low = b.scales_low[j / 2] >> (j % 2 * 4) & 15, high = b.scales_high >> (2 * j) & 3;
    const float scale = d * float((low | high << 4) - 32);
    for (int i = 0; i < 16; ++i) {
      y[32 * j + i] = scale * float(kIq4Values[b.q[16 * j + i] & 15]);
      y[32 * j + i + 16] = scale * float(kIq4Values[b.q[16 * j + i] >> 4]);
    }
  }
}

template <class Block, int kSize>
void decode_row(const void* src, float* dst, int64_t n) {
  const Block* b = static_cast<const Block*>(src);
  for (int64_t i = 0; i < n; i += kSize) decode(*b++, dst + i);
}

template <float (*kConvert)(uint16_t)>
void convert_row(const void* src, float* dst, int64_t n) {
  const uint16_t* p = static_cast<const uint16_t*>(src);
  for (int64_t i = 0; i < n; ++i) dst[i] = kConvert(p[i]);
}

void copy_row(const void* src, float* dst, int64_t n) {
  std::memcpy(dst, src, size_t(n) * sizeof *dst);
}

using Decoder = void (*)(const void*, float*, int64_t);

Decoder find_decoder(DType type) {
  static constexpr struct {
    DType type;
    Decoder decoder;
  } kDecoders[] = {
      {DType::f32, copy_row},
      {DType::f16, convert_row<half_to_float>},
      {DType::bf16, convert_row<bfloat_to_float>},
      {DType::q4_0, decode_row<BlockQ4_0, kBlock>},
      {DType::q4_1, decode_row<BlockQ4_1, kBlock>},
      {DType::q5_0, decode_row<BlockQ5_0, kBlock>},
      {DType::q5_1, decode_row<BlockQ5_1, kBlock>},
      {DType::q8_0, decode_row<BlockQ8_0, kBlock>},
      {DType::q2_k, decode_row<BlockQ2_K, kSuperBlock>},
      {DType::q3_k, decode_row<BlockQ3_K, kSuperBlock>},
      {DType::q4_k, decode_row<BlockQ4_K, kSuperBlock>},
      {DType::q5_k, decode_row<BlockQ5_K, kSuperBlock>},
      {DType::q6_k, decode_row<BlockQ6_K, kSuperBlock>},
      {DType::iq4_nl, decode_row<BlockIQ4_NL, kBlock>},
      {DType::iq4_xs, decode_row<BlockIQ4_XS, kSuperBlock>},
  };
  for (const auto& entry : kDecoders)
    if (entry.type == type) return entry.decoder;
  return nullptr;
}

}  // namespace

bool can_dequantize(DType type) { return find_decoder(type) != nullptr; }

void dequantize(DType type, const void* src, float* dst, int64_t n) {
  const Decoder decoder = find_decoder(type);
  if (!decoder)
    fail(ErrorKind::unsupported, "weights of type ", traits(type).name,
         " cannot be read by this version");
  decoder(src, dst, n);
}

}  // namespace pyllamacpp
