// Matrix products of the K types: super-blocks of 256 with integer sub-block scales. Panels of W
// rows hold per super-block
//   packed:   W halves d, W halves dmin where the type has one, the scale bytes of the file
//             [kScaleBytes][W], eight groups of codes (planes.h): the size of the file
//   expanded: W halves d, W halves dmin, the scales int8 [kSubs][W], the minimums int16
//             [kSubs / 2][2 W] where there are lows, the weights as 64 steps of bytes, as in
//             matmul_blocks.h
//
// The reduction, for every tile shape:
//   total = sum over sub-blocks of scale * (sum of products), an exact int32
//   lows  = sum over sub-blocks of min * (sum of activations), an exact int32
//   with a scale of their own for the minimums:
//     acc = fma(float(total), d * x.d, acc); acc = fma(-float(lows), dmin * x.d, acc)
//   else acc = fma(float(total - lows), d * x.d, acc)
// Every integer fits, with |scale| <= S, bytes of at most Q (signed ones biased by 128 where the
// tier's dot wants unsigned), |activation| <= 127 and so |sum of 16| <= 2032, |min| <= M (int16):
//           S    Q    M           |total| <= 256 S Q 127    |lows| <= 16 M 2032
//   Q2_K    15   3    15          1.5e6                     4.9e5
//   Q3_K    32   7    4 * 32      7.3e6                     4.2e6
//   Q4_K    63   15   63          3.1e7                     2.1e6
//   Q5_K    63   31   63          6.4e7                     2.1e6
//   Q6_K    128  63   32 * 128    2.7e8                     1.4e8
//   IQ4_XS  32   241  128 * 32    2.6e8                     1.4e8
// so that |total| + |lows| < 2^29.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

// Where a minimum is a multiple of the scale, sums that can start anywhere start below zero by what
// it takes away: there are no lows. Else there are, but for types without any minimum.
template <class C>
inline constexpr bool kStarts = kSumsStart && !C::kMin && C::kMinFactor != 0;
template <class C>
inline constexpr bool kHasLows = C::kMinFactor != 0 && !kStarts<C>;

template <class C, bool kPacked>
struct SuperPanel {
  static constexpr int64_t kScales = int64_t(sizeof(half_t)) * W * (kPacked && !C::kMin ? 1 : 2);
  static constexpr int64_t kMins = kScales + (kPacked ? C::kScaleBytes : C::kSubs) * W;
  static constexpr int64_t kData = kMins + (kPacked || !kHasLows<C> ? 0 : C::kSubs / 2 * 4 * W);
  static constexpr int64_t kGroupBytes = (kPacked ? C::kBits : 8) * 4 * W;
  static constexpr int64_t kBlockBytes = kData + 8 * kGroupBytes;
  static int64_t bytes(int64_t k) { return k / kSuperBlock * kBlockBytes; }

  // Of one super-block at w: the scales of sub-block j, ...
  static inline I scale(const uint8_t* w, int j) {
    if constexpr (kPacked)
      return C::scale(w + kScales, j);
    else
      return load_i8(reinterpret_cast<const int8_t*>(w + kScales) + j * W);
  }
  // ... the minimums of sub-blocks 2 j and 2 j + 1, ...
  static inline B mins(const uint8_t* w, int j) {
    if constexpr (kPacked) {
      return bpairs(ishl(C::min(w + kScales, 2 * j), kMinShift),
                    ishl(C::min(w + kScales, 2 * j + 1), kMinShift));
    } else {
      return bload(w + kMins + j * 4 * W);
    }
  }
  // ... and step s of the j-th 32 weights.
  static inline B step(const uint8_t* w, int j, int s) {
    const uint8_t* group = w + kData + j * kGroupBytes;
    if constexpr (kPacked)
      return C::bytes(Group<C::kBits>::codes(group, s));
    else
      return bload(group + s * 4 * W);
  }

 private:
  static constexpr int log2_of(int n) { return n > 1 ? 1 + log2_of(n / 2) : 0; }
  static constexpr int kMinShift = log2_of(C::kMinFactor);
};

