// What a core of this tier can do at most, to hold the kernels against: tiles of independent
// accumulators over operands in the first cache, and memory read in order.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

// Rounds take turns among a few sets of operands, so that nothing is constant from one to the next.
inline constexpr int kPeakSets = 4;
inline constexpr int kPeakSteps = 8;

// The dot instruction of the matrix products: int8 multiplies and adds done.
static double int_peak(const uint8_t* operands, int64_t rounds, float* sink) {
  constexpr int NP = kTilePanels, NC = kTileCols;
  static_assert(kPeakSets * kPeakSteps * (NP * 4 * W + NC * 4) <= kPeakBytes);
  const uint8_t* activations = operands + kPeakSets * kPeakSteps * NP * 4 * W;
  I acc[NP][NC];
  for (int p = 0; p < NP; ++p)
    for (int c = 0; c < NC; ++c) acc[p][c] = isplat(0);
  for (int64_t r = 0; r < rounds; ++r) {
    const uint8_t* w = operands + r % kPeakSets * kPeakSteps * NP * 4 * W;
    const uint8_t* a = activations + r % kPeakSets * kPeakSteps * NC * 4;
#pragma GCC unroll 8
    for (int s = 0; s < kPeakSteps; ++s) {
      B bytes[NP];
      for (int p = 0; p < NP; ++p) bytes[p] = bload(w + (s * NP + p) * 4 * W);
      for (int c = 0; c < NC; ++c) {
        const B x = bsplat4(a + (s * NC + c) * 4);
        for (int p = 0; p < NP; ++p) acc[p][c] = dot(acc[p][c], bytes[p], x);
      }
    }
  }
  F total = splat(0);
  for (int p = 0; p < NP; ++p)
    for (int c = 0; c < NC; ++c) total = add(total, to_float(acc[p][c]));
  *sink = sum(total);
  return 2.0 * 4 * W * NP * NC * kPeakSteps * double(rounds);
}

// Multiply-adds of floats: multiplies and adds done.
static double float_peak(const uint8_t* operands, int64_t rounds, float* sink) {
  constexpr int NR = 2, NC = 4;
  static_assert(kPeakSets * kPeakSteps * (NR * W + NC) * int64_t(sizeof(float)) <= kPeakBytes);
  const float* rows = reinterpret_cast<const float*>(operands);
  const float* columns = rows + kPeakSets * kPeakSteps * NR * W;
  F acc[NR][NC];
  for (int i = 0; i < NR; ++i)
    for (int c = 0; c < NC; ++c) acc[i][c] = splat(0);
  for (int64_t r = 0; r < rounds; ++r) {
    const float* w = rows + r % kPeakSets * kPeakSteps * NR * W;
    const float* a = columns + r % kPeakSets * kPeakSteps * NC;
#pragma GCC unroll 8
    for (int s = 0; s < kPeakSteps; ++s) {
      F row[NR];
      for (int i = 0; i < NR; ++i) row[i] = load(w + (s * NR + i) * W);
      for (int c = 0; c < NC; ++c) {
        const F x = splat(a[s * NC + c]);
        for (int i = 0; i < NR; ++i) acc[i][c] = fma(row[i], x, acc[i][c]);
      }
    }
  }
  F total = splat(0);
  for (int i = 0; i < NR; ++i)
    for (int c = 0; c < NC; ++c) total = add(total, acc[i][c]);
  *sink = sum(total);
  return 2.0 * W * NR * NC * kPeakSteps * double(rounds);
}

// Reads n bytes, a multiple of 1024, as decode reads weights.
static void read_memory(const uint8_t* p, int64_t n, float* sink) {
  constexpr int kVectors = 4;
  B acc[kVectors];
  for (int v = 0; v < kVectors; ++v) acc[v] = bload(p);
  for (int64_t i = 0; i < n; i += 256) {
    for (int64_t line = 0; line < 256; line += 64) prefetch(p + i + line + kPrefetch);
    for (int64_t j = i; j < i + 256; j += kVectors * int64_t(sizeof(B)))
      for (int v = 0; v < kVectors; ++v)
        acc[v] = bor(acc[v], bload(p + j + v * int64_t(sizeof(B))));
  }
  uint8_t last[sizeof(B)];
  bstore(last, bor(bor(acc[0], acc[1]), bor(acc[2], acc[3])));
  *sink = float(last[0]);
}

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
