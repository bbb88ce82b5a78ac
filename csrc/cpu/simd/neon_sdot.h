// What the NEON tiers with the dot product (SDOT) share: the products of one column.
#pragma once

#include "cpu/simd/neon_words.h"

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

static inline I dot_signed(I acc, B w, B a) { return vdotq_s32(acc, as_signed(w), as_signed(a)); }
// w at most 127: the same bytes signed.
static inline I dot(I acc, B w, B a) { return dot_signed(acc, w, a); }

// acc + the sum of four products per lane, times s, whose eight int16 of a half are alike (xpick
// gives them so); w at most 127.
static inline Y yscaled_signed(Y acc, X w, X a, X s) {
  for (int h = 0; h < 2; ++h) {
    const int32x4_t products = dot_signed(vdupq_n_s32(0), w.val[h], a.val[h]);
    const int32x4_t scale = vmovl_s16(vget_low_s16(as_words(s.val[h])));
    acc.val[h] = vmlaq_s32(acc.val[h], products, scale);
  }
  return acc;
}
static inline Y yscaled(Y acc, X w, X a, X s) { return yscaled_signed(acc, w, a, s); }

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
