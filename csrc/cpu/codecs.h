// One struct per stored weight type: what its activations become and how its blocks turn into
// bytes and scales, in vocabulary words. The loops of matmul_*.h do everything else.
//
// Types of 32: `kMin` says that w = d * q + m; `kOffset` that w = d * (q - kOffset), unsigned bytes
// q; `kSigned` that the bytes are signed. `kNibbles`: bytes fit four bits, packed two to a byte.
// K types: w = d * scale[j] * q [+ dmin * min[j]], `kSubs` sub-blocks of 256 / kSubs weights.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

struct CodecQ4_0 {
  using Block = BlockQ4_0;
  static constexpr DType kType = DType::q4_0;
  static constexpr bool kMin = false, kSigned = false, kNibbles = true;
  static constexpr int kOffset = 8;
  static X bytes(const Block& b) { return xnibbles(b.q); }
};

struct CodecQ4_1 {
  using Block = BlockQ4_1;
  static constexpr DType kType = DType::q4_1;
  static constexpr bool kMin = true, kSigned = false, kNibbles = true;
  static constexpr int kOffset = 0;
  static X bytes(const Block& b) { return xnibbles(b.q); }
};

struct CodecQ8_0 {
  using Block = BlockQ8_0;
  static constexpr DType kType = DType::q8_0;
  static constexpr bool kMin = false, kSigned = true, kNibbles = false;
  static constexpr int kOffset = kSignedBias;
  static X bytes(const Block& b) { return xbias_signed(xload(b.q)); }
};

struct CodecQ4_K {
  using Block = BlockQ4_K;
  static constexpr DType kType = DType::q4_k;
  static constexpr int kSubs = 8;
  static constexpr bool kMin = true;
  // The j-th 32 of the 256 weights.
  static X bytes(const Block& b, int j) {
    const X q = xload(b.q + 32 * (j / 2));
    return j % 2 ? xshr<4>(q) : xand(q, 15);
  }
  static half_t min_scale(const Block& b) { return b.dmin; }
  // scale[kSubs], and min as int16[16]: one for each sum of 16 activations, subtracted.
  static void scales(const Block& b, int8_t* scale, int16_t* min) {
    for (int j = 0; j < 8; ++j) {
      const uint8_t* s = b.scales;
      const int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6 << 4);
      const int m = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6 << 4);
      scale[j] = int8_t(sc);
      min[2 * j] = min[2 * j + 1] = int16_t(m);
    }
  }
};

struct CodecQ6_K {
  using Block = BlockQ6_K;
  static constexpr DType kType = DType::q6_k;
  static constexpr int kSubs = 16;
  static constexpr bool kMin = false;
  static X bytes(const Block& b, int j) {
    const int half = j / 4, part = j % 4;  // 128 weights each; 32 of them
    const X ql = xload(b.ql + 64 * half + 32 * (part % 2));
    const X qh = xload(b.qh + 32 * half);
    const X low = part < 2 ? xand(ql, 15) : xshr<4>(ql);
    switch (part) {
      case 0:
        return xor_(low, xshl<4>(xand(qh, 3)));
      case 1:
        return xor_(low, xshl<2>(xand(qh, 12)));
      case 2:
        return xor_(low, xand(qh, 48));
      default:
        return xor_(low, xshr<2>(xand(qh, 192)));
    }
  }
  static half_t min_scale(const Block&) { return 0; }
  // The offset of 32 becomes a minimum of 32 times the scale, in the same units as the products.
  static void scales(const Block& b, int8_t* scale, int16_t* min) {
    for (int j = 0; j < 16; ++j) {
      scale[j] = b.scales[j];
      min[j] = int16_t(32 * b.scales[j]);
    }
  }
};

struct CodecF32 {
  using Element = float;
  static constexpr DType kType = DType::f32;
  static F load_lanes(const float* p) { return load(p); }
  static F load_part(const float* p, int n) { return load_n(p, n); }
};

struct CodecF16 {
  using Element = half_t;
  static constexpr DType kType = DType::f16;
  static F load_lanes(const half_t* p) { return load_half(p); }
  static F load_part(const half_t* p, int n) { return load_half_n(p, n); }
};

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
