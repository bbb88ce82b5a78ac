// Rows of floats to rows of every stored type.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

static inline void write_nibbles(uint8_t* q, const uint8_t* codes) {
  for (int i = 0; i < 16; ++i) q[i] = uint8_t(codes[i] | codes[i + 16] << 4);
}
static inline void write_five_bits(uint8_t* q, uint8_t* high, const uint8_t* codes) {
  for (int i = 0; i < 16; ++i) q[i] = uint8_t((codes[i] & 15) | (codes[i + 16] & 15) << 4);
  for (int byte = 0; byte < 4; ++byte) {
    int bits = 0;
    for (int i = 0; i < 8; ++i) bits |= (codes[8 * byte + i] >> 4) << i;
    high[byte] = uint8_t(bits);
  }
}
// Two bits each of 256 codes, as BlockQ2_K and BlockQ3_K hold them.
static inline void write_two_bits(uint8_t* q, const uint8_t* codes) {
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 32; ++i) {
      const uint8_t* c = codes + 128 * half + i;
      q[32 * half + i] =
          uint8_t((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
    }
}
// Bit `bit` of 256 codes: that of code 32 j + i is bit j of high[i].
static inline void write_high_bits(uint8_t* high, const uint8_t* codes, int bit) {
  for (int i = 0; i < 32; ++i) {
    int bits = 0;
    for (int j = 0; j < 8; ++j) bits |= (codes[32 * j + i] >> bit & 1) << j;
    high[i] = uint8_t(bits);
  }
}
static inline void write_super_nibbles(uint8_t* q, const uint8_t* codes) {
  for (int part = 0; part < 4; ++part)
    for (int i = 0; i < 32; ++i)
      q[32 * part + i] =
          uint8_t((codes[64 * part + i] & 15) | (codes[64 * part + 32 + i] & 15) << 4);
}
// Eight scales and eight minimums of six bits, as BlockQ4_K holds them.
static inline void write_six_bits(uint8_t* packed, const float* scale, const float* min) {
  for (int j = 0; j < 4; ++j) {
    const int s = int(scale[j]), m = int(min[j]), s4 = int(scale[j + 4]), m4 = int(min[j + 4]);
    packed[j] = uint8_t(s | s4 >> 4 << 6);
    packed[j + 4] = uint8_t(m | m4 >> 4 << 6);
    packed[j + 8] = uint8_t((s4 & 15) | (m4 & 15) << 4);
  }
}

// Types of 32 with a scale.
struct ToQ4_0 {
  using Block = BlockQ4_0;
  using Codes = IntegerCodes<-8, 7>;
  static constexpr Trials kTrials[] = {
      {-9.4f, -6.6f, 0.2f}, {5.6f, 8.3f, 0.3f}, {-8, -1, 1}, {6, 7, 1}};
  static void write(Block* b, const uint8_t* codes) { write_nibbles(b->q, codes); }
};
struct ToQ5_0 {
  using Block = BlockQ5_0;
  using Codes = IntegerCodes<-16, 15>;
  static constexpr Trials kTrials[] = {
      {-18.25f, -13.75f, 0.25f}, {12.75f, 16.25f, 0.5f}, {-16, -1, 1}, {13, 15, 1}};
  static void write(Block* b, const uint8_t* codes) { write_five_bits(b->q, b->high, codes); }
};
struct ToIQ4_NL {
  using Block = BlockIQ4_NL;
  using Codes = Iq4Codes;
  static constexpr Trials kTrials[] = {{-145, -103, 3}, {98, 131, 3}};
  static void write(Block* b, const uint8_t* codes) { write_nibbles(b->q, codes); }
};

template <class T>
static void quantize_scaled(const float* x, const float* importance, int64_t n, int64_t k,
                            uint8_t* dst) {
  SubBlocks<kBlock> s;
  Unit units[kSearchLanes];
  uint8_t codes[kBlock];
  for (int64_t at = 0; at < n; at += kSearchLanes * kBlock) {
    const int64_t left = (n - at) / kBlock;
    const int n_blocks = left < kSearchLanes ? int(left) : kSearchLanes;
    fill_lanes<kBlock>(&s, x + at, importance, at, k, n_blocks, units);
    Lanes scales;
    half_t halves[kSearchLanes];
    search_scales<T>(s, importance != nullptr, &scales);
    for (int b = 0; b < kSearchLanes; ++b) halves[b] = half_near(&scales.at[b], units[b]);
    choose_codes<typename T::Codes>(&s, scales);
    for (int b = 0; b < n_blocks; ++b, dst += sizeof(typename T::Block)) {
      typename T::Block block;
      block.d = halves[b];
      stored_codes<typename T::Codes, kBlock>(s, b, codes);
      T::write(&block, codes);
      memcpy(dst, &block, sizeof block);
    }
  }
}

// Types of 32 with a scale and a minimum.
struct ToQ4_1 {
  using Block = BlockQ4_1;
  static constexpr int kMost = 15;
  static constexpr float kCuts[] = {-0.02f, 0.0f, 0.03f, 0.06f, 0.1f};
  static void write(Block* b, const uint8_t* codes) { write_nibbles(b->q, codes); }
};
struct ToQ5_1 {
  using Block = BlockQ5_1;
  static constexpr int kMost = 31;
  static constexpr float kCuts[] = {-0.01f, 0.0f, 0.012f, 0.025f, 0.04f};
  static void write(Block* b, const uint8_t* codes) { write_five_bits(b->q, b->high, codes); }
};

template <class T>
static void quantize_affine(const float* x, const float* importance, int64_t n, int64_t k,
                            uint8_t* dst) {
  using Codes = IntegerCodes<0, T::kMost>;
  SubBlocks<kBlock> s;
  Unit units[kSearchLanes];
  uint8_t codes[kBlock];
  for (int64_t at = 0; at < n; at += kSearchLanes * kBlock) {
    const int64_t left = (n - at) / kBlock;
    const int n_blocks = left < kSearchLanes ? int(left) : kSearchLanes;
    fill_lanes<kBlock>(&s, x + at, importance, at, k, n_blocks, units);
    Lanes scales, lows;
    half_t d[kSearchLanes], m[kSearchLanes];
    search_affine<T::kMost, false>(s, T::kCuts, int(sizeof T::kCuts / sizeof(float)), &scales,
                                   &lows);
    for (int b = 0; b < kSearchLanes; ++b) {
      d[b] = half_near(&scales.at[b], units[b]);
      m[b] = half_near(&lows.at[b], units[b]);
    }
    choose_affine_codes<T::kMost>(&s, scales, lows);
    for (int b = 0; b < n_blocks; ++b, dst += sizeof(typename T::Block)) {
      typename T::Block block;
      block.d = d[b];
      block.m = m[b];
      stored_codes<Codes, kBlock>(s, b, codes);
      T::write(&block, codes);
      memcpy(dst, &block, sizeof block);
    }
  }
}

// K types with a scale.
struct ToQ3_K {
  using Block = BlockQ3_K;
  using Codes = IntegerCodes<-4, 3>;
  static constexpr int kSub = 16, kLow = -32, kHigh = 31;
  static constexpr Trials kTrials[] = {{-5.2f, -2.8f, 0.2f}, {2.2f, 4.0f, 0.2f}};
  static void write(Block* b, const float* scale, const uint8_t* codes) {
    write_two_bits(b->q, codes);
    write_high_bits(b->high, codes, 2);
    memset(b->scales, 0, sizeof b->scales);
    for (int j = 0; j < 16; ++j) {
      const int stored = int(scale[j]) + 32;
      b->scales[j % 8] = uint8_t(b->scales[j % 8] | (stored & 15) << (j / 8 * 4));
      b->scales[8 + j % 4] = uint8_t(b->scales[8 + j % 4] | (stored >> 4) << (j / 4 * 2));
    }
  }
};
struct ToQ6_K {
  using Block = BlockQ6_K;
  using Codes = IntegerCodes<-32, 31>;
  static constexpr int kSub = 16, kLow = -128, kHigh = 127;
  static constexpr Trials kTrials[] = {{-34, -29, 0.5f}, {28.5f, 32, 0.5f}};
  static void write(Block* b, const float* scale, const uint8_t* codes) {
    for (int j = 0; j < 16; ++j) b->scales[j] = int8_t(scale[j]);
    for (int half = 0; half < 2; ++half)
      for (int i = 0; i < 32; ++i) {
        const uint8_t* c = codes + 128 * half + i;
        b->ql[64 * half + i] = uint8_t((c[0] & 15) | (c[64] & 15) << 4);
        b->ql[64 * half + 32 + i] = uint8_t((c[32] & 15) | (c[96] & 15) << 4);
        b->qh[32 * half + i] =
            uint8_t(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
      }
  }
};
struct ToIQ4_XS {
  using Block = BlockIQ4_XS;
  using Codes = Iq4Codes;
  static constexpr int kSub = 32, kLow = -32, kHigh = 31;
  static constexpr Trials kTrials[] = {{-145, -103, 3}, {98, 131, 3}};
  static void write(Block* b, const float* scale, const uint8_t* codes) {
    memset(b->scales_low, 0, sizeof b->scales_low);
    b->scales_high = 0;
    for (int j = 0; j < 8; ++j) {
      const int stored = int(scale[j]) + 32;
      b->scales_low[j / 2] = uint8_t(b->scales_low[j / 2] | (stored & 15) << (j % 2 * 4));
      b->scales_high = uint16_t(b->scales_high | (stored >> 4) << (2 * j));
      write_nibbles(b->q + 16 * j, codes + 32 * j);
    }
  }
};

template <class T>
static void quantize_super(const float* x, const float* importance, int64_t n, int64_t k,
                           uint8_t* dst) {
  constexpr int kSubs = kSuperBlock / T::kSub, kSupers = kSearchLanes / kSubs;
  SubBlocks<T::kSub> s;
  Unit units[kSupers];
  uint8_t codes[kSuperBlock];
  for (int64_t at = 0; at < n; at += kSupers * kSuperBlock) {
    const int64_t left = (n - at) / kSuperBlock;
    const int n_blocks = left < kSupers ? int(left) : kSupers;
    fill_lanes<kSuperBlock>(&s, x + at, importance, at, k, n_blocks, units);
    Lanes ideal;
    SuperScales<kSupers> found;
    search_scales<T>(s, importance != nullptr, &ideal);
    for (float& error : found.error) error = INFINITY;
    search_super<typename T::Codes, T::kLow, T::kHigh>(s, ideal, units, 3, 1, &found);
    // The search can end beside a better place, so never worse than without it.
    plain_scales<typename T::Codes>(s, &ideal);
    search_super<typename T::Codes, T::kLow, T::kHigh>(s, ideal, units, 1, 0, &found);
    choose_codes<typename T::Codes>(&s, found.scales);
    for (int b = 0; b < n_blocks; ++b, dst += sizeof(typename T::Block)) {
      typename T::Block block;
      block.d = found.d[b];
      stored_codes<typename T::Codes, kSuperBlock>(s, b * kSubs, codes);
      T::write(&block, found.scale.at + b * kSubs, codes);
      memcpy(dst, &block, sizeof block);
    }
  }
}

// K types with a scale and a minimum.
struct ToQ2_K {
  using Block = BlockQ2_K;
  static constexpr int kSub = 16, kMost = 3, kHigh = 15;
  static constexpr float kCuts[] = {-0.1f, -0.03f, 0.04f, 0.12f, 0.2f};
  static void write(Block* b, const float* scale, const float* min, const uint8_t* codes) {
    for (int j = 0; j < 16; ++j) b->scales[j] = uint8_t(int(scale[j]) | int(min[j]) << 4);
    write_two_bits(b->q, codes);
  }
};
struct ToQ4_K {
  using Block = BlockQ4_K;
  static constexpr int kSub = 32, kMost = 15, kHigh = 63;
  static constexpr float kCuts[] = {-0.02f, 0.0f, 0.03f, 0.06f, 0.1f};
  static void write(Block* b, const float* scale, const float* min, const uint8_t* codes) {
    write_six_bits(b->scales, scale, min);
    write_super_nibbles(b->q, codes);
  }
};
struct ToQ5_K {
  using Block = BlockQ5_K;
  static constexpr int kSub = 32, kMost = 31, kHigh = 63;
  static constexpr float kCuts[] = {-0.01f, 0.0f, 0.012f, 0.025f, 0.04f};
  static void write(Block* b, const float* scale, const float* min, const uint8_t* codes) {
    write_six_bits(b->scales, scale, min);
    write_super_nibbles(b->q, codes);
    write_high_bits(b->high, codes, 4);
  }
};

template <class T>
static void quantize_super_affine(const float* x, const float* importance, int64_t n, int64_t k,
                                  uint8_t* dst) {
  constexpr int kSubs = kSuperBlock / T::kSub, kSupers = kSearchLanes / kSubs;
  SubBlocks<T::kSub> s;
  Unit units[kSupers];
  uint8_t codes[kSuperBlock];
  for (int64_t at = 0; at < n; at += kSupers * kSuperBlock) {
    const int64_t left = (n - at) / kSuperBlock;
    const int n_blocks = left < kSupers ? int(left) : kSupers;
    fill_lanes<kSuperBlock>(&s, x + at, importance, at, k, n_blocks, units);
    Lanes ideal, lows;
    SuperScales<kSupers> found;
    search_affine<T::kMost, true>(s, T::kCuts, int(sizeof T::kCuts / sizeof(float)), &ideal, &lows);
    for (float& error : found.error) error = INFINITY;
    search_super_affine<T::kMost, T::kHigh>(s, ideal, lows, units, 4, 1, &found);
    // The search can end beside a better place, so never worse than without it.
    plain_affine<T::kMost, T::kHigh>(s, units, &ideal, &lows);
    search_super_affine<T::kMost, T::kHigh>(s, ideal, lows, units, 1, 0, &found);
    choose_affine_codes<T::kMost>(&s, found.scales, found.lows);
    for (int b = 0; b < n_blocks; ++b, dst += sizeof(typename T::Block)) {
      typename T::Block block;
      block.d = found.d[b];
      block.dmin = found.dmin[b];
      stored_codes<IntegerCodes<0, T::kMost>, kSuperBlock>(s, b * kSubs, codes);
      T::write(&block, found.scale.at + b * kSubs, found.min.at + b * kSubs, codes);
      memcpy(dst, &block, sizeof block);
    }
  }
}

// Eight bits leave nothing to search: the largest weight becomes +-127, whatever the importance.
static void quantize_q8_0(const float* x, const float*, int64_t n, int64_t, uint8_t* dst) {
  for (int64_t at = 0; at < n; at += kBlock, x += kBlock, dst += sizeof(BlockQ8_0)) {
    F top = splat(0);
    for (int i = 0; i < kBlock; i += W) top = max(top, abs(load(x + i)));
    BlockQ8_0 block;
    float d = largest(top) / 127.0f;
    block.d = half_near(&d, {1, 1});
    const F scale = splat(d > 0 ? d : INFINITY);
    for (int i = 0; i < kBlock; i += W) {
      const F q = min(max(div(load(x + i), scale), splat(-127)), splat(127));
      store_i8(block.q + i, to_int(q));
    }
    memcpy(dst, &block, sizeof block);
  }
}

static void quantize_f32(const float* x, const float*, int64_t n, int64_t, uint8_t* dst) {
  memcpy(dst, x, size_t(n) * sizeof *x);
}
// Beyond the range of halves: the largest finite one.
static void quantize_f16(const float* x, const float*, int64_t n, int64_t, uint8_t* dst) {
  uint16_t* y = reinterpret_cast<uint16_t*>(dst);
  for (int64_t i = 0; i < n; i += W) {
    const int part = n - i < W ? int(n - i) : W;
    const F inside = min(max(load_n(x + i, part), splat(-65504)), splat(65504));
    if (part == W)
      store_half(y + i, inside);
    else
      store_half_n(y + i, inside, part);
  }
}
static void quantize_bf16(const float* x, const float*, int64_t n, int64_t, uint8_t* dst) {
  constexpr float kMost = 0x1.fep127f;
  uint16_t* y = reinterpret_cast<uint16_t*>(dst);
  for (int64_t i = 0; i < n; i += W) {
    const int part = n - i < W ? int(n - i) : W;
    const F inside = min(max(load_n(x + i, part), splat(-kMost)), splat(kMost));
    store_bfloat_n(y + i, inside, part);
  }
}

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
