// The vocabulary in Advanced SIMD of AArch64: four lanes. What all NEON tiers share; a tier's own
// header adds the products of bytes and the order of a panel.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

inline constexpr int W = 4;
inline constexpr int kSignedBias = 0;
inline constexpr int kTilePanels = 2;
inline constexpr int kFloatTileRows = 4;
inline constexpr int kFloatTileCols = 2;
inline constexpr int kQueryTile = 2;
inline constexpr int kValueVectors = 4;

using F = float32x4_t;
using I = int32x4_t;
using B = uint8x16_t;
using X = uint8x16x2_t;
using Y = int32x4x2_t;

// The first n of W numbers, then zeros; nothing beyond them is read.
template <class T>
static inline void copy_part(T* to, const T* from, int n) {
  for (int i = 0; i < n; ++i) to[i] = from[i];
}

static inline F splat(float a) { return vdupq_n_f32(a); }
static inline F load(const float* p) { return vld1q_f32(p); }
static inline F load_n(const float* p, int n) {
  if (n == W) return load(p);
  float part[W] = {};
  copy_part(part, p, n);
  return load(part);
}
static inline void store(float* p, F a) { vst1q_f32(p, a); }
static inline void store_n(float* p, F a, int n) {
  if (n == W) return store(p, a);
  float part[W];
  store(part, a);
  copy_part(p, part, n);
}
static inline uint16x4_t load_words(const uint16_t* p, int n) {
  if (n == W) return vld1_u16(p);
  uint16_t part[W] = {};
  copy_part(part, p, n);
  return vld1_u16(part);
}
static inline void store_words(uint16_t* p, uint16x4_t a, int n) {
  if (n == W) return vst1_u16(p, a);
  uint16_t part[W];
  vst1_u16(part, a);
  copy_part(p, part, n);
}
static inline F load_half_n(const uint16_t* p, int n) {
  return vcvt_f32_f16(vreinterpret_f16_u16(load_words(p, n)));
}
static inline F load_half(const uint16_t* p) { return load_half_n(p, W); }
static inline F load_bfloat_n(const uint16_t* p, int n) {
  return vreinterpretq_f32_u32(vshll_n_u16(load_words(p, n), 16));
}
static inline F load_bfloat(const uint16_t* p) { return load_bfloat_n(p, W); }
static inline void store_half_n(uint16_t* p, F a, int n) {
  store_words(p, vreinterpret_u16_f16(vcvt_f16_f32(a)), n);
}
static inline void store_half(uint16_t* p, F a) { store_half_n(p, a, W); }
static inline void store_bfloat_n(uint16_t* p, F a, int n) {
  const uint32x4_t bits = vreinterpretq_u32_f32(a);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  const uint32x4_t kept = vbslq_u32(vceqq_f32(a, a), rounded, quiet);
  store_words(p, vshrn_n_u32(kept, 16), n);
}
static inline F splat_half(uint16_t h) { return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))); }
static inline uint16_t half_of(float a) {
  return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(a))), 0);
}
static inline F add(F a, F b) { return vaddq_f32(a, b); }
static inline F sub(F a, F b) { return vsubq_f32(a, b); }
static inline F mul(F a, F b) { return vmulq_f32(a, b); }
static inline F div(F a, F b) { return vdivq_f32(a, b); }
static inline F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
// b where either is NaN, as on the other tiers; FMAX would give NaN and FMAXNM the number.
static inline F max(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline F min(F a, F b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline F abs(F a) { return vabsq_f32(a); }
static inline float sum(F a) {
  const float32x2_t s = vadd_f32(vget_low_f32(a), vget_high_f32(a));
  return vget_lane_f32(s, 0) + vget_lane_f32(s, 1);
}
static inline float largest(F a) { return vmaxnmvq_f32(a); }
static inline F round(F a) { return vrndnq_f32(a); }
static inline I to_int(F a) { return vcvtnq_s32_f32(a); }
static inline F to_float(I a) { return vcvtq_f32_s32(a); }
static inline F scale_exp2(F a, F n) {
  const int32x4_t e = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
  return vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32(e, 23)));
}
static inline F zero_below(F a, F x, F bound) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), vcltq_f32(x, bound)));
}