// Packs rows [row, row + W) of the matrix; rows past the end become zeros.
template <class C>
static void pack_super_panel(const uint8_t* rows, int64_t n_rows, int64_t k, int64_t row,
                             uint8_t* dst) {
  using Block = typename C::Block;
  using P = SuperPanel<C, true>;
  const int64_t n_blocks = k / kSuperBlock;
  const Block* first = reinterpret_cast<const Block*>(rows) + row * n_blocks;
  const int n = n_rows - row < W ? int(n_rows - row) : W;
  alignas(64) uint8_t codes[W][32] = {};
  alignas(64) uint8_t steps[8 * 4 * W];
  for (int64_t b = 0; b < n_blocks; ++b, dst += P::kBlockBytes) {
    std::memset(dst, 0, P::kData);
    half_t* d = reinterpret_cast<half_t*>(dst);
    for (int r = 0; r < n; ++r) {
      const Block& block = first[r * n_blocks + b];
      d[r] = block.d;
      if constexpr (C::kMin) d[W + r] = block.dmin;
      const uint8_t* scales = reinterpret_cast<const uint8_t*>(&block) + C::kScalesAt;
      for (int j = 0; j < C::kScaleBytes; ++j) dst[P::kScales + j * W + r] = scales[j];
    }
    for (int j = 0; j < 8; ++j) {
      for (int r = 0; r < n; ++r) xstore(codes[r], C::codes(first[r * n_blocks + b], j));
      interleave(codes, steps);
      Group<C::kBits>::write(steps, dst + P::kData + j * P::kGroupBytes);
    }
  }
}

template <class C>
static void expand_super_panel(const uint8_t* src, int64_t n_blocks, uint8_t* dst) {
  using P = SuperPanel<C, true>;
  using E = SuperPanel<C, false>;
  for (int64_t b = 0; b < n_blocks; ++b, src += P::kBlockBytes, dst += E::kBlockBytes) {
    std::memcpy(dst, src, P::kScales);
    int8_t* scales = reinterpret_cast<int8_t*>(dst + E::kScales);
    for (int j = 0; j < C::kSubs; ++j) store_i8(scales + j * W, P::scale(src, j));
    for (int j = 0; kHasLows<C> && j < C::kSubs / 2; ++j)
      bstore(dst + E::kMins + j * 4 * W, P::mins(src, j));
    for (int j = 0; j < 8; ++j) {
#pragma GCC unroll 8
      for (int s = 0; s < 8; ++s) bstore(dst + E::kData + (8 * j + s) * 4 * W, P::step(src, j, s));
    }
  }
}

// Sums of the activations of each sub-block; those of 32 are put into `of_32`.
template <int kSubs>
static inline const int16_t* sub_sums(const ActBlock256& x, int16_t* of_32) {
  if (kSubs == 16) return x.sums;
  for (int j = 0; j < 8; ++j) of_32[j] = int16_t(x.sums[2 * j] + x.sums[2 * j + 1]);
  return of_32;
}

