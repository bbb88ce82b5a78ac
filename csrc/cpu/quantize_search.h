// Searching the scale (and minimum) of a sub-block of weights that loses least: the sum of
// w * (x - reconstructed)^2, w being the importance of a column or 1.
//
// Sixteen sub-blocks are searched together, one in each lane, so that no operation crosses lanes.
// Every lane does the same IEEE operations in the same order on every tier (no fused ones, hence
// mul and add), and all tiers write the same bytes.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

inline constexpr int kSearchLanes = 16;  // a multiple of W on every tier

// Sixteen sub-blocks of N weights, transposed. Each is scaled by a power of two so that the largest
// weight of its block lies in [1, 2): squares neither overflow nor vanish, and nothing is rounded.
template <int N>
struct SubBlocks {
  alignas(64) float x[N][kSearchLanes];
  alignas(64) float w[N][kSearchLanes];
  alignas(64) float code[N][kSearchLanes];  // the codes chosen in the end
};

struct Lanes {
  alignas(64) float at[kSearchLanes];
};

static inline F mul_add(F a, F b, F c) { return add(mul(a, b), c); }
// a / b, or 0 where b is not positive.
static inline F ratio(F a, F b) {
  const F positive = where_less(splat(0), b, b, splat(1));
  return where_less(splat(0), b, div(a, positive), splat(0));
}
// 1 / a, or 0 where a is 0.
static inline F inverse_of(F a) {
  const F present = where_less(splat(0), abs(a), a, splat(1));
  return where_less(splat(0), abs(a), div(splat(1), present), splat(0));
}

// Codes that are the integers of a range.
template <int kLow, int kHigh>
struct IntegerCodes {
  static constexpr int kCount = kHigh - kLow + 1;
  static float value(int i) { return float(kLow + i); }
  static F nearest(F t) { return round(min(max(t, splat(kLow)), splat(kHigh))); }
  static uint8_t stored(float code) { return uint8_t(int(code) - kLow); }
};

// The value of the IQ4 types nearest to anything: their midpoints are multiples of 0.5, so that one
// value is the nearest all over a cell of a table in steps of 0.5.
struct Iq4Table {
  static constexpr int kLeast = -127, kMost = 113;
  float value[2 * (kMost - kLeast) + 1];
  uint8_t index[256];  // by value + 128

  constexpr Iq4Table() : value(), index() {
    for (int cell = 0; cell <= 2 * (kMost - kLeast); ++cell) {
      const double middle = kLeast + 0.5 * cell + 0.25;
      int best = 0;
      for (int i = 1; i < 16; ++i)
        if (distance(middle, i) < distance(middle, best)) best = i;
      value[cell] = float(kIq4Values[best]);
    }
    for (int i = 0; i < 16; ++i) index[kIq4Values[i] + 128] = uint8_t(i);
  }
  static constexpr double distance(double t, int i) {
    const double apart = t - kIq4Values[i];
    return apart < 0 ? -apart : apart;
  }
};
static constexpr Iq4Table kIq4;

// Codes that are the values of the IQ4 types.
struct Iq4Codes {
  static constexpr int kCount = 16;
  static float value(int i) { return kIq4Values[i]; }
  static F nearest(F t) {
    const F inside = min(max(t, splat(Iq4Table::kLeast)), splat(Iq4Table::kMost));
    // Twice the way from the least value; half a cell less, as the conversion rounds.
    const F cell = add(add(inside, inside), splat(-2.0f * Iq4Table::kLeast - 0.5f));
    return gather(kIq4.value, to_int(cell));
  }
  static uint8_t stored(float code) { return kIq4.index[int(code) + 128]; }
};

// What the weight of largest magnitude may become: codes `from`, `from + step` ... `to`.
struct Trials {
  float from, to, step;
};

// One lane vector of a symmetric search: for the weights x = scale * code, the sums that a scale is
// judged by.
template <class Codes, int N>
static inline void fit_scale(const SubBlocks<N>& s, int v, F inverse, F* best_gain, F* best) {
  F xq = splat(0), qq = splat(0);
  for (int i = 0; i < N; ++i) {
    const F x = load(s.x[i] + v);
    const F q = Codes::nearest(mul(x, inverse));
    const F wq = mul(load(s.w[i] + v), q);
    xq = mul_add(wq, x, xq);
    qq = mul_add(wq, q, qq);
  }
  // Of all scales for these codes, xq / qq loses least: sum(w x^2) - xq^2 / qq.
  const F scale = ratio(xq, qq);
  const F gain = mul(scale, xq);
  *best = where_less(*best_gain, gain, scale, *best);
  *best_gain = max(gain, *best_gain);
}

// The scale of each sub-block for weights = scale * code; negative where that is better. With
// `weighed`, importances differ, and also scales are tried that suit the weight that counts most
// (importance times square), whichever its code: where few columns matter, all depends on it.
template <class T, int N>
static inline void search_scales(const SubBlocks<N>& s, bool weighed, Lanes* scales) {
  using Codes = typename T::Codes;
  constexpr int kMostCodes = 32;  // with more of them any weight is near one
  for (int v = 0; v < kSearchLanes; v += W) {
    F peak = splat(0), most = splat(0), most_worth = splat(0);
    for (int i = 0; i < N; ++i) {
      const F x = load(s.x[i] + v);
      const F worth = mul(mul(load(s.w[i] + v), x), x);
      peak = where_less(abs(peak), abs(x), x, peak);
      most = where_less(most_worth, worth, x, most);
      most_worth = max(worth, most_worth);
    }
    const F unit = inverse_of(peak);
    F gain = splat(0), scale = splat(0);
    for (const Trials& t : T::kTrials)
      for (float code = t.from; code <= t.to; code += t.step)
        fit_scale<Codes>(s, v, mul(splat(code), unit), &gain, &scale);
    const F most_unit = inverse_of(most);
    for (int i = 0; weighed && Codes::kCount <= kMostCodes && i < Codes::kCount; ++i)
      fit_scale<Codes>(s, v, mul(splat(Codes::value(i)), most_unit), &gain, &scale);
    for (int again = 0; again < 2; ++again)
      fit_scale<Codes>(s, v, inverse_of(scale), &gain, &scale);
    store(scales->at + v, scale);
  }
}

