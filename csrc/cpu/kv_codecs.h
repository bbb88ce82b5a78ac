// How the cache stores keys and values, for every type it can have. Keys lie transposed in a page,
// one dimension of all its tokens together, so that a vector of scores needs no horizontal sum;
// values lie token by token. Quantized types scale 32 dimensions of one token together.
//
// scores<NQ>: acc[query][key] = q . key of one page, one chain of multiply-adds per output (for the
// quantized types one per 32 dimensions, then one over those).
// value(row, d): W consecutive dimensions of one token's value.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

inline constexpr int kKeyVectors = kPageTokens / W;

using Scores = F[kKeyVectors];

template <int NQ>
static inline void clear(Scores* acc) {
  for (int i = 0; i < NQ; ++i)
    for (int v = 0; v < kKeyVectors; ++v) acc[i][v] = splat(0);
}

template <int NQ>
static inline void add_products(Scores* acc, const float* const* q, int d, const F* keys) {
  for (int i = 0; i < NQ; ++i) {
    const F x = splat(q[i][d]);
    for (int v = 0; v < kKeyVectors; ++v) acc[i][v] = fma(x, keys[v], acc[i][v]);
  }
}

struct StoreF32 {
  static void part(float* p, F a, int n) { store_n(p, a, n); }
};
// Beyond the range of halves values saturate: an infinity would turn a weight of 0 into NaN, and so
// reach queries that do not see it.
struct StoreF16 {
  static void part(half_t* p, F a, int n) {
    store_half_n(p, max(splat(-65504), min(splat(65504), a)), n);
  }
};
struct StoreBF16 {
  static void part(uint16_t* p, F a, int n) {
    constexpr float kMost = 3.38953139e38f;  // 0x7f7f
    store_bfloat_n(p, max(splat(-kMost), min(splat(kMost), a)), n);
  }
};

template <class C, class S>
struct KvFloat {
  using Element = typename C::Element;
  static constexpr DType kType = C::kType;
  static constexpr int kMultiple = 1;

  static size_t page_bytes(int32_t head_dim) {
    return size_t(head_dim) * kPageTokens * sizeof(Element);
  }
  static void store_value(uint8_t* page, int offset, const float* x, int32_t head_dim) {
    Element* row = reinterpret_cast<Element*>(page) + int64_t(offset) * head_dim;
    for (int d = 0; d < head_dim; d += W) {
      const int n = head_dim - d < W ? head_dim - d : W;
      S::part(row + d, load_n(x + d, n), n);
    }
  }
  static void store_key(uint8_t* page, int offset, const float* x, int32_t head_dim) {
    Element row[kMaxHeadDim];
    store_value(reinterpret_cast<uint8_t*>(row), 0, x, head_dim);
    Element* keys = reinterpret_cast<Element*>(page) + offset;
    for (int d = 0; d < head_dim; ++d) keys[d * kPageTokens] = row[d];
  }

  template <int NQ>
  static void scores(const float* const* q, const uint8_t* page, int head_dim, Scores* out) {
    const Element* k = reinterpret_cast<const Element*>(page);
    Scores acc[NQ];
    clear<NQ>(acc);
    for (int d = 0; d < head_dim; ++d, k += kPageTokens) {
      F keys[kKeyVectors];
      for (int v = 0; v < kKeyVectors; ++v) keys[v] = C::load_lanes(k + v * W);
      add_products<NQ>(acc, q, d, keys);
    }
    std::memcpy(out, acc, sizeof acc);
  }

  static const uint8_t* row(const uint8_t* page, int token, int head_dim) {
    return page + size_t(token) * size_t(head_dim) * sizeof(Element);
  }
  static F value(const uint8_t* row, int d) {
    return C::load_lanes(reinterpret_cast<const Element*>(row) + d);
  }
  static F value_part(const uint8_t* row, int d, int n) {
    return C::load_part(reinterpret_cast<const Element*>(row) + d, n);
  }
};

// Pages of blocks of 32 dimensions: B is the block of one token's 32 values; K the same size for
// all tokens of a page: scales [kPageTokens], then the bytes of one dimension (or of two) together.
template <class Derived, class B>
struct KvBlocks {
  static constexpr int kMultiple = kBlock;
  static constexpr int64_t kKeyBlock = int64_t(sizeof(B)) * kPageTokens;