// NP panels x NC columns. `valid` rows of the last panel are stored.
template <class C, bool kPacked, int NP, int NC>
static void tile_super(const uint8_t* panels, int64_t n_blocks, const ActBlock256* x, float* y,
                       int64_t y_stride, int valid, bool accumulate, const Ahead& ahead) {
  using P = SuperPanel<C, kPacked>;
  constexpr int kParts = C::kSubs / 8;  // sub-blocks in 32 weights
  constexpr int kSteps = 8 / kParts;
  const int64_t panel_bytes = n_blocks * P::kBlockBytes;
  const ActBlock256* column[NC];
  for (int c = 0; c < NC; ++c) column[c] = x + c * n_blocks;
  F acc[NP][NC];
  for (int p = 0; p < NP; ++p)
    for (int c = 0; c < NC; ++c) acc[p][c] = splat(0);
  const uint8_t* w = panels;
  int64_t until = ahead.pass;
  for (int64_t b = 0; b < n_blocks; ++b, w += P::kBlockBytes) {
    const bool asks = kPacked && until-- == 0;
    if (asks) until = ahead.n_passes - 1;
    I zeros[NC];
    for (int c = 0; c < NC; ++c) zeros[c] = isplat(0);
    TileSums<C, NP, NC> sums;
    sums.start(zeros);
    int16_t of_32[NC][8];
    const int16_t* x_sums[NC];
    alignas(64) int32_t starts[NC][C::kSubs];
    for (int c = 0; c < NC; ++c) {
      x_sums[c] = sub_sums<C::kSubs>(column[c][b], of_32[c]);
      if constexpr (kStarts<C>)
        for (int j = 0; j < C::kSubs; ++j) starts[c][j] = -C::kMinFactor * x_sums[c][j];
    }
    for (int j = 0; j < 8; ++j) {
      if (asks)  // spread over the block: a burst fills the core's line buffers
        ask<NP>(ahead, w, panel_bytes, (n_blocks - b) * P::kBlockBytes, P::kBlockBytes * j / 8,
                P::kBlockBytes * (j + 1) / 8);
      const int8_t* q[NC];
      for (int c = 0; c < NC; ++c) q[c] = column[c][b].q + 32 * j;
      for (int part = 0; part < kParts; ++part) {
        SubScale scale[NP];
        for (int p = 0; p < NP; ++p)
          scale[p] = sub_scale(P::scale(w + p * panel_bytes, kParts * j + part));
        if constexpr (kSumsStart) {
          I from[NC];
          for (int c = 0; c < NC; ++c)
            from[c] = isplat(kStarts<C> ? starts[c][kParts * j + part] : 0);
          sums.start_scaled(from);
        }
#pragma GCC unroll 8
        for (int i = 0; i < kSteps; ++i) {
          const int s = part * kSteps + i;
          B bytes[NP];
          for (int p = 0; p < NP; ++p) bytes[p] = P::step(w + p * panel_bytes, j, s);
          sums.template add_scaled<kSteps>(i, s, bytes, q, scale);
        }
      }
    }
    I lows[NP][NC];
    for (int p = 0; p < NP; ++p)
      for (int c = 0; c < NC; ++c) lows[p][c] = isplat(0);
    if constexpr (kHasLows<C>)
      for (int j = 0; j < C::kSubs / 2; ++j)
        for (int p = 0; p < NP; ++p) {
          const B mins = P::mins(w + p * panel_bytes, j);
          for (int c = 0; c < NC; ++c)
            lows[p][c] = dot_pairs(lows[p][c], mins, bsplat4(x_sums[c] + 2 * j));
        }
    for (int p = 0; p < NP; ++p) {
      const half_t* scales = reinterpret_cast<const half_t*>(w + p * panel_bytes);
      const F d = load_half(scales);
      for (int c = 0; c < NC; ++c) {
        const F xd = splat(column[c][b].d);
        const I total = sums.rows(p, c), minus = isub(isplat(0), lows[p][c]);
        if constexpr (C::kMin) {
          acc[p][c] = fma(to_float(total), mul(d, xd), acc[p][c]);
          acc[p][c] = fma(to_float(minus), mul(load_half(scales + W), xd), acc[p][c]);
        } else {
          acc[p][c] = fma(to_float(iadd(total, minus)), mul(d, xd), acc[p][c]);
        }
      }
    }
  }
  for (int c = 0; c < NC; ++c)
    for (int p = 0; p < NP; ++p)
      store_rows(y + c * y_stride + p * W, acc[p][c], p == NP - 1 ? valid : W, accumulate);
}

template <class C, bool kPacked, int NP, int NC = kTileColsK>
static void tile_super_cols(int n_cols, const uint8_t* panels, int64_t n_blocks,
                            const ActBlock256* x, float* y, int64_t y_stride, int valid,
                            bool accumulate, const Ahead& ahead) {
  if (n_cols == NC)
    tile_super<C, kPacked, NP, NC>(panels, n_blocks, x, y, y_stride, valid, accumulate, ahead);
  else if constexpr (NC > 1)
    tile_super_cols<C, kPacked, NP, NC - 1>(n_cols, panels, n_blocks, x, y, y_stride, valid,
                                            accumulate, ahead);
}

