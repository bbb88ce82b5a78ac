// Matrix products of the K types: super-blocks of 256 with integer sub-block scales. Rows are
// expanded to panels of W rows: per super-block W halves d, W halves dmin, the scales int8
// [kSubs][W], the minimums int16 [8][W][2], then the weights as bytes [64][W][4].
//
// The reduction, for every tile shape:
//   total = sum over sub-blocks of scale * (sum of products), an exact int32
//   lows  = sum over 16 of min * (sum of activations), an exact int32
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

template <class C>
struct SuperPanel {
  static constexpr int64_t kScales = 2 * int64_t(sizeof(half_t)) * W;
  static constexpr int64_t kMins = kScales + C::kSubs * W;
  static constexpr int64_t kData = kMins + 8 * 4 * W;
  static constexpr int64_t kBlockBytes = kData + 64 * 4 * W;
  static int64_t bytes(int64_t k) { return k / kSuperBlock * kBlockBytes; }
};

template <class C>
static void write_super_panel(const uint8_t* rows, int64_t n_rows, int64_t k, int64_t row,
                              uint8_t* dst) {
  using Block = typename C::Block;
  using P = SuperPanel<C>;
  const int64_t n_blocks = k / kSuperBlock;
  const Block* first = reinterpret_cast<const Block*>(rows) + row * n_blocks;
  const int n = n_rows - row < W ? int(n_rows - row) : W;
  alignas(64) uint8_t bytes[W][32];
  for (int64_t b = 0; b < n_blocks; ++b, dst += P::kBlockBytes) {
    half_t* d = reinterpret_cast<half_t*>(dst);
    int8_t* scales = reinterpret_cast<int8_t*>(dst + P::kScales);
    int16_t* mins = reinterpret_cast<int16_t*>(dst + P::kMins);
    for (int r = 0; r < W; ++r) {
      int8_t scale[C::kSubs] = {};
      int8_t min[C::kSubs] = {};
      d[r] = d[W + r] = 0;
      if (r < n) {
        const Block& block = first[r * n_blocks + b];
        d[r] = block.d;
        d[W + r] = C::min_scale(block);
        C::scales(block, scale, min);
      }
      for (int j = 0; j < C::kSubs; ++j) scales[j * W + r] = scale[j];
      for (int j = 0; j < 16; ++j)
        mins[(j / 2 * W + r) * 2 + j % 2] = int16_t(C::kMinFactor * min[j * C::kSubs / 16]);
    }
    for (int j = 0; j < 8; ++j) {
      for (int r = 0; r < W; ++r) {
        if (r < n)
          xstore(bytes[r], C::bytes(first[r * n_blocks + b], j));
        else
          std::memset(bytes[r], 0, 32);
      }
      interleave(bytes, dst + P::kData + j * 8 * 4 * W);
    }
  }
}

template <class C, int NC>
static void tile_super(const uint8_t* panel, int64_t n_blocks, const ActBlock256* x, float* y,
                       int64_t y_stride, int valid, bool accumulate) {
  using P = SuperPanel<C>;
  constexpr int kSteps = kSuperBlock / C::kSubs / 4;  // dot instructions per sub-block
  const ActBlock256* column[NC];
  for (int c = 0; c < NC; ++c) column[c] = x + c * n_blocks;
  F acc[NC];
  for (int c = 0; c < NC; ++c) acc[c] = splat(0);
  const uint8_t* w = panel;
  for (int64_t b = 0; b < n_blocks; ++b, w += P::kBlockBytes) {
    I total[NC];
    for (int c = 0; c < NC; ++c) total[c] = isplat(0);
    for (int j = 0; j < C::kSubs; ++j) {
      I isum[NC];
      for (int c = 0; c < NC; ++c) isum[c] = isplat(0);
#pragma GCC unroll 8
      for (int s = 0; s < kSteps; ++s) {
        const B bytes = bload(w + P::kData + (j * kSteps + s) * 4 * W);
        for (int c = 0; c < NC; ++c)
          isum[c] = dot_codec<C>(isum[c], bytes, bsplat4(column[c][b].q + (j * kSteps + s) * 4));
      }
      const I scale = load_i8(reinterpret_cast<const int8_t*>(w + P::kScales) + j * W);
      for (int c = 0; c < NC; ++c) total[c] = iadd(total[c], imul(isum[c], scale));
    }
    I lows[NC];
    for (int c = 0; c < NC; ++c) lows[c] = isplat(0);
    for (int j = 0; j < 8; ++j) {
      const B mins = bload(w + P::kMins + j * 4 * W);
      for (int c = 0; c < NC; ++c)
        lows[c] = dot_pairs(lows[c], mins, bsplat4(column[c][b].sums + 2 * j));
    }
    const half_t* scales = reinterpret_cast<const half_t*>(w);
    const F d = load_half(scales);
    for (int c = 0; c < NC; ++c) {
      const F xd = splat(column[c][b].d);
      const I minus = imul(lows[c], isplat(-1));
      if constexpr (C::kMin) {
        acc[c] = fma(to_float(total[c]), mul(d, xd), acc[c]);
        acc[c] = fma(to_float(minus), mul(load_half(scales + W), xd), acc[c]);
      } else {
        acc[c] = fma(to_float(iadd(total[c], minus)), mul(d, xd), acc[c]);
      }
    }
  }
  for (int c = 0; c < NC; ++c) store_rows(y + c * y_stride, acc[c], valid, accumulate);
}

template <class C, int NC = kTileColsK>
static void tile_super_cols(int n_cols, const uint8_t* panel, int64_t n_blocks,
                            const ActBlock256* x, float* y, int64_t y_stride, int valid,
                            bool accumulate) {
  if (n_cols == NC)
    tile_super<C, NC>(panel, n_blocks, x, y, y_stride, valid, accumulate);
  else if constexpr (NC > 1)
    tile_super_cols<C, NC - 1>(n_cols, panel, n_blocks, x, y, y_stride, valid, accumulate);
}

template <class C>
struct SuperType {
  static constexpr int kGroup = 64;

  static size_t scratch_bytes(int64_t k) {
    return size_t(kGroup / W) * size_t(SuperPanel<C>::bytes(k));
  }

  static void matmul_rows(const MatmulArgs& a) {
    if (a.n_cols <= kRowColumns) return rows_super<C>(a);
    const int64_t n_blocks = a.k / kSuperBlock;
    const int64_t panel_bytes = SuperPanel<C>::bytes(a.k);
    for (int64_t row = a.row_begin; row < a.row_end; row += kGroup) {
      const int64_t end = a.row_end - row < kGroup ? a.row_end : row + kGroup;
      for (int64_t r = row; r < end; r += W)
        write_super_panel<C>(a.weights, a.n_rows, a.k, r, a.scratch + (r - row) / W * panel_bytes);
      for (int64_t c = 0; c < a.n_cols; c += kTileColsK) {
        const int n_cols = a.n_cols - c < kTileColsK ? int(a.n_cols - c) : kTileColsK;
        const ActBlock256* x = static_cast<const ActBlock256*>(a.x) + c * n_blocks;
        for (int64_t r = row; r < end; r += W)
          tile_super_cols<C>(n_cols, a.scratch + (r - row) / W * panel_bytes, n_blocks, x,
                             a.y + c * a.y_stride + r, a.y_stride, end - r < W ? int(end - r) : W,
                             a.accumulate);
      }
    }
  }

  static constexpr TypeKernels entry() {
    return {C::kType, ActKind::q8_256, scratch_bytes, matmul_rows, nullptr, nullptr, nullptr};
  }
};

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
