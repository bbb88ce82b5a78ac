// Matrix products of the 32-block types. A panel is W rows interleaved so that one vector load
// holds four consecutive weights of each row: per block the scales (W halves, then W minimums where
// the type has them), then the weights as bytes [8][W][4], or as nibbles [4][W][4] whose vector s
// holds the bytes of step s low and of step s + 4 high.
//
// The reduction, for every tile shape and both layouts:
//   acc = fma(float(sum of 32 integer products), d * x.d, acc); with a minimum then
//   acc = fma(m, x.sum_d, acc)
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

template <class C, bool kNib>
struct Panel {
  static constexpr int64_t kScaleBytes = int64_t(sizeof(half_t)) * W * (C::kMin ? 2 : 1);
  static constexpr int64_t kBlockBytes = kScaleBytes + (kNib ? 4 : 8) * 4 * W;
  static int64_t bytes(int64_t k) { return k / kBlock * kBlockBytes; }
};

// Writes rows [row, row + W) of the matrix as a panel; rows past the end become zeros.
template <class C, bool kNib>
static void write_panel(const uint8_t* rows, int64_t n_rows, int64_t k, int64_t row, uint8_t* dst) {
  using Block = typename C::Block;
  const int64_t n_blocks = k / kBlock;
  const Block* first = reinterpret_cast<const Block*>(rows) + row * n_blocks;
  const int n = n_rows - row < W ? int(n_rows - row) : W;
  alignas(64) uint8_t bytes[W][32];
  alignas(64) uint8_t words[8 * 4 * W];
  for (int64_t b = 0; b < n_blocks; ++b, dst += Panel<C, kNib>::kBlockBytes) {
    half_t* scales = reinterpret_cast<half_t*>(dst);
    for (int r = 0; r < W; ++r) {
      if (r >= n) {
        std::memset(bytes[r], 0, 32);
        scales[r] = 0;
        if constexpr (C::kMin) scales[W + r] = 0;
        continue;
      }
      const Block& block = first[r * n_blocks + b];
      xstore(bytes[r], C::bytes(block));
      scales[r] = block.d;
      if constexpr (C::kMin) scales[W + r] = block.m;
    }
    uint8_t* data = dst + Panel<C, kNib>::kScaleBytes;
    if constexpr (kNib) {
      interleave(bytes, words);
      for (int s = 0; s < 4; ++s)
        bstore(data + 4 * W * s,
               join_nibbles(bload(words + 4 * W * s), bload(words + 4 * W * (s + 4))));
    } else {
      interleave(bytes, data);
    }
  }
}

template <class C>
static inline I dot_codec(I acc, B w, B a) {
  if constexpr (C::kSigned)
    return dot_signed(acc, w, a);
  else
    return dot(acc, w, a);
}

// Bytes ahead of a decode's stream that are worth asking for early.
inline constexpr int kPrefetch = 4096;

// NP panels x NC columns. `valid` rows of the last panel are stored.
template <class C, bool kNib, int NP, int NC>
static void tile_blocks(const uint8_t* panels, int64_t n_blocks, const ActBlock32* x, float* y,
                        int64_t y_stride, int valid, bool accumulate) {
  using P = Panel<C, kNib>;
  const int64_t panel_bytes = n_blocks * P::kBlockBytes;
  const ActBlock32* column[NC];
  for (int c = 0; c < NC; ++c) column[c] = x + c * n_blocks;
  F acc[NP][NC];
  for (int p = 0; p < NP; ++p)
    for (int c = 0; c < NC; ++c) acc[p][c] = splat(0);
  const uint8_t* w = panels;
  for (int64_t b = 0; b < n_blocks; ++b, w += P::kBlockBytes) {
    I isum[NP][NC];
    for (int c = 0; c < NC; ++c) {
      const I start = C::kOffset ? isplat(-C::kOffset * column[c][b].sum) : isplat(0);
      for (int p = 0; p < NP; ++p) isum[p][c] = start;
    }
    const uint8_t* data = w + P::kScaleBytes;
    if constexpr (NC == 1)
      for (int i = 0; i < P::kBlockBytes; i += 64) prefetch(w + kPrefetch + i);
#pragma GCC unroll 8
    for (int s = 0; s < (kNib ? 4 : 8); ++s) {
      B low[NP], high[NP];
      for (int p = 0; p < NP; ++p) {
        const B raw = bload(data + p * panel_bytes + 4 * W * s);
        low[p] = kNib ? low_nibbles(raw) : raw;
        if constexpr (kNib) high[p] = high_nibbles(raw);
      }
      for (int c = 0; c < NC; ++c) {
        const B a = bsplat4(column[c][b].q + 4 * s);
        for (int p = 0; p < NP; ++p) isum[p][c] = dot_codec<C>(isum[p][c], low[p], a);
      }
      if constexpr (kNib)
        for (int c = 0; c < NC; ++c) {
          const B a = bsplat4(column[c][b].q + 4 * (s + 4));
          for (int p = 0; p < NP; ++p) isum[p][c] = dot_codec<C>(isum[p][c], high[p], a);
        }
    }
    for (int p = 0; p < NP; ++p) {
      const half_t* scales = reinterpret_cast<const half_t*>(w + p * panel_bytes);
      const F d = load_half(scales);
      for (int c = 0; c < NC; ++c)
        acc[p][c] = fma(to_float(isum[p][c]), mul(d, splat(column[c][b].d)), acc[p][c]);
      if constexpr (C::kMin) {
        const F m = load_half(scales + W);
        for (int c = 0; c < NC; ++c) acc[p][c] = fma(m, splat(column[c][b].sum_d), acc[p][c]);
      }
    }
  }
  for (int c = 0; c < NC; ++c)
    for (int p = 0; p < NP; ++p)
      store_rows(y + c * y_stride + p * W, acc[p][c], p == NP - 1 ? valid : W, accumulate);
}

