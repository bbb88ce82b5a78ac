// Blocks of weights into SubBlocks, and the scales of super-blocks: integers per sub-block times
// one half (or two) per 256 weights, chosen by the error that remains with exactly these.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

// How a block was scaled for the search: weight = x * up.
struct Unit {
  float up, down;
};

static inline float float_of(half_t h) {
  alignas(64) float lanes[W];
  store(lanes, splat_half(h));
  return lanes[0];
}
// The half of value * up, at most the largest finite one; its value in the search's scale goes to
// *value.
static inline half_t half_near(float* value, Unit unit) {
  constexpr float kMostHalf = 65504.0f;
  const float wanted = *value * unit.up;
  const float inside = wanted > kMostHalf ? kMostHalf : (wanted < -kMostHalf ? -kMostHalf : wanted);
  const half_t h = half_of(inside);
  *value = float_of(h) * unit.down;
  return h;
}

static inline Unit unit_of(const float* x, int n) {
  float most = 0;
  for (int i = 0; i < n; ++i) {
    const float size = x[i] < 0 ? -x[i] : x[i];
    most = size > most ? size : most;
  }
  uint32_t bits;
  memcpy(&bits, &most, sizeof bits);
  int exponent = int(bits >> 23) - 127;
  exponent = exponent < -126 ? -126 : (exponent > 126 ? 126 : exponent);
  Unit unit;
  const uint32_t up = uint32_t(127 + exponent) << 23, down = uint32_t(127 - exponent) << 23;
  memcpy(&unit.up, &up, sizeof up);
  memcpy(&unit.down, &down, sizeof down);
  return most > 0 ? unit : Unit{1, 1};
}

// Importances count relative to the largest of their block. None is nothing at all, and where all
// are zero the columns count alike.
static inline void relative_importance(const float* importance, int n, float* weights) {
  constexpr float kLeast = 1e-6f;
  float most = 0;
  for (int i = 0; importance && i < n; ++i) most = importance[i] > most ? importance[i] : most;
  for (int i = 0; i < n; ++i) weights[i] = most > 0 ? importance[i] / most + kLeast : 1.0f;
}

// Puts `n_blocks` blocks of kSize weights into the lanes, N weights in each; the lanes left over
// get zeros.
template <int kSize, int N>
static inline void fill_lanes(SubBlocks<N>* s, const float* x, const float* importance, int64_t at,
                              int64_t k, int n_blocks, Unit* units) {
  constexpr int kSubs = kSize / N;
  alignas(64) float weights[kSize];
  for (int b = 0; b < kSearchLanes / kSubs; ++b) {
    const bool present = b < n_blocks;
    const float* block = x + int64_t(b) * kSize;
    units[b] = present ? unit_of(block, kSize) : Unit{1, 1};
    const float* columns =
        present && importance ? importance + (at + int64_t(b) * kSize) % k : nullptr;
    relative_importance(columns, kSize, weights);
    for (int j = 0; j < kSubs; ++j)
      for (int i = 0; i < N; ++i) {
        s->x[i][b * kSubs + j] = present ? block[j * N + i] * units[b].down : 0.0f;
        s->w[i][b * kSubs + j] = weights[j * N + i];
      }
  }
}

// The stored codes of the block whose first lane is given, in the order of its weights.
template <class Codes, int kSize, int N>
static inline void stored_codes(const SubBlocks<N>& s, int first_lane, uint8_t* codes) {
  for (int j = 0; j < kSize / N; ++j)
    for (int i = 0; i < N; ++i) codes[j * N + i] = Codes::stored(s.code[i][first_lane + j]);
}

// What a super-block's search remembers: its halves, and per sub-block integers.
template <int kSupers>
struct SuperScales {
  float error[kSupers];
  half_t d[kSupers], dmin[kSupers];
  Lanes scale, min;    // integers
  Lanes scales, lows;  // what they stand for
};

static inline float clamped(float a, float low, float high) {
  return a < low ? low : (a > high ? high : a);
}
static inline float nearest_integer(float a) { return (a + 12582912.0f) - 12582912.0f; }

// The scales of sub-blocks without any search: the largest weight gets the highest code.
template <class Codes, int N>
static inline void plain_scales(const SubBlocks<N>& s, Lanes* ideal) {
  for (int v = 0; v < kSearchLanes; v += W) {
    F peak = splat(0);
    for (int i = 0; i < N; ++i) peak = max(peak, abs(load(s.x[i] + v)));
    store(ideal->at + v, mul(peak, splat(1 / Codes::value(Codes::kCount - 1))));
  }
}