  static size_t page_bytes(int32_t head_dim) { return size_t(head_dim / kBlock * kKeyBlock); }
  static void store_value(uint8_t* page, int offset, const float* x, int32_t head_dim) {
    B* blocks = reinterpret_cast<B*>(page) + int64_t(offset) * (head_dim / kBlock);
    for (int d = 0; d < head_dim; d += kBlock) Derived::encode(*blocks++, x + d);
  }
  static void store_key(uint8_t* page, int offset, const float* x, int32_t head_dim) {
    for (int d = 0; d < head_dim; d += kBlock, page += kKeyBlock) {
      B block;
      Derived::encode(block, x + d);
      reinterpret_cast<half_t*>(page)[offset] = block.d;
      uint8_t* bytes = page + kPageTokens * sizeof(half_t) + offset;
      for (size_t i = 0; i < sizeof block.q; ++i) bytes[i * kPageTokens] = uint8_t(block.q[i]);
    }
  }

  template <int NQ>
  static void scores(const float* const* q, const uint8_t* page, int head_dim, Scores* out) {
    clear<NQ>(out);
    for (int d = 0; d < head_dim; d += kBlock, page += kKeyBlock) {
      Scores acc[NQ];
      clear<NQ>(acc);
      Derived::template products<NQ>(acc, q, d, page + kPageTokens * sizeof(half_t));
      const half_t* scales = reinterpret_cast<const half_t*>(page);
      for (int v = 0; v < kKeyVectors; ++v) {
        const F scale = load_half(scales + v * W);
        for (int i = 0; i < NQ; ++i) out[i][v] = fma(acc[i][v], scale, out[i][v]);
      }
    }
  }

  static const uint8_t* row(const uint8_t* page, int token, int head_dim) {
    return page + size_t(token) * size_t(head_dim / kBlock) * sizeof(B);
  }
  // head_dim is a multiple of 32: there is no part.
  static F value_part(const uint8_t* row, int d, int) { return Derived::value(row, d); }
};

struct KvQ8_0 : KvBlocks<KvQ8_0, BlockQ8_0> {
  static constexpr DType kType = DType::q8_0;

  static void encode(BlockQ8_0& b, const float* x) { b.d = half_of(quantize_run<kBlock>(b.q, x)); }
  template <int NQ>
  static void products(Scores* acc, const float* const* q, int d, const uint8_t* bytes) {
    for (int i = 0; i < kBlock; ++i, bytes += kPageTokens) {
      F keys[kKeyVectors];
      for (int v = 0; v < kKeyVectors; ++v)
        keys[v] = to_float(load_i8(reinterpret_cast<const int8_t*>(bytes) + v * W));
      add_products<NQ>(acc, q, d + i, keys);
    }
  }
  static F value(const uint8_t* row, int d) {
    const BlockQ8_0& b = reinterpret_cast<const BlockQ8_0*>(row)[d / kBlock];
    return mul(splat_half(b.d), to_float(load_i8(b.q + d % kBlock)));
  }
};

struct KvQ4_0 : KvBlocks<KvQ4_0, BlockQ4_0> {
  static constexpr DType kType = DType::q4_0;

  // The scale maps the value of largest magnitude to -8, as the type's usual quantizer does.
  static void encode(BlockQ4_0& b, const float* x) {
    float peak = 0;
    for (int i = 0; i < kBlock; ++i)
      if (x[i] * x[i] > peak * peak) peak = x[i];
    const float d = peak / -8;
    const float inverse = d != 0 ? 1 / d : 0;
    b.d = half_of(d);
    const auto level = [&](float v) {
      const int n = int(v * inverse + 8.5f);
      return n < 0 ? 0 : n > 15 ? 15 : n;
    };
    for (int i = 0; i < kBlock / 2; ++i)
      b.q[i] = uint8_t(level(x[i]) | level(x[i + kBlock / 2]) << 4);
  }
  template <int NQ>
  static void products(Scores* acc, const float* const* q, int d, const uint8_t* bytes) {
    for (int i = 0; i < kBlock / 2; ++i, bytes += kPageTokens) {
      F low[kKeyVectors], high[kKeyVectors];
      for (int v = 0; v < kKeyVectors; ++v) {
        const I both = load_u8(bytes + v * W);
        low[v] = sub(to_float(ilow4(both)), splat(8));
        high[v] = sub(to_float(ihigh4(both)), splat(8));
      }
      add_products<NQ>(acc, q, d + i, low);
      add_products<NQ>(acc, q, d + i + kBlock / 2, high);
    }
  }
  static F value(const uint8_t* row, int d) {
    const BlockQ4_0& b = reinterpret_cast<const BlockQ4_0*>(row)[d / kBlock];
    const I both = load_u8(b.q + d % (kBlock / 2));
    const I q = d % kBlock < kBlock / 2 ? ilow4(both) : ihigh4(both);
    return mul(splat_half(b.d), sub(to_float(q), splat(8)));
  }
};

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
