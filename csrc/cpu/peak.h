// What a core of this tier can do at most, to hold the kernels against: tiles of independent
// accumulators over operands in the first cache, and memory read in order.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

// Rounds take turns among a few sets of operands, so that nothing is constant from one to the next.
inline constexpr int kPeakSets = 4;
inline constexpr int kPeakSteps = 8;
// Accumulators: more than the latency of two instructions a cycle asks for, and as few loads per
// instruction as the registers allow. Small tiles tell of a tier whose sums need registers on
// their way to int32.
inline constexpr int kPeakCols = 4;
inline constexpr int kPeakDotRows = W >= 16 ? 4 : 2;
inline constexpr int kPeakDotCols = kTilePanels * kTileCols > 4 ? kPeakCols : 2;

// Bytes that stay as small as a codec's can be.
struct PeakBytes {
  static constexpr bool kSigned = false;
  static constexpr int kMost = 3;
};
inline constexpr int kPeakFloatRows = W >= 16 ? 4 : 3;

// The steps of the matrix products: int8 multiplies and adds done.
static double int_peak(const uint8_t* operands, int64_t rounds, float* sink) {
  constexpr int NP = kPeakDotRows, NC = kPeakDotCols, kVector = 4 * W, kRun = 4;
  constexpr int kSet = (kPeakSteps * NP + NC) * kVector;
  static_assert(kPeakSets * kSet <= kPeakBytes && kPeakSteps % kRun == 0);
  I acc[NP][NC], run[NP][NC];
  for (int p = 0; p < NP; ++p)
    for (int c = 0; c < NC; ++c) acc[p][c] = run[p][c] = isplat(0);
  for (int64_t r = 0; r < rounds; ++r) {
    const uint8_t* at = operands + r % kPeakSets * kSet;
    B x[NC];
    for (int c = 0; c < NC; ++c, at += kVector) x[c] = bload(at);
    // Not unrolled: gcc would add up several runs before it adds to the accumulators, and spill.
#pragma GCC unroll 1
    for (int s = 0; s < kPeakSteps; s += kRun)
#pragma GCC unroll 4
      for (int i = 0; i < kRun; ++i, at += NP * kVector) {
        B w[NP];
        for (int p = 0; p < NP; ++p) w[p] = bload(at + p * kVector);
        for (int c = 0; c < NC; ++c)
          for (int p = 0; p < NP; ++p) dot_step<PeakBytes>(acc[p][c], run[p][c], i, w[p], x[c]);
      }
  }
  F total = splat(0);
  for (int p = 0; p < NP; ++p)
    for (int c = 0; c < NC; ++c) total = add(total, to_float(acc[p][c]));
  *sink = sum(total);
  return 2.0 * kStepColumns * kVector * NP * NC * kPeakSteps * double(rounds);
}

// Multiply-adds of floats: multiplies and adds done.
static double float_peak(const uint8_t* operands, int64_t rounds, float* sink) {
  constexpr int NR = kPeakFloatRows, NC = kPeakCols;
  constexpr int kSet = (kPeakSteps * NR + NC) * W;
  static_assert(kPeakSets * kSet * int64_t(sizeof(float)) <= kPeakBytes);
  const float* first = reinterpret_cast<const float*>(operands);
  F acc[NR][NC];
  for (int i = 0; i < NR; ++i)
    for (int c = 0; c < NC; ++c) acc[i][c] = splat(0);
  for (int64_t r = 0; r < rounds; ++r) {
    const float* at = first + r % kPeakSets * kSet;
    F x[NC];
    for (int c = 0; c < NC; ++c, at += W) x[c] = load(at);
#pragma GCC unroll 8
    for (int s = 0; s < kPeakSteps; ++s, at += NR * W) {
      F row[NR];
      for (int i = 0; i < NR; ++i) row[i] = load(at + i * W);
      for (int c = 0; c < NC; ++c)
        for (int i = 0; i < NR; ++i) acc[i][c] = fma(row[i], x[c], acc[i][c]);
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
    for (int64_t line = 0; line < 256; line += 64) prefetch_once(p + i + line + kPrefetch);
    for (int64_t j = i; j < i + 256; j += kVectors * int64_t(sizeof(B)))
      for (int v = 0; v < kVectors; ++v)
        acc[v] = bor(acc[v], bload(p + j + v * int64_t(sizeof(B))));
  }
  uint8_t last[sizeof(B)];
  bstore(last, bor(bor(acc[0], acc[1]), bor(acc[2], acc[3])));
  *sink = float(last[0]);
}

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
