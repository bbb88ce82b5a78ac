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

void decode(const BlockQ8_0& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 32; ++i) y[i] = d * float(b.q[i]);
}

void decode(const BlockQ4_K& b, float* y) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int j = 0; j < 8; ++j) {
    // Scales and mins 0-3 lie in the low six bits of bytes 0-3 and 4-7; of 4-7 the low four bits
    // share bytes 8-11 and the high two are the top bits of bytes 0-3 and 4-7.
    const int scale =
        j < 4 ? b.scales[j] & 63 : (b.scales[j + 4] & 15) | (b.scales[j - 4] >> 6 << 4);
    const int min = j < 4 ? b.scales[j + 4] & 63 : (b.scales[j + 4] >> 4) | (b.scales[j] >> 6 << 4);
    const uint8_t* q = b.q + 32 * (j / 2);
    for (int i = 0; i < 32; ++i) {
      const int v = j % 2 ? q[i] >> 4 : q[i] & 15;
      y[32 * j + i] = d * float(scale) * float(v) - dmin * float(min);
    }
  }
}

void decode(const BlockQ6_K& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, part = i % 128 / 32, at = i % 32;
    const int low = b.ql[64 * half + 32 * (part % 2) + at] >> (part < 2 ? 0 : 4) & 15;
    const int high = b.qh[32 * half + at] >> (2 * part) & 3;
    y[i] = d * float(b.scales[i / 16]) * float((low | high << 4) - 32);
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
      {DType::q8_0, decode_row<BlockQ8_0, kBlock>},
      {DType::q4_k, decode_row<BlockQ4_K, kSuperBlock>},
      {DType::q6_k, decode_row<BlockQ6_K, kSuperBlock>},
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
