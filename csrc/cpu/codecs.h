// One struct per stored weight type: what its activations become and how its blocks turn into
// bytes and scales, in vocabulary words. The loops of matmul_*.h do everything else.
//
// `kMost`: the largest magnitude of the bytes, before any bias of the tier.
// Types of 32: `kMin` says that w = d * q + m; `kOffset` that w = d * (q - kOffset), unsigned bytes
// q; `kSigned` that the bytes are signed. codes() are the stored integers of `kBits` bits, 8 where
// they are the bytes already, and bytes() makes bytes of codes. Packed panels keep codes.
// K types: w = d * scale[j] * q [- dmin * min[j]], `kSubs` sub-blocks of 256 / kSubs weights.
//   codes(b, j): the j-th 32 of the 256 codes of `kBits` bits; xbytes() and bytes() make q of them,
//   signed with `kSigned`;
//   scales(b, scale, min): int8 [kSubs] each; the minimums in units of dmin where the type has one
//   (`kMin`), else of d: there an offset o of the q is a minimum of o * scale. `kMinFactor` times
//   min is the number meant, which fits int16;
//   scale(p, j) and min(p, j): those of W rows, whose `kScaleBytes` bytes from `kScalesAt` of the
//   block on lie at p as [kScaleBytes][W].
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

struct CodecQ4_0 {
  using Block = BlockQ4_0;
  static constexpr DType kType = DType::q4_0;
  static constexpr bool kMin = false, kSigned = false;
  static constexpr int kOffset = 8, kBits = 4, kMost = 15;
  static X codes(const Block& b) { return xnibbles(b.q); }
  static B bytes(B codes) { return codes; }
};

struct CodecQ4_1 {
  using Block = BlockQ4_1;
  static constexpr DType kType = DType::q4_1;
  static constexpr bool kMin = true, kSigned = false;
  static constexpr int kOffset = 0, kBits = 4, kMost = 15;
  static X codes(const Block& b) { return xnibbles(b.q); }
  static B bytes(B codes) { return codes; }
};

struct CodecQ5_0 {
  using Block = BlockQ5_0;
  static constexpr DType kType = DType::q5_0;
  static constexpr bool kMin = false, kSigned = false;
  static constexpr int kOffset = 16, kBits = 5, kMost = 31;
  static X codes(const Block& b) { return xor_(xnibbles(b.q), xbits(b.high, 16)); }
  static B bytes(B codes) { return codes; }
};

struct CodecQ5_1 {
  using Block = BlockQ5_1;
  static constexpr DType kType = DType::q5_1;
  static constexpr bool kMin = true, kSigned = false;
  static constexpr int kOffset = 0, kBits = 5, kMost = 31;
  static X codes(const Block& b) { return xor_(xnibbles(b.q), xbits(b.high, 16)); }
  static B bytes(B codes) { return codes; }
};

struct CodecQ8_0 {
  using Block = BlockQ8_0;
  static constexpr DType kType = DType::q8_0;
  static constexpr bool kMin = false, kSigned = true;
  static constexpr int kOffset = kSignedBias, kBits = 8, kMost = 128;
  static X codes(const Block& b) { return xbias_signed(xload(b.q)); }
  static B bytes(B codes) { return codes; }
};

// kIq4Values as signed bytes of this tier.
#define PYL_IQ4(i) uint8_t(kIq4Values[i] + kSignedBias)
alignas(16) static constexpr uint8_t kIq4Bytes[16] = {
    PYL_IQ4(0),  PYL_IQ4(1),  PYL_IQ4(2),  PYL_IQ4(3), PYL_IQ4(4),  PYL_IQ4(5),
    PYL_IQ4(6),  PYL_IQ4(7),  PYL_IQ4(8),  PYL_IQ4(9), PYL_IQ4(10), PYL_IQ4(11),
    PYL_IQ4(12), PYL_IQ4(13), PYL_IQ4(14), PYL_IQ4(15)};
#undef PYL_IQ4

struct CodecIQ4_NL {
  using Block = BlockIQ4_NL;
  static constexpr DType kType = DType::iq4_nl;
  static constexpr bool kMin = false, kSigned = true;
  static constexpr int kOffset = kSignedBias, kBits = 4, kMost = 127;
  static X codes(const Block& b) { return xnibbles(b.q); }
  static B bytes(B codes) { return lookup(codes, kIq4Bytes); }
};

