// What the tiers of eight lanes share: the vocabulary in AVX2, FMA and F16C but for the products
// that AVX-VNNI has instructions for, which avx2.h and avxvnni.h add.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

inline constexpr int W = 8;
inline constexpr int kTilePanels = 1;
inline constexpr int kFloatTileRows = 2;
inline constexpr int kFloatTileCols = 2;
inline constexpr int kQueryTile = 2;
inline constexpr int kValueVectors = 4;

using F = __m256;
using I = __m256i;
using B = __m256i;
using X = __m256i;
using Y = __m256i;

static inline __m256i lane_mask(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline F splat(float a) { return _mm256_set1_ps(a); }
static inline F load(const float* p) { return _mm256_loadu_ps(p); }
static inline F load_n(const float* p, int n) { return _mm256_maskload_ps(p, lane_mask(n)); }
static inline void store(float* p, F a) { _mm256_storeu_ps(p, a); }
static inline void store_n(float* p, F a, int n) { _mm256_maskstore_ps(p, lane_mask(n), a); }
static inline F load_half(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline F load_half_n(const uint16_t* p, int n) {
  uint16_t part[W] = {};
  std::memcpy(part, p, size_t(n) * sizeof *p);
  return load_half(part);
}
static inline F load_bfloat(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
static inline F load_bfloat_n(const uint16_t* p, int n) {
  uint16_t part[W] = {};
  std::memcpy(part, p, size_t(n) * sizeof *p);
  return load_bfloat(part);
}
static inline void store_half(uint16_t* p, F a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline void store_half_n(uint16_t* p, F a, int n) {
  uint16_t part[W];
  store_half(part, a);
  std::memcpy(p, part, size_t(n) * sizeof *p);
}
static inline void store_bfloat_n(uint16_t* p, F a, int n) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_blendv_epi8(_mm256_add_epi32(bits, half), quiet, nan), 16);
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
  std::memcpy(p, &words, size_t(n) * sizeof *p);
}
static inline F splat_half(uint16_t h) { return _mm256_set1_ps(_cvtsh_ss(h)); }
static inline uint16_t half_of(float a) {
  return uint16_t(_cvtss_sh(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline F add(F a, F b) { return _mm256_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
static inline F div(F a, F b) { return _mm256_div_ps(a, b); }
static inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
static inline F max(F a, F b) { return _mm256_max_ps(a, b); }
static inline F min(F a, F b) { return _mm256_min_ps(a, b); }
static inline F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline float sum(F a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float largest(F a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
static inline F round(F a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline I to_int(F a) { return _mm256_cvtps_epi32(a); }
static inline F to_float(I a) { return _mm256_cvtepi32_ps(a); }
static inline F scale_exp2(F a, F n) {
  const __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}
static inline F zero_below(F a, F x, F bound) {
  return _mm256_andnot_ps(_mm256_cmp_ps(x, bound, _CMP_LT_OQ), a);
}

static inline F where_less(F x, F y, F yes, F no) {
  return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(x, y, _CMP_LT_OQ));
}
static inline F gather(const float* table, I a) { return _mm256_i32gather_ps(table, a, 4); }

static inline I isplat(int32_t a) { return _mm256_set1_epi32(a); }
static inline I iadd(I a, I b) { return _mm256_add_epi32(a, b); }
static inline I isub(I a, I b) { return _mm256_sub_epi32(a, b); }
static inline I imul(I a, I b) { return _mm256_mullo_epi32(a, b); }
static inline I load_i8(const int8_t* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
static inline void store_i8(int8_t* p, I a) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
// The nibbles of W bytes: load_u8, then the low or the high ones.
static inline I load_u8(const uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
static inline I ilow4(I a) { return _mm256_and_si256(a, _mm256_set1_epi32(15)); }
static inline I ihigh4(I a) { return _mm256_srli_epi32(a, 4); }
static inline I iand(I a, int32_t mask) { return _mm256_and_si256(a, _mm256_set1_epi32(mask)); }
static inline I ior(I a, I b) { return _mm256_or_si256(a, b); }
static inline I ishl(I a, int n) { return _mm256_slli_epi32(a, n); }
static inline I ishr(I a, int n) { return _mm256_srli_epi32(a, n); }

static inline B bload(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
static inline void bstore(void* p, B a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a); }
static inline B bsplat4(const void* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  return _mm256_set1_epi32(word);
}
static inline B bor(B a, B b) { return _mm256_or_si256(a, b); }
static inline B bmove(B a, int from, int to, int mask) {
  const B moved = from < to ? _mm256_slli_epi16(a, to - from) : _mm256_srli_epi16(a, from - to);
  return _mm256_and_si256(moved, _mm256_set1_epi8(int8_t(mask)));
}
static inline B lookup(B a, const uint8_t* table) {
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), a);
}
static inline B bpairs(I low, I high) {
  return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa);
}
static inline void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
}
// Of what is read once: caches beyond the first keep what they hold.
static inline void prefetch_once(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_NTA);
}

static inline X xload(const void* p) { return bload(p); }
static inline void xstore(void* p, X a) { bstore(p, a); }
static inline X xnibbles(const uint8_t* p) {
  const __m128i q = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return bmove(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), 0, 0, 15);
}
static inline X xbits(const uint8_t* p, uint8_t value) {
  const __m256i byte_of =
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bit = _mm256_set1_epi64x(int64_t(0x8040201008040201));
  const __m256i bytes = _mm256_and_si256(_mm256_shuffle_epi8(bsplat4(p), byte_of), bit);
  return _mm256_and_si256(_mm256_cmpeq_epi8(bytes, bit), _mm256_set1_epi8(int8_t(value)));
}
static inline X xlookup(X a, const uint8_t* table) { return lookup(a, table); }
static inline X xand(X a, uint8_t mask) {
  return _mm256_and_si256(a, _mm256_set1_epi8(int8_t(mask)));
}
static inline X xor_(X a, X b) { return _mm256_or_si256(a, b); }
static inline X xshr(X a, int n) { return xand(_mm256_srli_epi16(a, n), uint8_t(0xff >> n)); }
static inline X xshl(X a, int n) { return xand(_mm256_slli_epi16(a, n), uint8_t(0xff << n)); }
// 16 int16 of 16 int8, or of 8 with each taken twice.
static inline X xwiden(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline X xwiden_twice(const int8_t* p) {
  const __m128i b = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(b, b));
}
static inline Y yzero() { return _mm256_setzero_si256(); }
// acc + the sum of two int16 products per lane: the tier's.
static inline I dot_pairs(I acc, B a, B b);
static inline Y ypairs(Y acc, X a, X b) { return dot_pairs(acc, a, b); }
// acc + the sum of four products per lane, each pair times its int16 of s; w unsigned (at most
// 127), or signed and not biased.
static inline Y yscaled(Y acc, X w, X a, X s) { return ypairs(acc, _mm256_maddubs_epi16(w, a), s); }
static inline Y yscaled_signed(Y acc, X w, X a, X s) {
  return yscaled(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(a, w), s);
}
// Numbers 2 j and 2 j + 1 of 16 int16, each eight times.
static inline X xpick(X s, int j) {
  const X half =
      j < 4 ? _mm256_permute2x128_si256(s, s, 0x00) : _mm256_permute2x128_si256(s, s, 0x11);
  const int low = 0x0101 * (4 * (j % 4)) + 0x0100;  // the two bytes of number 2 j in its half
  return _mm256_shuffle_epi8(
      half, _mm256_set_m128i(_mm_set1_epi16(int16_t(low + 0x0202)), _mm_set1_epi16(int16_t(low))));
}
static inline int32_t ysum(Y a) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
// dst[j][r] = the j-th four bytes of row r: the transpose of 8 x 8 words.
static inline void interleave(const uint8_t (*rows)[32], uint8_t* dst) {
  __m256i r[8], s[8];
  for (int i = 0; i < 8; ++i) r[i] = bload(rows[i]);
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int h = 0; h < 2; ++h) {
      r[i + 2 * h] = _mm256_unpacklo_epi64(s[i + h], s[i + h + 2]);
      r[i + 2 * h + 1] = _mm256_unpackhi_epi64(s[i + h], s[i + h + 2]);
    }
  for (int j = 0; j < 4; ++j) {
    bstore(dst + 32 * j, _mm256_permute2x128_si256(r[j], r[j + 4], 0x20));
    bstore(dst + 32 * (j + 4), _mm256_permute2x128_si256(r[j], r[j + 4], 0x31));
  }
}

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
