// Matrix products of the K types against few columns, row by row where they lie: nothing is
// expanded, one sequential stream of weights per thread. The reduction is that of matmul_super.h:
// exact integers within a super-block, then the same multiply-adds in the same order.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

// Above this many columns, expanding rows once for all columns is cheaper.
inline constexpr int kRowColumns = 4;

// The 16 numbers of a super-block as int16, one per 16 weights.
template <class C>
static inline X per_sixteen(const int8_t* numbers) {
  return C::kSubs == 16 ? xwiden(numbers) : xwiden_twice(numbers);
}

template <class C, int NC>
static void row_super(const typename C::Block* row, int64_t n_blocks, const ActBlock256* x,
                      float* y, int64_t y_stride, bool accumulate) {
  F acc[NC];
  for (int c = 0; c < NC; ++c) acc[c] = splat(0);
  for (int64_t b = 0; b < n_blocks; ++b) {
    const auto& block = row[b];
    for (size_t i = 0; i < sizeof block; i += 64)
      prefetch_once(reinterpret_cast<const uint8_t*>(&block) + kPrefetch + i);
    int8_t scale[16], min[16];
    C::scales(block, scale, min);
    const X scales = per_sixteen<C>(scale), mins = per_sixteen<C>(min);
    Y total[NC];
    for (int c = 0; c < NC; ++c) total[c] = yzero();
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const X s = xpick(scales, j);
      X w = C::xbytes(C::codes(block, j));
      if constexpr (C::kSigned) w = xbias_signed(w);  // undoes it
      for (int c = 0; c < NC; ++c) {
        const X a = xload(x[c * n_blocks + b].q + 32 * j);
        total[c] = C::kSigned ? yscaled_signed(total[c], w, a, s) : yscaled(total[c], w, a, s);
      }
    }
    const F d = splat_half(block.d), dmin = splat_half(C::min_scale(block));
    for (int c = 0; c < NC; ++c) {
      const ActBlock256& a = x[c * n_blocks + b];
      const F xd = splat(a.d);
      // Bytes that are signed here have no offset to take back.
      const int32_t lows = C::kSigned ? 0 : ysum(ypairs(yzero(), mins, xload(a.sums)));
      if constexpr (C::kMin) {
        acc[c] = fma(splat(float(ysum(total[c]))), mul(d, xd), acc[c]);
        acc[c] = fma(splat(float(-lows)), mul(dmin, xd), acc[c]);
      } else {
        acc[c] = fma(splat(float(ysum(total[c]) - C::kMinFactor * lows)), mul(d, xd), acc[c]);
      }
    }
  }
  for (int c = 0; c < NC; ++c) store_rows(y + c * y_stride, acc[c], 1, accumulate);
}

template <class C, int NC = kRowColumns>
static void rows_super(const MatmulArgs& a) {
  if (a.n_cols < NC) {
    if constexpr (NC > 1) rows_super<C, NC - 1>(a);
    return;
  }
  const int64_t n_blocks = a.k / kSuperBlock;
  const auto* rows = reinterpret_cast<const typename C::Block*>(a.weights);
  for (int64_t r = a.row_begin; r < a.row_end; ++r)
    row_super<C, NC>(rows + r * n_blocks, n_blocks, static_cast<const ActBlock256*>(a.x), a.y + r,
                     a.y_stride, a.accumulate);
}

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
