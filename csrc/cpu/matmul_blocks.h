// Matrix products of the 32-block types. A panel is W rows interleaved so that one vector load
// holds what one dot instruction takes: per block the scales (W halves, then W minimums where the
// type has them), then the weights. Expanded (kBits = 8) they are eight steps of bytes, in the
// order of the tier's interleave(): [8][W][4] where a step is four consecutive weights of each row.
// Packed they are a group of codes (planes.h): the file's number of bytes per weight. Types of 8
// bits are packed as they are expanded.
//
// The reduction, for every tile shape and both layouts:
//   acc = fma(float(sum of 32 integer products), d * x.d, acc); with a minimum then
//   acc = fma(m, x.sum_d, acc)
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

template <class C, int kBits>  // kBits: 8 or C::kBits
struct Panel {
  static constexpr int64_t kScaleBytes = int64_t(sizeof(half_t)) * W * (C::kMin ? 2 : 1);
  static constexpr int64_t kBlockBytes = kScaleBytes + kBits * 4 * W;
  static int64_t bytes(int64_t k) { return k / kBlock * kBlockBytes; }
};

// Writes rows [row, row + W) of the matrix as a panel; rows past the end become zeros.
template <class C, int kBits>
static void write_panel(const uint8_t* rows, int64_t n_rows, int64_t k, int64_t row, uint8_t* dst) {
  using Block = typename C::Block;
  const int64_t n_blocks = k / kBlock;
  const Block* first = reinterpret_cast<const Block*>(rows) + row * n_blocks;
  const int n = n_rows - row < W ? int(n_rows - row) : W;
  alignas(64) uint8_t bytes[W][32];
  alignas(64) uint8_t words[8 * 4 * W];
  for (int64_t b = 0; b < n_blocks; ++b, dst += Panel<C, kBits>::kBlockBytes) {
    half_t* scales = reinterpret_cast<half_t*>(dst);
    for (int r = 0; r < W; ++r) {
      if (r >= n) {
        std::memset(bytes[r], 0, 32);
        scales[r] = 0;
        if constexpr (C::kMin) scales[W + r] = 0;
        continue;
      }
      const Block& block = first[r * n_blocks + b];
      xstore(bytes[r], C::codes(block));
      scales[r] = block.d;
      if constexpr (C::kMin) scales[W + r] = block.m;
    }
    uint8_t* data = dst + Panel<C, kBits>::kScaleBytes;
    if constexpr (kBits < 8) {
      interleave(bytes, words);
      Group<kBits>::write(words, data);
    } else {
      interleave(bytes, data);
      for (int s = 0; s < 8; ++s) bstore(data + 4 * W * s, C::bytes(bload(data + 4 * W * s)));
    }
  }
}

// The bytes of step s of a block's weights at `data`.
template <class C, int kBits>
static inline B block_step(const uint8_t* data, int s) {
  if constexpr (kBits == 8)
    return bload(data + 4 * W * s);
  else
    return C::bytes(Group<kBits>::codes(data, s));
}

// Bytes ahead of a decode's stream that are worth asking for early.
inline constexpr int kPrefetch = 5120;

// What a pass over panels asks for early: every `n_passes`-th block, from the `pass`-th on, so many
// bytes ahead.
struct Ahead {
  int64_t distance, pass, n_passes;
};

// Of the pass that begins with a column. Several passes over the same panels spread the reading of
// those that come next, all of them further on by `bytes`, over their time.
static inline Ahead ahead_of(int64_t column, int64_t n_cols, int tile_cols, int64_t bytes) {
  const int64_t n_passes = (n_cols + tile_cols - 1) / tile_cols;
  return {n_passes == 1 ? kPrefetch : bytes, column / tile_cols, n_passes};
}

