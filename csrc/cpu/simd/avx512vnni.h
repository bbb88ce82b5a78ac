// The vocabulary in AVX-512 (F, BW, DQ, VL) with VNNI: sixteen lanes.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace pyllamacpp::cpu::avx512vnni {

inline constexpr int W = 16;
// vpdpbusd takes unsigned weights: signed ones are stored with 128 added, which the products undo
// with the activations' sum.
inline constexpr int kSignedBias = 128;
inline constexpr int kTilePanels = 2;
inline constexpr int kTileCols = 6;
inline constexpr int kTileColsK = 4;
inline constexpr int kFloatTileRows = 4;
inline constexpr int kFloatTileCols = 3;
inline constexpr int kQueryTile = 8;
inline constexpr int kValueVectors = 4;

using F = __m512;
using I = __m512i;
using B = __m512i;
using X = __m256i;
using Y = __m256i;

static inline __mmask16 lane_mask(int n) { return __mmask16((1u << n) - 1); }

static inline F splat(float a) { return _mm512_set1_ps(a); }
static inline F load(const float* p) { return _mm512_loadu_ps(p); }
static inline F load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(lane_mask(n), p); }
static inline void store(float* p, F a) { _mm512_storeu_ps(p, a); }
static inline void store_n(float* p, F a, int n) { _mm512_mask_storeu_ps(p, lane_mask(n), a); }
static inline F load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline F load_half_n(const uint16_t* p, int n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lane_mask(n), p));
}
static inline F widen_bfloat(__m256i a) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16));
}
static inline F load_bfloat(const uint16_t* p) {
  return widen_bfloat(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline F load_bfloat_n(const uint16_t* p, int n) {
  return widen_bfloat(_mm256_maskz_loadu_epi16(lane_mask(n), p));
}
static inline void store_half(uint16_t* p, F a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline void store_half_n(uint16_t* p, F a, int n) {
  _mm256_mask_storeu_epi16(p, lane_mask(n), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline void store_bfloat_n(uint16_t* p, F a, int n) {
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  const __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  _mm256_mask_storeu_epi16(p, lane_mask(n), _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
}
static inline F splat_half(uint16_t h) { return _mm512_set1_ps(_cvtsh_ss(h)); }
static inline uint16_t half_of(float a) {
  return uint16_t(_cvtss_sh(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline F add(F a, F b) { return _mm512_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
static inline F div(F a, F b) { return _mm512_div_ps(a, b); }
static inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
static inline F max(F a, F b) { return _mm512_max_ps(a, b); }
static inline F min(F a, F b) { return _mm512_min_ps(a, b); }
static inline F abs(F a) { return _mm512_abs_ps(a); }
static inline float sum(F a) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float largest(F a) { return _mm512_reduce_max_ps(a); }
static inline F round(F a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline I to_int(F a) { return _mm512_cvtps_epi32(a); }
static inline F to_float(I a) { return _mm512_cvtepi32_ps(a); }
static inline F scale_exp2(F a, F n) { return _mm512_scalef_ps(a, n); }
static inline F zero_below(F a, F x, F bound) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), a);
}

static inline F where_less(F x, F y, F yes, F no) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), no, yes);
}
static inline F gather(const float* table, I a) { return _mm512_i32gather_ps(a, table, 4); }

static inline I isplat(int32_t a) { return _mm512_set1_epi32(a); }
static inline I iadd(I a, I b) { return _mm512_add_epi32(a, b); }
static inline I isub(I a, I b) { return _mm512_sub_epi32(a, b); }
static inline I imul(I a, I b) { return _mm512_mullo_epi32(a, b); }
static inline I load_i8(const int8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline void store_i8(int8_t* p, I a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
}
// The nibbles of W bytes: load_u8, then the low or the high ones.
static inline I load_u8(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline I ilow4(I a) { return _mm512_and_si512(a, _mm512_set1_epi32(15)); }
static inline I ihigh4(I a) { return _mm512_srli_epi32(a, 4); }
static inline I iand(I a, int32_t mask) { return _mm512_and_si512(a, _mm512_set1_epi32(mask)); }
static inline I ior(I a, I b) { return _mm512_or_si512(a, b); }
static inline I ishl(I a, int n) { return _mm512_slli_epi32(a, unsigned(n)); }
static inline I ishr(I a, int n) { return _mm512_srli_epi32(a, unsigned(n)); }

static inline B bload(const void* p) { return _mm512_loadu_si512(p); }
static inline void bstore(void* p, B a) { _mm512_storeu_si512(p, a); }
static inline B bsplat4(const void* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}
static inline B bor(B a, B b) { return _mm512_or_si512(a, b); }
static inline B bmove(B a, int from, int to, int mask) {
  const unsigned left = unsigned(to - from), right = unsigned(from - to);
  const B moved = from < to ? _mm512_slli_epi16(a, left) : _mm512_srli_epi16(a, right);
  return _mm512_and_si512(moved, _mm512_set1_epi8(int8_t(mask)));
}
static inline B lookup(B a, const uint8_t* table) {
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), a);
}
static inline I dot(I acc, B w, B a) {
#if defined(__GNUC__)
  // As an intrinsic in an unrolled tile, gcc 12 spills the accumulators and halves the speed.
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(a));
  return acc;
#else
  return _mm512_dpbusd_epi32(acc, w, a);
#endif
}
static inline I dot_signed(I acc, B w, B a) { return dot(acc, w, a); }
static inline B bpairs(I low, I high) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_slli_epi32(high, 16));
}
static inline I dot_pairs(I acc, B a, B b) { return _mm512_dpwssd_epi32(acc, a, b); }
static inline void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
}
// Of what is read once: caches beyond the first keep what they hold.
static inline void prefetch_once(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_NTA);
}