// Weights = d * n * code with integers n in [kLow, kHigh] near ideal / d, in place of those in
// `found` where the error is less. Integers up to `reach` from the nearest but 0 are tried.
template <class Codes, int kLow, int kHigh, int N>
static inline void search_super(const SubBlocks<N>& s, const Lanes& ideal, const Unit* units,
                                int n_turns, int reach,
                                SuperScales<kSearchLanes * N / kSuperBlock>* found) {
  constexpr int kSupers = kSearchLanes * N / kSuperBlock, kSubs = kSuperBlock / N;
  constexpr float kEnds[] = {float(kLow), float(kHigh)};
  for (const float end : kEnds) {
    float d[kSupers];
    for (int b = 0; b < kSupers; ++b) {
      float peak = 0;
      for (int j = b * kSubs; j < (b + 1) * kSubs; ++j)
        if (fabsf(ideal.at[j]) > fabsf(peak)) peak = ideal.at[j];
      d[b] = peak / end;
    }
    Lanes n;
    for (int turn = 0; turn < n_turns; ++turn) {
      half_t halves[kSupers];
      Lanes unit, error, xq, qq;
      for (int b = 0; b < kSupers; ++b) {
        halves[b] = half_near(&d[b], units[b]);
        for (int j = b * kSubs; j < (b + 1) * kSubs; ++j) {
          unit.at[j] = d[b];
          if (turn > 0) continue;
          const float near = d[b] == 0 ? 0 : ideal.at[j] / d[b];
          n.at[j] = fabsf(near) > 0.5f ? nearest_integer(clamped(near, kLow, kHigh))
                                       : float((near > 0) - (near < 0));
        }
      }
      for (int v = 0; v < kSearchLanes; v += W) {
        const F u = load(unit.at + v), middle = load(n.at + v);
        F best = splat(INFINITY), best_n = middle, best_xq = splat(0), best_qq = splat(0);
        for (int step = -reach; step <= reach; ++step) {
          const F m = min(max(add(middle, splat(float(step))), splat(kLow)), splat(kHigh));
          const F scale = mul(u, m), inverse = inverse_of(scale);
          F loss = splat(0), sum_xq = splat(0), sum_qq = splat(0);
          for (int i = 0; i < N; ++i) {
            const F x = load(s.x[i] + v), w = load(s.w[i] + v);
            const F q = Codes::nearest(mul(x, inverse));
            const F apart = sub(x, mul(scale, q)), wq = mul(w, q);
            loss = mul_add(mul(w, apart), apart, loss);
            sum_xq = mul_add(wq, x, sum_xq);
            sum_qq = mul_add(wq, q, sum_qq);
          }
          best_n = where_less(loss, best, m, best_n);
          best_xq = where_less(loss, best, sum_xq, best_xq);
          best_qq = where_less(loss, best, sum_qq, best_qq);
          best = min(loss, best);
        }
        store(n.at + v, best_n);
        store(error.at + v, best);
        store(xq.at + v, best_xq);
        store(qq.at + v, best_qq);
      }
      for (int b = 0; b < kSupers; ++b) {
        float total = 0;
        double up = 0, down = 0;
        for (int j = b * kSubs; j < (b + 1) * kSubs; ++j) {
          total += error.at[j];
          up += double(n.at[j]) * double(xq.at[j]);
          down += double(n.at[j]) * double(n.at[j]) * double(qq.at[j]);
        }
        if (total < found->error[b]) {
          found->error[b] = total;
          found->d[b] = halves[b];
          for (int j = b * kSubs; j < (b + 1) * kSubs; ++j) {
            found->scale.at[j] = n.at[j];
            found->scales.at[j] = d[b] * n.at[j];
          }
        }
        d[b] = down > 0 ? float(up / down) : 0.0f;
      }
    }
  }
}

// What a super-block gets without any search: each sub-block from its lowest weight, in whole steps
// of one half per super-block, to its highest.
template <int kMost, int kHigh, int N>
static inline void plain_affine(const SubBlocks<N>& s, const Unit* units, Lanes* ideal,
                                Lanes* lows) {
  constexpr int kSupers = kSearchLanes * N / kSuperBlock, kSubs = kSuperBlock / N;
  Lanes highs;
  for (int v = 0; v < kSearchLanes; v += W) {
    F low = splat(0), high = load(s.x[0] + v);
    for (int i = 0; i < N; ++i) {
      low = min(low, load(s.x[i] + v));
      high = max(high, load(s.x[i] + v));
    }
    store(lows->at + v, low);
    store(highs.at + v, high);
  }
  for (int b = 0; b < kSupers; ++b) {
    float depth = 0;
    for (int j = b * kSubs; j < (b + 1) * kSubs; ++j)
      depth = -lows->at[j] > depth ? -lows->at[j] : depth;
    float step = depth / kHigh;
    half_near(&step, units[b]);
    for (int j = b * kSubs; j < (b + 1) * kSubs; ++j) {
      if (step > 0) lows->at[j] = -step * nearest_integer(clamped(-lows->at[j] / step, 0, kHigh));
      ideal->at[j] = (highs.at[j] - lows->at[j]) / kMost;
    }
  }
}