// The j-th 32 of 256 weights in two bits each, four to a byte 32 apart.
static inline X two_bits(const uint8_t* q, int j) {
  return xand(xshr(xload(q + 32 * (j / 4)), 2 * (j % 4)), 3);
}

// In nibbles, two to a byte 32 apart.
static inline X nibbles(const uint8_t* q, int j) {
  return xand(xshr(xload(q + 32 * (j / 2)), 4 * (j % 2)), 15);
}

// Bit j of 32 bytes, moved to bit `to`.
static inline X bit_to(const uint8_t* bits, int j, int to) {
  return xshl(xand(xshr(xload(bits), j), 1), to);
}

// Codes that are the bytes already.
struct PlainCodes {
  static constexpr bool kSigned = false;
  static X xbytes(X codes) { return codes; }
  static B bytes(B codes) { return codes; }
};

struct CodecQ2_K : PlainCodes {
  using Block = BlockQ2_K;
  static constexpr DType kType = DType::q2_k;
  static constexpr int kBits = 2, kSubs = 16, kMost = 3;
  static constexpr bool kMin = true;
  static constexpr int kMinFactor = 1;
  static constexpr int kScalesAt = offsetof(Block, scales), kScaleBytes = 16;
  static X codes(const Block& b, int j) { return two_bits(b.q, j); }
  static I scale(const uint8_t* p, int j) { return iand(load_u8(p + j * W), 15); }
  static I min(const uint8_t* p, int j) { return ishr(load_u8(p + j * W), 4); }
  static half_t min_scale(const Block& b) { return b.dmin; }
  static void scales(const Block& b, int8_t* scale, int8_t* min) {
    for (int j = 0; j < 16; ++j) {
      scale[j] = int8_t(b.scales[j] & 15);
      min[j] = int8_t(b.scales[j] >> 4);
    }
  }
};

struct CodecQ3_K : PlainCodes {
  using Block = BlockQ3_K;
  static constexpr DType kType = DType::q3_k;
  static constexpr int kBits = 3, kSubs = 16, kMost = 7;
  static constexpr bool kMin = false;
  static constexpr int kMinFactor = 4;
  static constexpr int kScalesAt = offsetof(Block, scales), kScaleBytes = 12;
  static X codes(const Block& b, int j) { return xor_(two_bits(b.q, j), bit_to(b.high, j, 2)); }
  static I scale(const uint8_t* p, int j) {
    const I low = iand(ishr(load_u8(p + j % 8 * W), j / 8 * 4), 15);
    const I high = iand(ishr(load_u8(p + (8 + j % 4) * W), j / 4 * 2), 3);
    return iadd(ior(low, ishl(high, 4)), isplat(-32));
  }
  static I min(const uint8_t* p, int j) { return scale(p, j); }
  static half_t min_scale(const Block&) { return 0; }
  static void scales(const Block& b, int8_t* scale, int8_t* min) {
    for (int j = 0; j < 16; ++j) {
      const int low = b.scales[j % 8] >> (j / 8 * 4) & 15;
      const int high = b.scales[8 + j % 4] >> (j / 4 * 2) & 3;
      scale[j] = min[j] = int8_t((low | high << 4) - 32);
    }
  }
};

// Eight 6-bit scales and minimums, as Q4_K and Q5_K pack them, four at a time: quant/dequantize.cpp
// has the layout one by one.
static inline void six_bit_scales(const uint8_t* packed, int8_t* scale, int8_t* min) {
  uint32_t s[3];
  std::memcpy(s, packed, sizeof s);
  const uint32_t scales[2] = {s[0] & 0x3f3f3f3f, (s[2] & 0x0f0f0f0f) | (s[0] >> 2 & 0x30303030)};
  const uint32_t mins[2] = {s[1] & 0x3f3f3f3f, (s[2] >> 4 & 0x0f0f0f0f) | (s[1] >> 2 & 0x30303030)};
  std::memcpy(scale, scales, sizeof scales);
  std::memcpy(min, mins, sizeof mins);
}