// The codes nearest to the weights for given scales.
template <class Codes, int N>
static inline void choose_codes(SubBlocks<N>* s, const Lanes& scales) {
  for (int v = 0; v < kSearchLanes; v += W) {
    const F inverse = inverse_of(load(scales.at + v));
    for (int i = 0; i < N; ++i)
      store(s->code[i] + v, Codes::nearest(mul(load(s->x[i] + v), inverse)));
  }
}

// Weights = scale * code + low with codes 0 .. kMost.
template <int kMost>
static inline F affine_code(F x, F inverse, F low) {
  return round(min(max(mul(sub(x, low), inverse), splat(0)), splat(kMost)));
}

// One lane vector of an affine search: fits scale and offset (from `base`, towards which the sums
// are centred so that a common offset costs no precision) to the codes that `inverse` and `low`
// give. kNonPositive: low <= 0, as the K types have it.
template <int kMost, bool kNonPositive, int N>
static inline void fit_affine(const SubBlocks<N>& s, int v, F base, F inverse, F low, F* best_gain,
                              F* best_scale, F* best_low) {
  F w1 = splat(0), wq = splat(0), wqq = splat(0), wy = splat(0), wqy = splat(0);
  for (int i = 0; i < N; ++i) {
    const F x = load(s.x[i] + v), w = load(s.w[i] + v);
    const F q = affine_code<kMost>(x, inverse, low);
    const F y = sub(x, base);
    const F part = mul(w, q);
    w1 = add(w1, w);
    wq = add(wq, part);
    wqq = mul_add(part, q, wqq);
    wy = mul_add(w, y, wy);
    wqy = mul_add(part, y, wqy);
  }
  const F det = sub(mul(w1, wqq), mul(wq, wq));
  F scale = ratio(sub(mul(w1, wqy), mul(wq, wy)), det);
  F offset = ratio(sub(wy, mul(scale, wq)), w1);
  if (kNonPositive) {
    // An offset that would make the minimum positive is left at none: the line goes through zero.
    const F none = sub(splat(0), base);
    const F through = ratio(add(wqy, mul(base, wq)), wqq);
    scale = where_less(none, offset, through, scale);
    offset = min(offset, none);
  }
  // sum(w y^2) less what is lost with this line.
  const F fitted =
      sub(add(add(wqy, wqy), mul(sub(splat(0), scale), wqq)), mul(add(offset, offset), wq));
  const F gain = add(mul(scale, fitted), mul(offset, sub(add(wy, wy), mul(offset, w1))));
  const F sound = where_less(splat(0), scale, gain, splat(-1));
  *best_scale = where_less(*best_gain, sound, scale, *best_scale);
  *best_low = where_less(*best_gain, sound, add(base, offset), *best_low);
  *best_gain = max(sound, *best_gain);
}

// Scale (>= 0) and lowest weight of each sub-block. The trials cut `cuts` shares of the range off
// at either end.
template <int kMost, bool kNonPositive, int N>
static inline void search_affine(const SubBlocks<N>& s, const float* cuts, int n_cuts,
                                 Lanes* scales, Lanes* lows) {
  for (int v = 0; v < kSearchLanes; v += W) {
    F low = load(s.x[0] + v), high = low;
    for (int i = 1; i < N; ++i) {
      const F x = load(s.x[i] + v);
      low = min(low, x);
      high = max(high, x);
    }
    if (kNonPositive) low = min(low, splat(0));
    const F range = sub(high, low);
    const F positive = max(range, splat(0));
    F gain = splat(0), scale = splat(0), best_low = low;
    for (int a = 0; a < n_cuts; ++a)
      for (int b = 0; b < n_cuts; ++b) {
        const F inverse = inverse_of(mul(positive, splat((1.0f - cuts[a] - cuts[b]) / kMost)));
        fit_affine<kMost, kNonPositive>(s, v, low, inverse, add(low, mul(positive, splat(cuts[a]))),
                                        &gain, &scale, &best_low);
      }
    for (int again = 0; again < 3; ++again)
      fit_affine<kMost, kNonPositive>(s, v, low, inverse_of(scale), best_low, &gain, &scale,
                                      &best_low);
    store(scales->at + v, scale);
    store(lows->at + v, best_low);
  }
}

template <int kMost, int N>
static inline void choose_affine_codes(SubBlocks<N>* s, const Lanes& scales, const Lanes& lows) {
  for (int v = 0; v < kSearchLanes; v += W) {
    const F inverse = inverse_of(load(scales.at + v)), low = load(lows.at + v);
    for (int i = 0; i < N; ++i)
      store(s->code[i] + v, affine_code<kMost>(load(s->x[i] + v), inverse, low));
  }
}

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