// Asks for bytes [from, to) of a block further on, of each of NP panels of which one's block is at
// w, `left` bytes before its end.
template <int NP>
static inline void ask(const Ahead& ahead, const uint8_t* w, int64_t panel_bytes, int64_t left,
                       int64_t from, int64_t to) {
  if (ahead.n_passes > 1) {
    for (int p = 0; p < NP; ++p)
      for (int64_t i = from; i < to; i += 64) prefetch(w + p * panel_bytes + ahead.distance + i);
    return;
  }
  // Past the end of a panel lies the one beside it, which has been read: the next are beyond.
  const int64_t beyond = ahead.distance < left ? 0 : (NP - 1) * panel_bytes;
  for (int p = 0; p < NP; ++p)
    for (int64_t i = from; i < to; i += 64)
      prefetch_once(w + p * panel_bytes + beyond + ahead.distance + i);
}

// NP panels x NC columns. `valid` rows of the last panel are stored.
template <class C, int kBits, int NP, int NC>
static void tile_blocks(const uint8_t* panels, int64_t n_blocks, const ActBlock32* x, float* y,
                        int64_t y_stride, int valid, bool accumulate, const Ahead& ahead) {
  using P = Panel<C, kBits>;
  const int64_t panel_bytes = n_blocks * P::kBlockBytes;
  const ActBlock32* column[NC];
  for (int c = 0; c < NC; ++c) column[c] = x + c * n_blocks;
  F acc[NP][NC];
  for (int p = 0; p < NP; ++p)
    for (int c = 0; c < NC; ++c) acc[p][c] = splat(0);
  const uint8_t* w = panels;
  int64_t until = ahead.pass;
  for (int64_t b = 0; b < n_blocks; ++b, w += P::kBlockBytes) {
    const int8_t* q[NC];
    I offset[NC];
    for (int c = 0; c < NC; ++c) {
      q[c] = column[c][b].q;
      offset[c] = C::kOffset ? isplat(-C::kOffset * column[c][b].sum) : isplat(0);
    }
    TileSums<C, NP, NC> sums;
    sums.start(offset);
    const uint8_t* data = w + P::kScaleBytes;
    if (kBits == C::kBits && until-- == 0) {
      until = ahead.n_passes - 1;
      ask<NP>(ahead, w, panel_bytes, (n_blocks - b) * P::kBlockBytes, 0, P::kBlockBytes);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const int s = Group<kBits>::step(i);
      B bytes[NP];
      for (int p = 0; p < NP; ++p) bytes[p] = block_step<C, kBits>(data + p * panel_bytes, s);
      sums.add(i, s, bytes, q);
    }
    for (int p = 0; p < NP; ++p) {
      const half_t* scales = reinterpret_cast<const half_t*>(w + p * panel_bytes);
      const F d = load_half(scales);
      for (int c = 0; c < NC; ++c)
        acc[p][c] = fma(to_float(sums.rows(p, c)), mul(d, splat(column[c][b].d)), acc[p][c]);
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

template <class C, int kBits, int NP, int NC = kTileCols>
static void tile_blocks_cols(int n_cols, const uint8_t* panels, int64_t n_blocks,
                             const ActBlock32* x, float* y, int64_t y_stride, int valid,
                             bool accumulate, const Ahead& ahead) {
  if (n_cols == NC)
    tile_blocks<C, kBits, NP, NC>(panels, n_blocks, x, y, y_stride, valid, accumulate, ahead);
  else if constexpr (NC > 1)
    tile_blocks_cols<C, kBits, NP, NC - 1>(n_cols, panels, n_blocks, x, y, y_stride, valid,
                                           accumulate, ahead);
}

// All columns against the panels of rows [row, row_end).
template <class C, int kBits>
static void sweep_blocks(const MatmulArgs& a, const uint8_t* panels, int64_t row, int64_t row_end) {
  const int64_t n_blocks = a.k / kBlock;
  const int64_t panel_bytes = Panel<C, kBits>::bytes(a.k);
  for (int64_t c = 0; c < a.n_cols; c += kTileCols) {
    const Ahead ahead = ahead_of(c, a.n_cols, kTileCols, (row_end - row + W - 1) / W * panel_bytes);
    const int n_cols = a.n_cols - c < kTileCols ? int(a.n_cols - c) : kTileCols;
    const ActBlock32* x = static_cast<const ActBlock32*>(a.x) + c * n_blocks;
    for (int64_t r = row; r < row_end;) {
      const uint8_t* w = panels + (r - row) / W * panel_bytes;
      float* y = a.y + c * a.y_stride + r;
      // One stream per thread when the weights are read once; two panels share an activation
      // when they are in cache.
      if (n_cols > 1 && r + W < row_end && kTilePanels == 2) {
        const int valid = row_end - r < 2 * W ? int(row_end - r) - W : W;
        tile_blocks_cols<C, kBits, kTilePanels>(n_cols, w, n_blocks, x, y, a.y_stride, valid,
                                                a.accumulate, ahead);
        r += 2 * W;
      } else {
        const int valid = row_end - r < W ? int(row_end - r) : W;
        tile_blocks_cols<C, kBits, 1>(n_cols, w, n_blocks, x, y, a.y_stride, valid, a.accumulate,
                                      ahead);
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
    return size_t(kGroup / W) * size_t(Panel<C, 8>::bytes(k));
  }

  static void matmul_rows(const MatmulArgs& a) {
    for (int64_t row = a.row_begin; row < a.row_end; row += kGroup) {
      const int64_t end = a.row_end - row < kGroup ? a.row_end : row + kGroup;
      for (int64_t r = row; r < end; r += W)
        write_panel<C, 8>(a.weights, a.n_rows, a.k, r,
                          a.scratch + (r - row) / W * Panel<C, 8>::bytes(a.k));
      sweep_blocks<C, 8>(a, a.scratch, row, end);
    }
  }

  static size_t packed_bytes(int64_t n_rows, int64_t k) {
    return size_t((n_rows + W - 1) / W) * size_t(Panel<C, C::kBits>::bytes(k));
  }

  static void pack(const uint8_t* rows, int64_t n_rows, int64_t k, int64_t row_begin,
                   int64_t row_end, uint8_t* packed) {
    for (int64_t r = row_begin; r < row_end; r += W)
      write_panel<C, C::kBits>(rows, n_rows, k, r, packed + r / W * Panel<C, C::kBits>::bytes(k));
  }

  // Codes are unpacked once per panel when the columns are many, else on the fly.
  static void matmul_packed(const MatmulArgs& a) {
    constexpr int kFewColumns = Group<C::kBits>::kFewTiles * kTileCols;
    const int64_t packed = Panel<C, C::kBits>::bytes(a.k);
    if (C::kBits == 8 || a.n_cols <= kFewColumns) {
      for (int64_t row = a.row_begin; row < a.row_end; row += kGroup)
        sweep_blocks<C, C::kBits>(a, a.weights + row / W * packed, row,
                                  a.row_end - row < kGroup ? a.row_end : row + kGroup);
      return;
    }
    const int64_t n_blocks = a.k / kBlock;
    for (int64_t row = a.row_begin; row < a.row_end; row += kGroup) {
      const int64_t end = a.row_end - row < kGroup ? a.row_end : row + kGroup;
      for (int64_t r = row; r < end; r += W)
        unpack(a.weights + r / W * packed, n_blocks,
               a.scratch + (r - row) / W * Panel<C, 8>::bytes(a.k));
      sweep_blocks<C, 8>(a, a.scratch, row, end);
    }
  }

  static void unpack(const uint8_t* src, int64_t n_blocks, uint8_t* dst) {
    constexpr int64_t scales = Panel<C, C::kBits>::kScaleBytes;
    for (int64_t b = 0; b < n_blocks; ++b) {
      std::memcpy(dst, src, size_t(scales));
#pragma GCC unroll 8
      for (int s = 0; s < 8; ++s)
        bstore(dst + scales + 4 * W * s, block_step<C, C::kBits>(src + scales, s));
      src += Panel<C, C::kBits>::kBlockBytes;
      dst += Panel<C, 8>::kBlockBytes;
    }
  }

  static constexpr TypeKernels entry() {
    return {C::kType,     ActKind::q8_32, scratch_bytes, matmul_rows,
            packed_bytes, pack,           matmul_packed};
  }
};

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