// Weights = d * n * code - dmin * m with integers n and m in [0, kHigh], codes 0 .. kMost, in place
// of those in `found` where the error is less. Integers up to `reach` from the nearest are tried.
template <int kMost, int kHigh, int N>
static inline void search_super_affine(const SubBlocks<N>& s, const Lanes& ideal, const Lanes& lows,
                                       const Unit* units, int n_turns, int reach,
                                       SuperScales<kSearchLanes * N / kSuperBlock>* found) {
  constexpr int kSupers = kSearchLanes * N / kSuperBlock, kSubs = kSuperBlock / N;
  float d[kSupers], dmin[kSupers];
  for (int b = 0; b < kSupers; ++b) {
    float peak = 0, depth = 0;
    for (int j = b * kSubs; j < (b + 1) * kSubs; ++j) {
      peak = ideal.at[j] > peak ? ideal.at[j] : peak;
      depth = -lows.at[j] > depth ? -lows.at[j] : depth;
    }
    d[b] = peak / kHigh;
    dmin[b] = depth / kHigh;
  }
  Lanes n, m;
  for (int turn = 0; turn < n_turns; ++turn) {
    half_t d_half[kSupers], dmin_half[kSupers];
    Lanes unit, unit_min, error, w1, wx, wq, wqq, wqx;
    for (int b = 0; b < kSupers; ++b) {
      d_half[b] = half_near(&d[b], units[b]);
      dmin_half[b] = half_near(&dmin[b], units[b]);
      for (int j = b * kSubs; j < (b + 1) * kSubs; ++j) {
        unit.at[j] = d[b];
        unit_min.at[j] = dmin[b];
        if (turn == 0) {
          n.at[j] = d[b] > 0 ? nearest_integer(clamped(ideal.at[j] / d[b], 1, kHigh)) : 0;
          m.at[j] = dmin[b] > 0 ? nearest_integer(clamped(-lows.at[j] / dmin[b], 0, kHigh)) : 0;
        }
      }
    }
    for (int v = 0; v < kSearchLanes; v += W) {
      const F u = load(unit.at + v), u_min = load(unit_min.at + v);
      const F middle = load(n.at + v), middle_min = load(m.at + v);
      F best = splat(INFINITY), best_n = middle, best_m = middle_min;
      for (int step = -reach; step <= reach; ++step)
        for (int step_min = -reach; step_min <= reach; ++step_min) {
          const F a = min(max(add(middle, splat(float(step))), splat(0)), splat(kHigh));
          const F c = min(max(add(middle_min, splat(float(step_min))), splat(0)), splat(kHigh));
          const F scale = mul(u, a), inverse = inverse_of(scale), offset = mul(u_min, c);
          F loss = splat(0);
          for (int i = 0; i < N; ++i) {
            const F y = add(load(s.x[i] + v), offset);
            const F q = affine_code<kMost>(y, inverse, splat(0));
            const F apart = sub(y, mul(scale, q));
            loss = mul_add(mul(load(s.w[i] + v), apart), apart, loss);
          }
          best_n = where_less(loss, best, a, best_n);
          best_m = where_less(loss, best, c, best_m);
          best = min(loss, best);
        }
      store(n.at + v, best_n);
      store(m.at + v, best_m);
      store(error.at + v, best);
      const F inverse = inverse_of(mul(u, best_n)), offset = mul(u_min, best_m);
      F sums[5] = {splat(0), splat(0), splat(0), splat(0), splat(0)};
      for (int i = 0; i < N; ++i) {
        const F x = load(s.x[i] + v), w = load(s.w[i] + v);
        const F q = affine_code<kMost>(add(x, offset), inverse, splat(0)), part = mul(w, q);
        sums[0] = add(sums[0], w);
        sums[1] = mul_add(w, x, sums[1]);
        sums[2] = add(sums[2], part);
        sums[3] = mul_add(part, q, sums[3]);
        sums[4] = mul_add(part, x, sums[4]);
      }
      store(w1.at + v, sums[0]);
      store(wx.at + v, sums[1]);
      store(wq.at + v, sums[2]);
      store(wqq.at + v, sums[3]);
      store(wqx.at + v, sums[4]);
    }
    for (int b = 0; b < kSupers; ++b) {
      float total = 0;
      // The line x = d * (n q) - dmin * m through all weights of the super-block.
      double nn = 0, nm = 0, mm = 0, nx = 0, mx = 0;
      for (int j = b * kSubs; j < (b + 1) * kSubs; ++j) {
        const double a = n.at[j], c = m.at[j];
        total += error.at[j];
        nn += a * a * double(wqq.at[j]);
        nm += a * c * double(wq.at[j]);
        mm += c * c * double(w1.at[j]);
        nx += a * double(wqx.at[j]);
        mx += c * double(wx.at[j]);
      }
      if (total < found->error[b]) {
        found->error[b] = total;
        found->d[b] = d_half[b];
        found->dmin[b] = dmin_half[b];
        for (int j = b * kSubs; j < (b + 1) * kSubs; ++j) {
          found->scale.at[j] = n.at[j];
          found->min.at[j] = m.at[j];
          found->scales.at[j] = d[b] * n.at[j];
          found->lows.at[j] = -(dmin[b] * m.at[j]);
        }
      }
      const double det = nn * mm - nm * nm;
      const double line = (nx * mm - mx * nm), depth = (nx * nm - mx * nn);
      if (det > 0 && line > 0 && depth >= 0) {
        d[b] = float(line / det);
        dmin[b] = float(depth / det);
      } else {
        d[b] = nn > 0 && nx > 0 ? float(nx / nn) : 0.0f;
        dmin[b] = 0;
      }
    }
  }
}

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