template <class C, bool kNib, int NP, int NC = kTileCols>
static void tile_blocks_cols(int n_cols, const uint8_t* panels, int64_t n_blocks,
                             const ActBlock32* x, float* y, int64_t y_stride, int valid,
                             bool accumulate) {
  if (n_cols == NC)
    tile_blocks<C, kNib, NP, NC>(panels, n_blocks, x, y, y_stride, valid, accumulate);
  else if constexpr (NC > 1)
    tile_blocks_cols<C, kNib, NP, NC - 1>(n_cols, panels, n_blocks, x, y, y_stride, valid,
                                          accumulate);
}

// All columns against the panels of rows [row, row_end).
template <class C, bool kNib>
static void sweep_blocks(const MatmulArgs& a, const uint8_t* panels, int64_t row, int64_t row_end) {
  const int64_t n_blocks = a.k / kBlock;
  const int64_t panel_bytes = Panel<C, kNib>::bytes(a.k);
  for (int64_t c = 0; c < a.n_cols; c += kTileCols) {
    const int n_cols = a.n_cols - c < kTileCols ? int(a.n_cols - c) : kTileCols;
    const ActBlock32* x = static_cast<const ActBlock32*>(a.x) + c * n_blocks;
    for (int64_t r = row; r < row_end;) {
      const uint8_t* w = panels + (r - row) / W * panel_bytes;
      float* y = a.y + c * a.y_stride + r;
      // One stream per thread when the weights are read once; two panels share an activation
      // when they are in cache.
      if (n_cols > 1 && r + W < row_end && kTilePanels == 2) {
        const int valid = row_end - r < 2 * W ? int(row_end - r) - W : W;
        tile_blocks_cols<C, kNib, kTilePanels>(n_cols, w, n_blocks, x, y, a.y_stride, valid,
                                               a.accumulate);
        r += 2 * W;
      } else {
        const int valid = row_end - r < W ? int(row_end - r) : W;
        tile_blocks_cols<C, kNib, 1>(n_cols, w, n_blocks, x, y, a.y_stride, valid, a.accumulate);
        r += W;
      }
    }
  }
}

template <class C>
struct BlockType {
  // Rows expanded together: a panel group that stays in the L2 cache while all columns pass.
  static constexpr int kGroup = 64;

  static size_t scratch_bytes(int64_t k) {
    return size_t(kGroup / W) * size_t(Panel<C, false>::bytes(k));
  }

  static void matmul_rows(const MatmulArgs& a) {
    for (int64_t row = a.row_begin; row < a.row_end; row += kGroup) {
      const int64_t end = a.row_end - row < kGroup ? a.row_end : row + kGroup;
      for (int64_t r = row; r < end; r += W)
        write_panel<C, false>(a.weights, a.n_rows, a.k, r,
                              a.scratch + (r - row) / W * Panel<C, false>::bytes(a.k));
      sweep_blocks<C, false>(a, a.scratch, row, end);
    }
  }

  static size_t packed_bytes(int64_t n_rows, int64_t k) {
    return size_t((n_rows + W - 1) / W) * size_t(Panel<C, C::kNibbles>::bytes(k));
  }

  static void pack(const uint8_t* rows, int64_t n_rows, int64_t k, int64_t row_begin,
                   int64_t row_end, uint8_t* packed) {
    for (int64_t r = row_begin; r < row_end; r += W)
      write_panel<C, C::kNibbles>(rows, n_rows, k, r,
                                  packed + r / W * Panel<C, C::kNibbles>::bytes(k));
  }

  // Nibbles are unpacked once per panel when the columns are many, else on the fly.
  static void matmul_packed(const MatmulArgs& a) {
    constexpr int kFewColumns = 4 * kTileCols;
    const int64_t packed = Panel<C, C::kNibbles>::bytes(a.k);
    if (!C::kNibbles || a.n_cols <= kFewColumns) {
      for (int64_t row = a.row_begin; row < a.row_end; row += kGroup)
        sweep_blocks<C, C::kNibbles>(a, a.weights + row / W * packed, row,
                                     a.row_end - row < kGroup ? a.row_end : row + kGroup);
      return;
    }
    const int64_t n_blocks = a.k / kBlock;
    for (int64_t row = a.row_begin; row < a.row_end; row += kGroup) {
      const int64_t end = a.row_end - row < kGroup ? a.row_end : row + kGroup;
      for (int64_t r = row; r < end; r += W)
        unpack_nibbles(a.weights + r / W * packed, n_blocks,
                       a.scratch + (r - row) / W * Panel<C, false>::bytes(a.k));
      sweep_blocks<C, false>(a, a.scratch, row, end);
    }
  }

  static void unpack_nibbles(const uint8_t* src, int64_t n_blocks, uint8_t* dst) {
    constexpr int64_t scales = Panel<C, true>::kScaleBytes;
    for (int64_t b = 0; b < n_blocks; ++b) {
      std::memcpy(dst, src, size_t(scales));
      for (int s = 0; s < 4; ++s) {
        const B raw = bload(src + scales + 4 * W * s);
        bstore(dst + scales + 4 * W * s, low_nibbles(raw));
        bstore(dst + scales + 4 * W * (s + 4), high_nibbles(raw));
      }
      src += Panel<C, true>::kBlockBytes;
      dst += Panel<C, false>::kBlockBytes;
    }
  }

  static constexpr TypeKernels entry() {
    return {C::kType,     ActKind::q8_32, scratch_bytes, matmul_rows,
            packed_bytes, pack,           matmul_packed};
  }
};

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
