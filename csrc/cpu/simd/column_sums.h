// The sums of a tile on the tiers whose byte product takes one column: a lane is a row.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

inline constexpr int kStepColumns = 1;  // columns that one product takes

// NP panels x NC columns.
template <class C, int NP, int NC>
struct TileSums {
  I total[NP][NC], run[NP][NC];

  void start(const I (&from)[NC]) {
    for (int c = 0; c < NC; ++c)
      for (int p = 0; p < NP; ++p) total[p][c] = from[c];
  }
  // The products of step s of 32 weights, the i-th taken, with the 32 activations at x[c].
  void add(int i, int s, const B (&w)[NP], const int8_t* const (&x)[NC]) {
    for (int c = 0; c < NC; ++c) {
      const B a = bsplat4(x[c] + 4 * s);
      for (int p = 0; p < NP; ++p) dot_step<C>(total[p][c], run[p][c], i, w[p], a);
    }
  }
  // What the sums of a sub-block start from, where the tier asks: see kSumsStart.
  void start_scaled(const I (&from)[NC]) {
    for (int c = 0; c < NC; ++c)
      for (int p = 0; p < NP; ++p) run[p][c] = from[c];
  }
  // The same of the i-th of the kSteps of a sub-block, times its scales.
  template <int kSteps>
  void add_scaled(int i, int s, const B (&w)[NP], const int8_t* const (&x)[NC],
                  const SubScale (&scale)[NP]) {
    for (int c = 0; c < NC; ++c) {
      const B a = bsplat4(x[c] + 4 * s);
      for (int p = 0; p < NP; ++p)
        dot_step_scaled<C, kSteps>(total[p][c], run[p][c], i, w[p], a, scale[p]);
    }
  }
  // Those of column c, by rows.
  I rows(int p, int c) const { return total[p][c]; }
};

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
