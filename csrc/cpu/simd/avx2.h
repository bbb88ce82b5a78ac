// The vocabulary of AVX2: byte products in two steps, through saturating int16.
#pragma once

#include "cpu/simd/avx2_words.h"

namespace pyllamacpp::cpu::avx2 {

inline constexpr int kSignedBias = 0;
inline constexpr int kTileCols = 4;
inline constexpr int kTileColsK = 3;

static inline I dot_pairs(I acc, B a, B b) {
  return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
}

// Sums of the steps of a block stay in int16 for as many as fit, a pair of products being at most
// 2 * 127 * kMost; more than 4 were no faster.
template <class C>
inline constexpr int kRun = C::kMost <= 32   ? 4
                            : C::kMost <= 64 ? 2
                                             : 1;

template <class C>
static inline I add_pairs(I run, int i, B w, B a) {
  static_assert(kRun<C> * 2 * 127 * C::kMost <= 32767);
  const B u = C::kSigned ? _mm256_abs_epi8(w) : w;
  const B pairs = _mm256_maddubs_epi16(u, C::kSigned ? _mm256_sign_epi8(a, w) : a);
  return i % kRun<C> == 0 ? pairs : _mm256_add_epi16(run, pairs);
}

// total += the products of step i of a block; `run` is kept between steps.
template <class C>
static inline void dot_step(I& total, I& run, int i, B w, B a) {
  run = add_pairs<C>(run, i, w, a);
  if (i % kRun<C> == kRun<C> - 1) total = dot_pairs(total, run, _mm256_set1_epi16(1));
}

// The scales of a sub-block as dot_step_scaled takes them: int16, twice.
using SubScale = I;
static inline SubScale sub_scale(I scale) { return bpairs(scale, scale); }

// The same of step i of the kSteps of a sub-block, times its scale; `run` starts from nothing.
inline constexpr bool kSumsStart = false;
template <class C, int kSteps>
static inline void dot_step_scaled(I& total, I& run, int i, B w, B a, SubScale scale) {
  run = add_pairs<C>(run, i, w, a);
  if (i % kRun<C> == kRun<C> - 1 || i == kSteps - 1) total = dot_pairs(total, run, scale);
}

static inline X xbias_signed(X a) { return a; }

}  // namespace pyllamacpp::cpu::avx2

#include "cpu/simd/column_sums.h"
