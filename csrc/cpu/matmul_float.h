// Matrix products of float weights: tiles of row-by-column dot products.
//
// The reduction, for every tile shape: lane i of accumulator j (of two) takes the elements
// 2 W t + W j + i with t ascending; then lanes of the accumulators' sum are added in a fixed tree.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

template <class C, int NR, int NC>
static void tile_float(const typename C::Element* w, const float* x, int64_t k, float* y,
                       int64_t y_stride, bool accumulate) {
  F acc[2][NR][NC];
  for (int j = 0; j < 2; ++j)
    for (int r = 0; r < NR; ++r)
      for (int c = 0; c < NC; ++c) acc[j][r][c] = splat(0);
  const int64_t whole = k - k % (2 * W);
  for (int64_t i = 0; i < whole; i += 2 * W)
    for (int j = 0; j < 2; ++j) {
      F wide[NR];
      for (int r = 0; r < NR; ++r) wide[r] = C::load_lanes(w + r * k + i + j * W);
      for (int c = 0; c < NC; ++c) {
        const F col = load(x + c * k + i + j * W);
        for (int r = 0; r < NR; ++r) acc[j][r][c] = fma(wide[r], col, acc[j][r][c]);
      }
    }
  for (int64_t i = whole, j = 0; i < k; i += W, ++j) {
    const int n = k - i < W ? int(k - i) : W;
    for (int r = 0; r < NR; ++r) {
      const F wide = C::load_part(w + r * k + i, n);
      for (int c = 0; c < NC; ++c) acc[j][r][c] = fma(wide, load_n(x + c * k + i, n), acc[j][r][c]);
    }
  }
  for (int r = 0; r < NR; ++r)
    for (int c = 0; c < NC; ++c) {
      const float dot = sum(add(acc[0][r][c], acc[1][r][c]));
      float* out = y + c * y_stride + r;
      *out = accumulate ? *out + dot : dot;
    }
}

template <class C, int NR, int NC>
static void tile_float_any(int n_rows, int n_cols, const typename C::Element* w, const float* x,
                           int64_t k, float* y, int64_t y_stride, bool accumulate) {
  if (n_rows < NR) {
    if constexpr (NR > 1)
      tile_float_any<C, NR - 1, NC>(n_rows, n_cols, w, x, k, y, y_stride, accumulate);
  } else if (n_cols < NC) {
    if constexpr (NC > 1)
      tile_float_any<C, NR, NC - 1>(n_rows, n_cols, w, x, k, y, y_stride, accumulate);
  } else {
    tile_float<C, NR, NC>(w, x, k, y, y_stride, accumulate);
  }
}

template <class C>
struct FloatType {
  static size_t scratch_bytes(int64_t) { return 0; }

  static void matmul_rows(const MatmulArgs& a) {
    const auto* weights = reinterpret_cast<const typename C::Element*>(a.weights);
    const float* x = static_cast<const float*>(a.x);
    // One row at a time streams best when the weights are read once.
    const int tile_rows = a.n_cols == 1 ? 1 : kFloatTileRows;
    for (int64_t r = a.row_begin; r < a.row_end; r += tile_rows) {
      const int n_rows = a.row_end - r < tile_rows ? int(a.row_end - r) : tile_rows;
      for (int64_t c = 0; c < a.n_cols; c += kFloatTileCols) {
        const int n_cols = a.n_cols - c < kFloatTileCols ? int(a.n_cols - c) : kFloatTileCols;
        tile_float_any<C, kFloatTileRows, kFloatTileCols>(
            n_rows, n_cols, weights + r * a.k, x + c * a.k, a.k, a.y + c * a.y_stride + r,
            a.y_stride, a.accumulate);
      }
    }
  }

  static constexpr TypeKernels entry() {
    return {C::kType, ActKind::f32, scratch_bytes, matmul_rows, nullptr, nullptr, nullptr};
  }
};

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