static inline F where_less(F x, F y, F yes, F no) { return vbslq_f32(vcltq_f32(x, y), yes, no); }
static inline F gather(const float* table, I a) {
  const float lanes[W] = {table[vgetq_lane_s32(a, 0)], table[vgetq_lane_s32(a, 1)],
                          table[vgetq_lane_s32(a, 2)], table[vgetq_lane_s32(a, 3)]};
  return load(lanes);
}

static inline I isplat(int32_t a) { return vdupq_n_s32(a); }
static inline I iadd(I a, I b) { return vaddq_s32(a, b); }
static inline I isub(I a, I b) { return vsubq_s32(a, b); }
static inline I imul(I a, I b) { return vmulq_s32(a, b); }
static inline uint8x8_t load_four(const void* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return vreinterpret_u8_u32(vdup_n_u32(word));
}
static inline I load_i8(const int8_t* p) {
  return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(load_four(p)))));
}
static inline void store_i8(int8_t* p, I a) {
  const int16x4_t words = vmovn_s32(a);
  const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
  const uint32_t word = vget_lane_u32(vreinterpret_u32_s8(bytes), 0);
  std::memcpy(p, &word, sizeof word);
}
// The nibbles of W bytes: load_u8, then the low or the high ones.
static inline I load_u8(const uint8_t* p) {
  return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(load_four(p)))));
}
static inline I iand(I a, int32_t mask) { return vandq_s32(a, vdupq_n_s32(mask)); }
static inline I ior(I a, I b) { return vorrq_s32(a, b); }
static inline I ishl(I a, int n) { return vshlq_s32(a, vdupq_n_s32(n)); }
static inline I ishr(I a, int n) {
  return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-n)));
}
static inline I ilow4(I a) { return iand(a, 15); }
static inline I ihigh4(I a) { return ishr(a, 4); }

static inline B bload(const void* p) { return vld1q_u8(static_cast<const uint8_t*>(p)); }
static inline void bstore(void* p, B a) { vst1q_u8(static_cast<uint8_t*>(p), a); }
static inline B bsplat4(const void* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return vreinterpretq_u8_u32(vdupq_n_u32(word));
}
static inline B bor(B a, B b) { return vorrq_u8(a, b); }
static inline B bmove(B a, int from, int to, int mask) {
  return vandq_u8(vshlq_u8(a, vdupq_n_s8(int8_t(to - from))), vdupq_n_u8(uint8_t(mask)));
}
static inline B lookup(B a, const uint8_t* table) { return vqtbl1q_u8(vld1q_u8(table), a); }
static inline int8x16_t as_signed(B a) { return vreinterpretq_s8_u8(a); }
static inline int16x8_t as_words(B a) { return vreinterpretq_s16_u8(a); }
// Pairs of byte products. |w| <= 128 and |a| <= 127: at most 2 * 128 * 127 = 32512, inside int16.
static inline int16x8_t pair_products(B w, B a) {
  const int16x8_t low = vmull_s8(vget_low_s8(as_signed(w)), vget_low_s8(as_signed(a)));
  return vpaddq_s16(low, vmull_high_s8(as_signed(w), as_signed(a)));
}
static inline I dot_words(I acc, int16x8_t a, int16x8_t b) {
  const int32x4_t low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
  return vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(a, b)));
}
// First the four low numbers, then the four high ones, so that dot_pairs multiplies by lanes.
static inline B bpairs(I low, I high) {
  return vreinterpretq_u8_s16(vuzp1q_s16(vreinterpretq_s16_s32(low), vreinterpretq_s16_s32(high)));
}
static inline I dot_pairs(I acc, B a, B b) {
  const int16x4_t pair = vget_low_s16(as_words(b));
  acc = vmlal_lane_s16(acc, vget_low_s16(as_words(a)), pair, 0);
  return vmlal_high_lane_s16(acc, as_words(a), pair, 1);
}
static inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
// Of what is read once: caches beyond the first keep what they hold.
static inline void prefetch_once(const void* p) { __builtin_prefetch(p, 0, 0); }

