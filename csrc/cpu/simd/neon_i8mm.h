// The vocabulary of ARMv8.6 with products of byte matrices: SMMLA multiplies two rows of eight
// bytes by two columns. A step of a panel is eight consecutive weights of two rows, of rows 0 and 1
// in the even steps and of rows 2 and 3 in the odd ones.
#pragma once

#include "cpu/simd/neon_sdot.h"

namespace pyllamacpp::cpu::neon_i8mm {

inline constexpr int kTileCols = 4;
inline constexpr int kTileColsK = 4;
inline constexpr int kStepColumns = 2;  // columns that one product takes
inline constexpr bool kSumsStart = true;

// dst[j][i] = the (j / 2)-th eight bytes of row 2 (j % 2) + i: the interleaving store of 4 x 2
// words, twice.
static inline void interleave(const uint8_t (*rows)[32], uint8_t* dst) {
  for (int h = 0; h < 2; ++h) {
    uint64x2x4_t r;
    for (int i = 0; i < W; ++i) r.val[i] = vreinterpretq_u64_u8(vld1q_u8(rows[i] + 16 * h));
    vst4q_u64(reinterpret_cast<uint64_t*>(dst + 64 * h), r);
  }
}

// The eight bytes at p twice.
static inline B bsplat8(const void* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return vreinterpretq_u8_u64(vdupq_n_u64(word));
}

// The scales of a sub-block, each twice: of rows 0 and 1, of rows 2 and 3.
using SubScale = int32x4x2_t;
static inline SubScale sub_scale(I scale) {
  return {{vzip1q_s32(scale, scale), vzip2q_s32(scale, scale)}};
}

// total += two rows by two columns, [row][column]; codes are at most 127, so signed bytes.
template <class C>
static inline void dot_step(I& total, I&, int, B w, B a) {
  total = vmmlaq_s32(total, as_signed(w), as_signed(a));
}

// NP panels x NC columns. Two columns share two vectors: of rows 0 and 1, [row][column], and of
// rows 2 and 3. A last column alone takes two as well, [row][half of the eight], by SDOT: half of
// an SMMLA would be lost.
template <class C, int NP, int NC>
struct TileSums {
  static constexpr int kVectors = (NC + 1) / 2 * 2;
  I total[NP][kVectors], run[NP][kVectors];

  static constexpr bool alone(int c) { return c + 1 == NC; }

  void start(const I (&from)[NC]) { fill(total, from); }
  // What the sums of a sub-block start from.
  void start_scaled(const I (&from)[NC]) { fill(run, from); }
  // The products of step s of 32 weights with the 32 activations at x[c].
  void add(int, int s, const B (&w)[NP], const int8_t* const (&x)[NC]) {
    for (int c = 0; c < NC; c += 2) {
      const B a = activations(x, c, s);
      for (int p = 0; p < NP; ++p) multiply(total[p][c + s % 2], c, w[p], a);
    }
  }
  // The same of the i-th of the kSteps of a sub-block, times its scales.
  template <int kSteps>
  void add_scaled(int i, int s, const B (&w)[NP], const int8_t* const (&x)[NC],
                  const SubScale (&scale)[NP]) {
    const int h = i % 2;
    for (int c = 0; c < NC; c += 2) {
      const B a = activations(x, c, s);
      for (int p = 0; p < NP; ++p) {
        I& sum = run[p][c + h];
        multiply(sum, c, w[p], a);
        if (i >= kSteps - 2) total[p][c + h] = vmlaq_s32(total[p][c + h], sum, scale[p].val[h]);
      }
    }
  }
  // The sums of column c, by rows.
  I rows(int p, int c) const {
    const I(&sums)[kVectors] = total[p];
    if (alone(c) && c % 2 == 0) return vpaddq_s32(sums[c], sums[c + 1]);
    return c % 2 ? vuzp2q_s32(sums[c - 1], sums[c]) : vuzp1q_s32(sums[c], sums[c + 1]);
  }

 private:
  static void fill(I (&sums)[NP][kVectors], const I (&from)[NC]) {
    for (int c = 0; c < NC; c += 2) {
      const I both = vtrn1q_s32(from[c], alone(c) ? isplat(0) : from[c + 1]);
      for (int p = 0; p < NP; ++p) sums[p][c] = sums[p][c + 1] = both;
    }
  }
  // The eight of columns c and c + 1 that step s takes; of a last column twice.
  static B activations(const int8_t* const* x, int c, int s) {
    if (alone(c)) return bsplat8(x[c] + 8 * (s / 2));
    // Sixteen of each are loaded, which four steps share.
    const uint64x2_t first = vreinterpretq_u64_u8(bload(x[c] + 16 * (s / 4)));
    const uint64x2_t second = vreinterpretq_u64_u8(bload(x[c + 1] + 16 * (s / 4)));
    return vreinterpretq_u8_u64(s / 2 % 2 ? vzip2q_u64(first, second) : vzip1q_u64(first, second));
  }
  static void multiply(I& sum, int c, B w, B a) {
    sum = alone(c) ? dot(sum, w, a) : vmmlaq_s32(sum, as_signed(w), as_signed(a));
  }
};

}  // namespace pyllamacpp::cpu::neon_i8mm
