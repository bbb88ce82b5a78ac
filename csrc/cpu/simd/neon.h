// The vocabulary of every AArch64 CPU: byte products by widening multiplication.
#pragma once

#include "cpu/simd/neon_words.h"

namespace pyllamacpp::cpu::neon {

static inline I dot_signed(I acc, B w, B a) { return vpadalq_s16(acc, pair_products(w, a)); }
// w at most 127: the same bytes signed.
static inline I dot(I acc, B w, B a) { return dot_signed(acc, w, a); }

// acc + the sum of four products per lane, each pair times its int16 of s; w at most 127.
static inline Y yscaled_signed(Y acc, X w, X a, X s) {
  for (int h = 0; h < 2; ++h)
    acc.val[h] = dot_words(acc.val[h], pair_products(w.val[h], a.val[h]), as_words(s.val[h]));
  return acc;
}
static inline Y yscaled(Y acc, X w, X a, X s) { return yscaled_signed(acc, w, a, s); }

}  // namespace pyllamacpp::cpu::neon

#include "cpu/simd/neon_columns.h"
