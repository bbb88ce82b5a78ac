// The vocabulary in portable C++: four lanes as plain arrays. Its table is the oracle of the
// others.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "base/half.h"

namespace pyllamacpp::cpu::scalar {

inline constexpr int W = 4;            // lanes: floats or int32 per vector
inline constexpr int kSignedBias = 0;  // what signed weight bytes are offset by for dot_signed
inline constexpr int kTilePanels = 1;  // register tiles of the matrix products
inline constexpr int kTileCols = 2;
inline constexpr int kTileColsK = 2;
inline constexpr int kFloatTileRows = 2;
inline constexpr int kFloatTileCols = 2;
inline constexpr int kQueryTile = 2;  // queries per attention tile
inline constexpr int kValueVectors = 2;

// NOLINTBEGIN(cppcoreguidelines-pro-type-member-init)
struct F {
  float v[W];
};
struct I {
  int32_t v[W];
};
struct B {
  uint8_t v[4 * W];
};
struct X {  // 32 bytes, for unpacking
  uint8_t v[32];
};
struct Y {  // eight int32: four bytes of X each
  int32_t v[8];
};
// NOLINTEND(cppcoreguidelines-pro-type-member-init)

#define PYL_EACH(type, expr)                 \
  type r;                                    \
  for (int i = 0; i < W; ++i) r.v[i] = expr; \
  return r

static inline F splat(float a) { PYL_EACH(F, a); }
static inline F load(const float* p) { PYL_EACH(F, p[i]); }
static inline F load_n(const float* p, int n) { PYL_EACH(F, i < n ? p[i] : 0.0f); }
static inline void store_n(float* p, F a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
static inline void store(float* p, F a) { store_n(p, a, W); }
static inline F load_half(const uint16_t* p) { PYL_EACH(F, half_to_float(p[i])); }
static inline F load_half_n(const uint16_t* p, int n) {
  PYL_EACH(F, i < n ? half_to_float(p[i]) : 0.0f);
}
static inline F load_bfloat(const uint16_t* p) { PYL_EACH(F, bfloat_to_float(p[i])); }
static inline F load_bfloat_n(const uint16_t* p, int n) {
  PYL_EACH(F, i < n ? bfloat_to_float(p[i]) : 0.0f);
}
static inline void store_half_n(uint16_t* p, F a, int n) {
  for (int i = 0; i < n; ++i) p[i] = float_to_half(a.v[i]);
}
static inline void store_half(uint16_t* p, F a) { store_half_n(p, a, W); }
static inline void store_bfloat_n(uint16_t* p, F a, int n) {  // to nearest even; NaN stays
  for (int i = 0; i < n; ++i) p[i] = float_to_bfloat(a.v[i]);
}
static inline F splat_half(uint16_t h) { return splat(half_to_float(h)); }
static inline uint16_t half_of(float a) { return float_to_half(a); }
static inline F add(F a, F b) { PYL_EACH(F, a.v[i] + b.v[i]); }
static inline F sub(F a, F b) { PYL_EACH(F, a.v[i] - b.v[i]); }
static inline F mul(F a, F b) { PYL_EACH(F, a.v[i] * b.v[i]); }
static inline F div(F a, F b) { PYL_EACH(F, a.v[i] / b.v[i]); }
// Two roundings here: a portable fused operation would be a library call on older CPUs.
static inline F fma(F a, F b, F c) { PYL_EACH(F, a.v[i] * b.v[i] + c.v[i]); }
static inline F max(F a, F b) { PYL_EACH(F, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
static inline F min(F a, F b) { PYL_EACH(F, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
static inline F abs(F a) { PYL_EACH(F, fabsf(a.v[i])); }
static inline float sum(F a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
static inline float largest(F a) {
  const float x = a.v[0] > a.v[1] ? a.v[0] : a.v[1];
  const float y = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
  return x > y ? x : y;
}
// Nearest even for |a| < 2^22: adding 1.5 * 2^23 leaves the integer in the low bits.
static inline F round(F a) { PYL_EACH(F, (a.v[i] + 12582912.0f) - 12582912.0f); }
// The integer stands in the low bits of the sum; whatever is not |a| < 2^22 gives any value.
static inline I to_int(F a) {
  PYL_EACH(I, int32_t(std::bit_cast<uint32_t>(a.v[i] + 12582912.0f) - 0x4b400000u));
}
static inline F to_float(I a) { PYL_EACH(F, float(a.v[i])); }
// a * 2^n for integral n in [-126, 127].
static inline F scale_exp2(F a, F n) {
  PYL_EACH(F, a.v[i] * std::bit_cast<float>(uint32_t(int32_t(n.v[i]) + 127) << 23));
}
// a where x >= bound (or x is NaN), else 0.
static inline F zero_below(F a, F x, F bound) { PYL_EACH(F, x.v[i] < bound.v[i] ? 0.0f : a.v[i]); }

// yes where x < y, else no.
static inline F where_less(F x, F y, F yes, F no) {
  PYL_EACH(F, x.v[i] < y.v[i] ? yes.v[i] : no.v[i]);
}
// table[a] lane by lane.
static inline F gather(const float* table, I a) { PYL_EACH(F, table[a.v[i]]); }

static inline I isplat(int32_t a) { PYL_EACH(I, a); }
static inline I iadd(I a, I b) { PYL_EACH(I, a.v[i] + b.v[i]); }
static inline I isub(I a, I b) { PYL_EACH(I, a.v[i] - b.v[i]); }
static inline I imul(I a, I b) { PYL_EACH(I, a.v[i] * b.v[i]); }
static inline I load_i8(const int8_t* p) { PYL_EACH(I, p[i]); }
static inline void store_i8(int8_t* p, I a) {  // of numbers that fit
  for (int i = 0; i < W; ++i) p[i] = int8_t(a.v[i]);
}
// The nibbles of W bytes: load_u8, then the low or the high ones.
static inline I load_u8(const uint8_t* p) { PYL_EACH(I, p[i]); }
static inline I iand(I a, int32_t mask) { PYL_EACH(I, a.v[i] & mask); }
static inline I ior(I a, I b) { PYL_EACH(I, a.v[i] | b.v[i]); }
static inline I ishl(I a, int n) { PYL_EACH(I, int32_t(uint32_t(a.v[i]) << n)); }
static inline I ishr(I a, int n) { PYL_EACH(I, int32_t(uint32_t(a.v[i]) >> n)); }
static inline I ilow4(I a) { PYL_EACH(I, a.v[i] & 15); }
static inline I ihigh4(I a) { PYL_EACH(I, a.v[i] >> 4); }

#define PYL_EACH_BYTE(type, n, expr)                    \
  type r;                                               \
  for (int i = 0; i < (n); ++i) r.v[i] = uint8_t(expr); \
  return r

static inline B bload(const void* p) {
  B r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
static inline void bstore(void* p, B a) { std::memcpy(p, a.v, sizeof a.v); }
// The four bytes at p in every lane.
static inline B bsplat4(const void* p) {
  PYL_EACH_BYTE(B, 4 * W, static_cast<const uint8_t*>(p)[i % 4]);
}
static inline B bor(B a, B b) { PYL_EACH_BYTE(B, 4 * W, a.v[i] | b.v[i]); }
// In each byte, bit `from` moved to bit `to` with its neighbours, of which `mask` says what stays.
static inline B bmove(B a, int from, int to, int mask) {
  PYL_EACH_BYTE(B, 4 * W, (a.v[i] >> from << to) & mask);
}
// table[a]; a below 16.
static inline B lookup(B a, const uint8_t* table) { PYL_EACH_BYTE(B, 4 * W, table[a.v[i]]); }
// acc + the sum of four products per lane; w unsigned (at most 127), a signed.
static inline I dot(I acc, B w, B a) {
  for (int i = 0; i < W; ++i)
    for (int j = 0; j < 4; ++j) acc.v[i] += int(w.v[4 * i + j]) * int(int8_t(a.v[4 * i + j]));
  return acc;
}
// The same for signed w, stored with kSignedBias added.
static inline I dot_signed(I acc, B w, B a) {
  for (int i = 0; i < W; ++i)
    for (int j = 0; j < 4; ++j)
      acc.v[i] += int(int8_t(w.v[4 * i + j])) * int(int8_t(a.v[4 * i + j]));
  return acc;
}
// Two numbers that fit int16 for each lane, as dot_pairs takes them: here side by side.
static inline B bpairs(I low, I high) {
  int16_t pairs[2 * W];
  for (int i = 0; i < 2 * W; ++i) pairs[i] = int16_t(i % 2 ? high.v[i / 2] : low.v[i / 2]);
  B r;
  std::memcpy(r.v, pairs, sizeof r.v);
  return r;
}
// acc + the sum of two int16 products per lane; a of bpairs, b the same pair in every lane.
static inline I dot_pairs(I acc, B a, B b) {
  int16_t x[2 * W], y[2 * W];
  std::memcpy(x, a.v, sizeof x);
  std::memcpy(y, b.v, sizeof y);
  for (int i = 0; i < W; ++i)
    acc.v[i] += int(x[2 * i]) * int(y[2 * i]) + int(x[2 * i + 1]) * int(y[2 * i + 1]);
  return acc;
}
static inline void prefetch(const void*) {}
static inline void prefetch_once(const void*) {}

static inline X xload(const void* p) {
  X r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
static inline void xstore(void* p, X a) { std::memcpy(p, a.v, sizeof a.v); }
// 16 bytes: their low nibbles, then their high ones.
static inline X xnibbles(const uint8_t* p) {
  PYL_EACH_BYTE(X, 32, i < 16 ? p[i] & 15 : p[i - 16] >> 4);
}
// 32 bits, lowest first: `value` where a bit is set, else 0.
static inline X xbits(const uint8_t* p, uint8_t value) {
  PYL_EACH_BYTE(X, 32, p[i / 8] >> (i % 8) & 1 ? value : 0);
}
static inline X xlookup(X a, const uint8_t* table) { PYL_EACH_BYTE(X, 32, table[a.v[i]]); }
static inline X xand(X a, uint8_t mask) { PYL_EACH_BYTE(X, 32, a.v[i] & mask); }
static inline X xor_(X a, X b) { PYL_EACH_BYTE(X, 32, a.v[i] | b.v[i]); }
static inline X xshr(X a, int n) { PYL_EACH_BYTE(X, 32, a.v[i] >> n); }
static inline X xshl(X a, int n) { PYL_EACH_BYTE(X, 32, a.v[i] << n); }
static inline X xbias_signed(X a) { return a; }

#define PYL_EACH16(expr)                               \
  int16_t out[16];                                     \
  for (int i = 0; i < 16; ++i) out[i] = int16_t(expr); \
  X r;                                                 \
  std::memcpy(r.v, out, sizeof out);                   \
  return r
// 16 int16 of 16 int8, or of 8 with each taken twice.
static inline X xwiden(const int8_t* p) { PYL_EACH16(p[i]); }
static inline X xwiden_twice(const int8_t* p) { PYL_EACH16(p[i / 2]); }
// Numbers 2 j and 2 j + 1 of 16 int16, each eight times.
static inline X xpick(X s, int j) {
  int16_t in[16];
  std::memcpy(in, s.v, sizeof in);
  PYL_EACH16(in[2 * j + i / 8]);
}
#undef PYL_EACH16
static inline Y yzero() { return {{0, 0, 0, 0, 0, 0, 0, 0}}; }
// acc + the sum of two int16 products per lane.
static inline Y ypairs(Y acc, X a, X b) {
  int16_t x[16], y[16];
  std::memcpy(x, a.v, sizeof x);
  std::memcpy(y, b.v, sizeof y);
  for (int i = 0; i < 16; ++i) acc.v[i / 2] += int(x[i]) * int(y[i]);
  return acc;
}
// acc + the sum of four products per lane, each pair times its int16 of s; w unsigned (at most
// 127), or signed and not biased.
static inline Y yscaled(Y acc, X w, X a, X s) {
  int16_t scale[16];
  std::memcpy(scale, s.v, sizeof scale);
  for (int i = 0; i < 32; ++i) acc.v[i / 4] += int(w.v[i]) * int(int8_t(a.v[i])) * scale[i / 2];
  return acc;
}
static inline Y yscaled_signed(Y acc, X w, X a, X s) {
  int16_t scale[16];
  std::memcpy(scale, s.v, sizeof scale);
  for (int i = 0; i < 32; ++i)
    acc.v[i / 4] += int(int8_t(w.v[i])) * int(int8_t(a.v[i])) * scale[i / 2];
  return acc;
}
static inline int32_t ysum(Y a) {
  int32_t total = 0;
  for (int32_t v : a.v) total += v;
  return total;
}
// dst[j][r] = the j-th four bytes of row r, j < 8, r < W.
static inline void interleave(const uint8_t (*rows)[32], uint8_t* dst) {
  for (int j = 0; j < 8; ++j)
    for (int r = 0; r < W; ++r) std::memcpy(dst + 4 * (j * W + r), rows[r] + 4 * j, 4);
}

#undef PYL_EACH
#undef PYL_EACH_BYTE

}  // namespace pyllamacpp::cpu::scalar

#include "cpu/simd/plain_sums.h"