static inline X xload(const void* p) {
  const uint8_t* bytes = static_cast<const uint8_t*>(p);
  return {{vld1q_u8(bytes), vld1q_u8(bytes + 16)}};
}
static inline void xstore(void* p, X a) {
  uint8_t* bytes = static_cast<uint8_t*>(p);
  vst1q_u8(bytes, a.val[0]);
  vst1q_u8(bytes + 16, a.val[1]);
}
static inline X xnibbles(const uint8_t* p) {
  const uint8x16_t q = vld1q_u8(p);
  return {{vandq_u8(q, vdupq_n_u8(15)), vshrq_n_u8(q, 4)}};
}
static inline X xbits(const uint8_t* p, uint8_t value) {
  const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  const uint8x16_t low = vcombine_u8(vdup_n_u8(p[0]), vdup_n_u8(p[1]));
  const uint8x16_t high = vcombine_u8(vdup_n_u8(p[2]), vdup_n_u8(p[3]));
  const uint8x16_t set = vdupq_n_u8(value);
  return {{vandq_u8(vtstq_u8(low, bit), set), vandq_u8(vtstq_u8(high, bit), set)}};
}
static inline X xlookup(X a, const uint8_t* table) {
  return {{lookup(a.val[0], table), lookup(a.val[1], table)}};
}
static inline X xand(X a, uint8_t mask) {
  return {{vandq_u8(a.val[0], vdupq_n_u8(mask)), vandq_u8(a.val[1], vdupq_n_u8(mask))}};
}
static inline X xor_(X a, X b) {
  return {{vorrq_u8(a.val[0], b.val[0]), vorrq_u8(a.val[1], b.val[1])}};
}
static inline X xshl(X a, int n) {
  const int8x16_t by = vdupq_n_s8(int8_t(n));
  return {{vshlq_u8(a.val[0], by), vshlq_u8(a.val[1], by)}};
}
static inline X xshr(X a, int n) { return xshl(a, -n); }
static inline X xbias_signed(X a) { return a; }
// 16 int16 of 16 int8, or of 8 with each taken twice.
static inline X widen_halves(int8x8_t low, int8x8_t high) {
  return {{vreinterpretq_u8_s16(vmovl_s8(low)), vreinterpretq_u8_s16(vmovl_s8(high))}};
}
static inline X xwiden(const int8_t* p) { return widen_halves(vld1_s8(p), vld1_s8(p + 8)); }
static inline X xwiden_twice(const int8_t* p) {
  const int8x8_t b = vld1_s8(p);
  return widen_halves(vzip1_s8(b, b), vzip2_s8(b, b));
}
// Numbers 2 j and 2 j + 1 of 16 int16, each eight times.
static inline X xpick(X s, int j) {
  const int low = 0x0101 * (4 * j) + 0x0100;  // the two bytes of number 2 j
  const uint8x16_t first = vreinterpretq_u8_u16(vdupq_n_u16(uint16_t(low)));
  const uint8x16_t second = vaddq_u8(first, vdupq_n_u8(2));
  return {{vqtbl2q_u8(s, first), vqtbl2q_u8(s, second)}};
}
static inline Y yzero() { return {{vdupq_n_s32(0), vdupq_n_s32(0)}}; }
// acc + the sum of two int16 products per lane.
static inline Y ypairs(Y acc, X a, X b) {
  for (int h = 0; h < 2; ++h)
    acc.val[h] = dot_words(acc.val[h], as_words(a.val[h]), as_words(b.val[h]));
  return acc;
}
static inline int32_t ysum(Y a) { return vaddvq_s32(vaddq_s32(a.val[0], a.val[1])); }

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