// All columns against the panels of rows [row, row_end).
template <class C, bool kPacked>
static void sweep_super(const MatmulArgs& a, const uint8_t* panels, int64_t row, int64_t row_end) {
  const int64_t n_blocks = a.k / kSuperBlock;
  const int64_t panel_bytes = SuperPanel<C, kPacked>::bytes(a.k);
  for (int64_t c = 0; c < a.n_cols; c += kTileColsK) {
    const Ahead ahead =
        ahead_of(c, a.n_cols, kTileColsK, (row_end - row + W - 1) / W * panel_bytes);
    const int n_cols = a.n_cols - c < kTileColsK ? int(a.n_cols - c) : kTileColsK;
    const ActBlock256* x = static_cast<const ActBlock256*>(a.x) + c * n_blocks;
    for (int64_t r = row; r < row_end;) {
      const uint8_t* w = panels + (r - row) / W * panel_bytes;
      float* y = a.y + c * a.y_stride + r;
      // One stream per thread when the weights are read once.
      const int n_panels = n_cols > 1 && r + W < row_end ? kTilePanels : 1;
      const int valid = row_end - r < n_panels * W ? int(row_end - r) - (n_panels - 1) * W : W;
      if (n_panels == 1)
        tile_super_cols<C, kPacked, 1>(n_cols, w, n_blocks, x, y, a.y_stride, valid, a.accumulate,
                                       ahead);
      else
        tile_super_cols<C, kPacked, kTilePanels>(n_cols, w, n_blocks, x, y, a.y_stride, valid,
                                                 a.accumulate, ahead);
      r += n_panels * W;
    }
  }
}

template <class C>
struct SuperType {
  // Rows expanded together: a panel group that stays in the L2 cache while all columns pass.
  static constexpr int kGroup = 64;

  // Expanded panels, and one packed panel on the way there.
  static size_t scratch_bytes(int64_t k) {
    return size_t(kGroup / W) * size_t(SuperPanel<C, false>::bytes(k)) +
           size_t(SuperPanel<C, true>::bytes(k));
  }

  static void matmul_rows(const MatmulArgs& a) {
    if (a.n_cols <= kRowColumns) return rows_super<C>(a);
    const int64_t expanded = SuperPanel<C, false>::bytes(a.k);
    uint8_t* packed = a.scratch + kGroup / W * expanded;
    for (int64_t row = a.row_begin; row < a.row_end; row += kGroup) {
      const int64_t end = a.row_end - row < kGroup ? a.row_end : row + kGroup;
      for (int64_t r = row; r < end; r += W) {
        pack_super_panel<C>(a.weights, a.n_rows, a.k, r, packed);
        expand_super_panel<C>(packed, a.k / kSuperBlock, a.scratch + (r - row) / W * expanded);
      }
      sweep_super<C, false>(a, a.scratch, row, end);
    }
  }

  static size_t packed_bytes(int64_t n_rows, int64_t k) {
    return size_t((n_rows + W - 1) / W) * size_t(SuperPanel<C, true>::bytes(k));
  }

  static void pack(const uint8_t* rows, int64_t n_rows, int64_t k, int64_t row_begin,
                   int64_t row_end, uint8_t* packed) {
    for (int64_t r = row_begin; r < row_end; r += W)
      pack_super_panel<C>(rows, n_rows, k, r, packed + r / W * SuperPanel<C, true>::bytes(k));
  }

  // Codes are unpacked once per panel when the columns are many, else on the fly.
  static void matmul_packed(const MatmulArgs& a) {
    constexpr int kFewColumns = Group<C::kBits>::kFewTiles * kTileColsK;
    const int64_t packed = SuperPanel<C, true>::bytes(a.k);
    const int64_t expanded = SuperPanel<C, false>::bytes(a.k);
    for (int64_t row = a.row_begin; row < a.row_end; row += kGroup) {
      const int64_t end = a.row_end - row < kGroup ? a.row_end : row + kGroup;
      const uint8_t* panels = a.weights + row / W * packed;
      if (a.n_cols <= kFewColumns) {
        sweep_super<C, true>(a, panels, row, end);
        continue;
      }
      for (int64_t i = 0; i * W < end - row; ++i)
        expand_super_panel<C>(panels + i * packed, a.k / kSuperBlock, a.scratch + i * expanded);
      sweep_super<C, false>(a, a.scratch, row, end);
    }
  }

  static constexpr TypeKernels entry() {
    return {C::kType, ActKind::q8_256, scratch_bytes, matmul_rows, packed_bytes,
            pack,     matmul_packed};
  }
};

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