template <class BlockType>
struct SixBitScales : PlainCodes {
  using Block = BlockType;
  static constexpr int kSubs = 8;
  static constexpr bool kMin = true;
  static constexpr int kMinFactor = 1;
  static constexpr int kScalesAt = offsetof(Block, scales), kScaleBytes = 12;
  static half_t min_scale(const Block& b) { return b.dmin; }
  static void scales(const Block& b, int8_t* scale, int8_t* min) {
    six_bit_scales(b.scales, scale, min);
  }
  static I scale(const uint8_t* p, int j) {
    if (j < 4) return iand(load_u8(p + j * W), 63);
    return ior(iand(load_u8(p + (j + 4) * W), 15), iand(ishr(load_u8(p + (j - 4) * W), 2), 48));
  }
  static I min(const uint8_t* p, int j) {
    if (j < 4) return iand(load_u8(p + (j + 4) * W), 63);
    return ior(ishr(load_u8(p + (j + 4) * W), 4), iand(ishr(load_u8(p + j * W), 2), 48));
  }
};

struct CodecQ4_K : SixBitScales<BlockQ4_K> {
  static constexpr DType kType = DType::q4_k;
  static constexpr int kBits = 4, kMost = 15;
  static X codes(const Block& b, int j) { return nibbles(b.q, j); }
};

struct CodecQ5_K : SixBitScales<BlockQ5_K> {
  static constexpr DType kType = DType::q5_k;
  static constexpr int kBits = 5, kMost = 31;
  static X codes(const Block& b, int j) { return xor_(nibbles(b.q, j), bit_to(b.high, j, 4)); }
};

struct CodecQ6_K : PlainCodes {
  using Block = BlockQ6_K;
  static constexpr DType kType = DType::q6_k;
  static constexpr int kBits = 6, kSubs = 16, kMost = 63;
  static constexpr bool kMin = false;
  static constexpr int kMinFactor = 32;
  static constexpr int kScalesAt = offsetof(Block, scales), kScaleBytes = 16;
  static I scale(const uint8_t* p, int j) {
    return load_i8(reinterpret_cast<const int8_t*>(p) + j * W);
  }
  static I min(const uint8_t* p, int j) { return scale(p, j); }
  static X codes(const Block& b, int j) {
    const int half = j / 4, part = j % 4;  // 128 weights each; 32 of them
    const X low = xand(xshr(xload(b.ql + 64 * half + 32 * (part % 2)), 4 * (part / 2)), 15);
    return xor_(low, xshl(two_bits(b.qh, j), 4));
  }
  static half_t min_scale(const Block&) { return 0; }
  static void scales(const Block& b, int8_t* scale, int8_t* min) {
    std::memcpy(scale, b.scales, sizeof b.scales);
    std::memcpy(min, b.scales, sizeof b.scales);
  }
};

struct CodecIQ4_XS {
  using Block = BlockIQ4_XS;
  static constexpr DType kType = DType::iq4_xs;
  static constexpr int kBits = 4, kSubs = 8, kMost = 127;
  static constexpr bool kMin = false, kSigned = true;
  static constexpr int kMinFactor = kSignedBias;
  static constexpr int kScalesAt = offsetof(Block, scales_high), kScaleBytes = 6;
  static X codes(const Block& b, int j) { return xnibbles(b.q + 16 * j); }
  static X xbytes(X codes) { return xlookup(codes, kIq4Bytes); }
  static B bytes(B codes) { return lookup(codes, kIq4Bytes); }
  static I scale(const uint8_t* p, int j) {
    const I low = iand(ishr(load_u8(p + (2 + j / 2) * W), j % 2 * 4), 15);
    const I high = iand(ishr(load_u8(p + j / 4 * W), j % 4 * 2), 3);
    return iadd(ior(low, ishl(high, 4)), isplat(-32));
  }
  static I min(const uint8_t* p, int j) { return scale(p, j); }
  static half_t min_scale(const Block&) { return 0; }
  static void scales(const Block& b, int8_t* scale, int8_t* min) {
    for (int j = 0; j < 8; ++j) {
      const int low = b.scales_low[j / 2] >> (j % 2 * 4) & 15, high = b.scales_high >> (2 * j) & 3;
      scale[j] = min[j] = int8_t((low | high << 4) - 32);
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

struct CodecBF16 {
  using Element = uint16_t;
  static constexpr DType kType = DType::bf16;
  static F load_lanes(const uint16_t* p) { return load_bfloat(p); }
  static F load_part(const uint16_t* p, int n) { return load_bfloat_n(p, n); }
};

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
