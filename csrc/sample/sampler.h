// Turns logits into a token: biases, the steps in the order of SamplingParams::samplers, a draw.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sample/candidates.h"
#include "sample/dry.h"
#include "sample/sampling_params.h"

namespace pyllamacpp {

class Sampler {
 public:
  // `piece` gives the text in which DRY looks for sequence breakers; without it there are none.
  // Throws Error(invalid_argument) naming a parameter that is out of range.
  explicit Sampler(const SamplingParams& params, PieceOf piece = {});

  // A token of `logits` (one per vocabulary entry), `history` being the text so far, prompt
  // included, and `barred` tokens that may not be drawn. The draw depends on the seed, on how many
  // tokens were sampled before, on the logits and, with penalties or DRY, on the history; with
  // mirostat or adaptive-p also on how likely the tokens sampled before were. Throws
  // Error(invalid_argument) when a logit is NaN or plus infinity or no token is left, and is then
  // as if not called.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history = {},
                 std::span<const int32_t> barred = {});

  // The probabilities by which sample() would choose now, one per logit.
  std::vector<double> probabilities(std::span<const float> logits,
                                    std::span<const int32_t> history = {},
                                    std::span<const int32_t> barred = {});

 private:
  bool is_greedy() const;
  bool is_adaptive() const;
  double narrow(std::span<const float> logits, std::span<const int32_t> history,
                std::span<const int32_t> barred);
  void take(SamplerStep step, std::span<const int32_t> history);
  double weigh();

  void bias();
  void bar(std::span<const int32_t> tokens);
  void penalize(std::span<const int32_t> history);
  void penalize_repetitions(std::span<const int32_t> history);
  void keep_near_the_best();
  void drop_tail();
  void keep_typical();
  void keep_nucleus();
  void drop_likely();
  void scale();
  void keep_zipf_top();
  void keep_unsurprising();
  double aim(double total);

  SamplingParams params_;
  RepetitionFinder repetitions_;
  uint64_t n_sampled_ = 0;
  double surprise_limit_;  // mirostat's mu, in bits
  // adaptive-p: sums over the tokens drawn, older ones decayed, of their probabilities and of 1.
  double drawn_probability_, n_drawn_;
  double natural_total_ = 0;  // of the weights before adaptive-p changed them
  size_t n_vocab_ = 0;        // of the logits at hand
  Candidates candidates_;
  std::vector<float> weights_;  // of the candidates; these are kept: sampling allocates nothing
  std::vector<int32_t> tokens_;
  std::vector<int32_t> counts_;
  std::vector<std::pair<double, size_t>> distances_;
};

}  // namespace pyllamacpp
