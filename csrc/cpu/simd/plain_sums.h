// How the tiers whose byte product adds to int32 at once sum the steps of a block.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

template <class C>
static inline I dot_codec(I acc, B w, B a) {
  if constexpr (C::kSigned)
    return dot_signed(acc, w, a);
  else
    return dot(acc, w, a);
}

// total += the products of step i of a block.
template <class C>
static inline void dot_step(I& total, I&, int, B w, B a) {
  total = dot_codec<C>(total, w, a);
}

// The scales of a sub-block as dot_step_scaled takes them.
using SubScale = I;
static inline SubScale sub_scale(I scale) { return scale; }

// The same of step i of the kSteps of a sub-block, times its scale; `sum` is kept between them, and
// what it starts from counts.
inline constexpr bool kSumsStart = true;
template <class C, int kSteps>
static inline void dot_step_scaled(I& total, I& sum, int i, B w, B a, SubScale scale) {
  sum = dot_codec<C>(sum, w, a);
  if (i == kSteps - 1) total = iadd(total, imul(sum, scale));
}

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER

#include "cpu/simd/column_sums.h"