static inline X xload(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
static inline void xstore(void* p, X a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a); }
static inline X xand(X a, uint8_t mask) {
  return _mm256_and_si256(a, _mm256_set1_epi8(int8_t(mask)));
}
static inline X xnibbles(const uint8_t* p) {
  const __m128i q = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return xand(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), 15);
}
static inline X xbits(const uint8_t* p, uint8_t value) {
  uint32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return _mm256_maskz_set1_epi8(bits, int8_t(value));
}
static inline X xlookup(X a, const uint8_t* table) {
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), a);
}
static inline X xor_(X a, X b) { return _mm256_or_si256(a, b); }
static inline X xshr(X a, int n) { return xand(_mm256_srli_epi16(a, n), uint8_t(0xff >> n)); }
static inline X xshl(X a, int n) { return xand(_mm256_slli_epi16(a, n), uint8_t(0xff << n)); }
static inline X xbias_signed(X a) { return _mm256_xor_si256(a, _mm256_set1_epi8(int8_t(0x80))); }
// 16 int16 of 16 int8, or of 8 with each taken twice.
static inline X xwiden(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline X xwiden_twice(const int8_t* p) {
  const __m128i b = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(b, b));
}
static inline Y yzero() { return _mm256_setzero_si256(); }
// Numbers 2 j and 2 j + 1 of 16 int16, each eight times.
static inline X xpick(X s, int j) {
  const __m128i low = _mm_set1_epi16(int16_t(2 * j)), high = _mm_set1_epi16(int16_t(2 * j + 1));
  return _mm256_permutexvar_epi16(_mm256_set_m128i(high, low), s);
}
// acc + the sum of two int16 products per lane.
static inline Y ypairs(Y acc, X a, X b) { return _mm256_dpwssd_epi32(acc, a, b); }
// acc + the sum of four products per lane, each pair times its int16 of s; w unsigned (at most
// 127), or signed and not biased.
static inline Y yscaled(Y acc, X w, X a, X s) { return ypairs(acc, _mm256_maddubs_epi16(w, a), s); }
static inline Y yscaled_signed(Y acc, X w, X a, X s) {
  return yscaled(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(a, w), s);
}
static inline int32_t ysum(Y a) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
// dst[j][r] = the j-th four bytes of row r: the transpose of 16 x 8 words. Rows r and r + 8 share
// a register, so that one 8 x 8 transpose within 256-bit halves serves both.
static inline void interleave(const uint8_t (*rows)[32], uint8_t* dst) {
  __m512i r[8], s[8];
  for (int i = 0; i < 8; ++i)
    r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(xload(rows[i])), xload(rows[i + 8]), 1);
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int h = 0; h < 2; ++h) {
      r[i + 2 * h] = _mm512_unpacklo_epi64(s[i + h], s[i + h + 2]);
      r[i + 2 * h + 1] = _mm512_unpackhi_epi64(s[i + h], s[i + h + 2]);
    }
  // Lane q of r[j] (j < 4) holds word j + 4 * (q & 1) of rows 0-3 or, in r[j + 4], of rows 4-7;
  // lanes 2 and 3 the same of rows 8-15.
  const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
  const __m512i odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
  for (int j = 0; j < 4; ++j) {
    bstore(dst + 64 * j, _mm512_permutex2var_epi64(r[j], even, r[j + 4]));
    bstore(dst + 64 * (j + 4), _mm512_permutex2var_epi64(r[j], odd, r[j + 4]));
  }
}

}  // namespace pyllamacpp::cpu::avx512vnni

#include "cpu/simd/plain_sums.h"
