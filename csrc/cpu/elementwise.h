// Everything of the table that is not a matrix product or attention.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

// y[0..n) = (or +=) a
static inline void store_rows(float* y, F a, int n, bool accumulate) {
  if (n == W) {
    store(y, accumulate ? add(load(y), a) : a);
  } else {
    store_n(y, accumulate ? add(load_n(y, n), a) : a, n);
  }
}

// e^x to about 2 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, e^r by its Taylor polynomial to r^7
// (remainder 6e-9 relative), ln 2 in two parts so that n * kLn2High is exact. Results below the
// smallest normal are 0; x above 88.7 gives the largest finite result it can.
static inline F exp(F x) {
  const F low = splat(-87.33654f), high = splat(88.72283f);
  const F clamped = max(splat(-87.33654f), min(high, x));
  const F n = min(round(mul(clamped, splat(1.44269504f))), splat(127));
  F r = fma(n, splat(-0.693359375f), clamped);
  r = fma(n, splat(2.12194440e-4f), r);
  F p = splat(1.0f / 5040);
  p = fma(p, r, splat(1.0f / 720));
  p = fma(p, r, splat(1.0f / 120));
  p = fma(p, r, splat(1.0f / 24));
  p = fma(p, r, splat(1.0f / 6));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1));
  p = fma(p, r, splat(1));
  return zero_below(scale_exp2(p, n), x, low);
}

static void rms_norm(float* y, const float* x, const float* weight, int64_t n, float eps) {
  F acc[2] = {splat(0), splat(0)};
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W)
    for (int j = 0; j < 2; ++j) {
      const F v = load(x + i + j * W);
      acc[j] = fma(v, v, acc[j]);
    }
  for (int j = 0; i < n; i += W, ++j) {
    const F v = load_n(x + i, n - i < W ? int(n - i) : W);
    acc[j] = fma(v, v, acc[j]);
  }
  const float mean = sum(add(acc[0], acc[1])) / float(n);
  const F scale = splat(1.0f / sqrtf(mean + eps));
  for (i = 0; i + W <= n; i += W) store(y + i, mul(mul(load(x + i), scale), load(weight + i)));
  if (i < n) {
    const int part = int(n - i);
    store_n(y + i, mul(mul(load_n(x + i, part), scale), load_n(weight + i, part)), part);
  }
}

static void rope_halves(float* x, const float* cos_sin, int64_t n) {
  const int64_t half = n / 2;
  for (int64_t i = 0; i < half; i += W) {
    const int part = half - i < W ? int(half - i) : W;
    const F c = load_n(cos_sin + i, part), s = load_n(cos_sin + half + i, part);
    const F a = load_n(x + i, part), b = load_n(x + half + i, part);
    store_n(x + i, sub(mul(a, c), mul(b, s)), part);
    store_n(x + half + i, add(mul(a, s), mul(b, c)), part);
  }
}

// The pairs are parted into a buffer, rotated as halves and joined: shuffles differ on every tier,
// and this is a ten-thousandth of a token's work.
static void rope_interleaved(float* x, const float* cos_sin, int64_t n) {
  float parted[kMaxHeadDim];
  const int64_t half = n / 2;
  for (int64_t i = 0; i < half; ++i) {
    parted[i] = x[2 * i];
    parted[half + i] = x[2 * i + 1];
  }
  rope_halves(parted, cos_sin, n);
  for (int64_t i = 0; i < half; ++i) {
    x[2 * i] = parted[i];
    x[2 * i + 1] = parted[half + i];
  }
}

static void swiglu(float* y, const float* gate, const float* up, int64_t n) {
  const F one = splat(1);
  for (int64_t i = 0; i < n; i += W) {
    const int part = n - i < W ? int(n - i) : W;
    const F g = load_n(gate + i, part), u = load_n(up + i, part);
    const F silu = div(g, add(one, exp(sub(splat(0), g))));
    store_n(y + i, mul(silu, u), part);
  }
}

static void softmax(float* x, int64_t n) {
  float top = x[0];
  for (int64_t i = 1; i < n; ++i) top = x[i] > top ? x[i] : top;
  const F shift = splat(top);
  F total = splat(0);
  for (int64_t i = 0; i < n; i += W) {
    const int part = n - i < W ? int(n - i) : W;
    store_n(x + i, exp(sub(load_n(x + i, part), shift)), part);
    total = add(total, load_n(x + i, part));
  }
  const F scale = splat(1.0f / sum(total));
  for (int64_t i = 0; i < n; i += W) {
    const int part = n - i < W ? int(n - i) : W;
    store_n(x + i, mul(load_n(x + i, part), scale), part);
  }
}

static void add_to(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += W) {
    const int part = n - i < W ? int(n - i) : W;
    store_n(y + i, add(load_n(y + i, part), load_n(x + i, part)), part);
  }
}

static void scale_by(float* x, float factor, int64_t n) {
  for (int64_t i = 0; i < n; i += W) {
    const int part = n - i < W ? int(n - i) : W;
    store_n(x + i, mul(load_n(x + i, part), splat(factor)), part);
  }
}

static int32_t argmax(const float* x, int64_t n) {
  // The largest value first, then its first place: two simple passes beat one with indices.
  constexpr float kLowest = -INFINITY;
  F best = splat(kLowest);
  int64_t i = 0;
  for (; i + W <= n; i += W) best = max(load(x + i), best);
  float top = largest(best);
  for (; i < n; ++i) top = x[i] > top ? x[i] : top;
  for (i = 0; i < n; ++i)
    if (x[i] == top) return int32_t(i);
  return 0;
}

// Quantizes n values with one scale; q gets integers in [-127, 127]. Returns the scale, NaN when a
// value is not finite, so that it shows in every product.
template <int N>
static inline float quantize_run(int8_t* q, const float* x) {
  F top = splat(0), poison = splat(0);
  for (int i = 0; i < N; i += W) {
    const F v = load(x + i);
    top = max(top, abs(v));
    poison = fma(v, splat(0), poison);
  }
  // Below this, 127 / most is not finite; such runs count as zero.
  constexpr float kLeast = 1e-36f;
  const float most = largest(top);
  const F inverse = splat(most > kLeast ? 127.0f / most : 0.0f);
  for (int i = 0; i < N; i += W) store_i8(q + i, to_int(mul(load(x + i), inverse)));
  return (most > kLeast ? most / 127.0f : 0.0f) + sum(poison);
}

static void quantize_q8_32(ActBlock32* y, const float* x, int64_t n) {
  for (; n > 0; n -= kBlock, x += kBlock, ++y) {
    y->d = quantize_run<kBlock>(y->q, x);
    I total = load_i8(y->q);
    for (int i = W; i < kBlock; i += W) total = iadd(total, load_i8(y->q + i));
    y->sum_d = sum(to_float(total));  // an integer of at most 32 * 127: exact
    y->sum = int32_t(y->sum_d);
    y->sum_d *= y->d;
  }
}

static void quantize_q8_256(ActBlock256* y, const float* x, int64_t n) {
  for (; n > 0; n -= kSuperBlock, x += kSuperBlock, ++y) {
    y->d = quantize_run<kSuperBlock>(y->q, x);
    for (int j = 0; j < 16; ++j) {
      int16_t total = 0;
      for (int i = 0; i < 16; ++i) total = int16_t(total + y->q[16 * j + i]);
      y->sums[j] = total;
    }
  }
}

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
