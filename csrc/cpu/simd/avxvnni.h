// The vocabulary of AVX2 with VNNI: byte products in one instruction, exact.
#pragma once

#include "cpu/simd/avx2_words.h"

namespace pyllamacpp::cpu::avxvnni {

// vpdpbusd takes unsigned weights: signed ones are stored with 128 added, which the products undo
// with the activations' sum.
inline constexpr int kSignedBias = 128;
inline constexpr int kTileCols = 6;
inline constexpr int kTileColsK = 4;

// Tests on a CPU with AVX-512 alone run this tier by the same instructions as AVX-512 encodes them.
static inline I dot(I acc, B w, B a) {
#ifdef PYLLAMACPP_AVXVNNI_BY_AVX512
  return _mm256_dpbusd_epi32(acc, w, a);
#else
  return _mm256_dpbusd_avx_epi32(acc, w, a);
#endif
}
static inline I dot_signed(I acc, B w, B a) { return dot(acc, w, a); }
static inline I dot_pairs(I acc, B a, B b) {
#ifdef PYLLAMACPP_AVXVNNI_BY_AVX512
  return _mm256_dpwssd_epi32(acc, a, b);
#else
  return _mm256_dpwssd_avx_epi32(acc, a, b);
#endif
}

static inline X xbias_signed(X a) { return _mm256_xor_si256(a, _mm256_set1_epi8(int8_t(0x80))); }

}  // namespace pyllamacpp::cpu::avxvnni

#include "cpu/simd/plain_sums.h"
