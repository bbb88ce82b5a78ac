// One completion: evaluates the prompt, then yields text token by token. Stop strings are found at
// their earliest place across token borders, a tail that may become one is held back, and only
// whole UTF-8 characters leave. Python and the native program share this loop.
//
// Alone a generation is driven by next(). Several of one context are driven by evaluate(), which
// puts what they wait for into one batch, and by sample() of those that are then ready.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sample/sampler.h"
#include "session/context.h"
#include "session/stop_strings.h"
#include "text/utf8.h"

namespace pyllamacpp {

// What a text does that would outgrow the context.
enum class WhenFull {
  stop,
  shift,  // drops the older half of what comes after the first n_keep tokens and goes on
};

struct GenerationParams {
  int32_t max_tokens = -1;  // < 0: until the context is full
  int32_t min_tokens = 0;   // so many tokens come before an end-of-text token or a stop string
  std::vector<std::string> stop;
  SamplingParams sampling;
  bool ignore_eos = false;
  int32_t n_log_probs = -1;  // best tokens whose log-probability a step names; < 0: no step has any
  bool prompt_log_probs = false;  // of the prompt's tokens too; needs n_log_probs >= 0
  WhenFull when_full = WhenFull::stop;
  int32_t n_keep = 0;
  std::vector<int32_t> shown;  // control tokens that have text: their names
};

// Natural logarithms of the softmax of the logits as the model gave them.
struct LogProbs {
  float chosen;                                // of the token
  std::vector<std::pair<int32_t, float>> top;  // (token, log-probability), best first
};

enum class FinishReason { none, stop, length };

struct GenerationStep {
  std::string text;                                 // new text, may be empty
  int32_t token = -1;                               // the token sampled, -1: none in this step
  FinishReason finish_reason = FinishReason::none;  // not none: this was the last step
  std::optional<LogProbs> log_probs;
};

class Generation {
 public:
  // Reuses what the sequence already holds of `prompt`. Throws Error(context_full) when the prompt
  // leaves no room for a token, Error(invalid_argument) for an empty prompt.
  Generation(Context& context, int32_t sequence, std::vector<int32_t> prompt,
             GenerationParams params);

  // Alone: the first call evaluates the prompt. A cancelled step can be taken again. A token that
  // ends the text gives no text of its own.
  GenerationStep next();

  // Appends what the generations (all of one context, in different sequences) wait for, in one
  // batch of at most n_batch rows: sampled tokens first, so that no prompt holds up a text, then
  // prompts in order, as far as there is room. All or nothing, as Context::decode.
  static void evaluate(std::span<Generation* const> generations);
  // Pages of the cache that it would take; more than are free make it throw.
  static int32_t pages_to_evaluate(std::span<Generation* const> generations);
  // What is still to be evaluated before a token can be sampled.
  std::span<const int32_t> pending() const { return pending_; }
  // Whether the last evaluate() computed logits for sample(), which stay until the next one.
  bool ready() const { return n_outputs_ > 0; }
  std::span<const float> logits() const;
  // Tokens that the next ones are guessed to be; the next evaluate() checks them in the same pass.
  // Right guesses give the text that there would be without them, sooner.
  void guess(std::vector<int32_t> tokens);
  // The steps that the evaluation allows: one, and one more for each right guess. `changed`: logits
  // to use instead, `allowed`: bit i % 32 of word i / 32 says that token i may come; where only
  // end-of-text tokens may, min_tokens does not count. Both concern a single step. Throws as
  // Sampler::sample, and is then as if not called.
  std::vector<GenerationStep> sample(std::span<const float> changed = {},
                                     std::span<const uint32_t> allowed = {});
  // Ends the text here; returns what was held back of it.
  std::string end();
  // Empties the sequence and gives it up. resume() goes on in one that is free, evaluating all of
  // the text again but what that one holds of it.
  void interrupt();
  void resume(int32_t sequence);

  int32_t sequence() const { return sequence_; }
  bool finished() const { return finished_; }
  int32_t n_prompt_tokens() const { return n_prompt_tokens_; }
  int32_t n_generated() const { return n_generated_; }
  int32_t n_reused() const { return n_reused_; }  // tokens of the prompt found in the cache
  const std::string& stop_string() const { return stops_.found(); }  // that ended it; or empty
  int32_t n_shifts() const { return n_shifts_; }  // how often the start of the text was dropped
  // With prompt_log_probs: of the prompt's second token and those after it.
  const std::vector<LogProbs>& prompt_log_probs() const { return prompt_log_probs_; }

 private:
  template <class Take>
  static void share_batch(std::span<Generation* const> generations, const Take& take);
  std::pair<size_t, size_t> n_rows(int32_t most) const;
  BatchPiece take(int32_t most);
  void evaluated(const BatchPiece& piece, int32_t first_output);
  GenerationStep step(std::span<const float> logits, std::span<const uint32_t> allowed,
                      size_t n_history);
  GenerationStep finish(FinishReason reason, std::string text, int32_t token);
  std::span<const float> mask(std::span<const float> logits, std::span<const uint32_t> allowed);
  void reuse(size_t most);
  void shift();
  std::string tail();

  Context& context_;
  int32_t sequence_;
  GenerationParams params_;
  Sampler sampler_;
  StopStrings stops_;
  Utf8Stream utf8_;
  std::vector<int32_t> pending_;  // prompt or sampled, not yet in the cache
  std::vector<int32_t> guesses_;
  std::vector<int32_t> rows_;  // pending and guessed tokens of the evaluation at hand
  std::vector<float> masked_;
  std::vector<LogProbs> prompt_log_probs_;
  int32_t first_output_ = 0;  // of the context's outputs
  int32_t n_outputs_ = 0;
  int32_t n_prompt_tokens_ = 0;
  int32_t n_generated_ = 0;
  int32_t n_reused_ = 0;
  int32_t n_shifts_ = 0;
  bool finished_ = false;
};

}  // namespace pyllamacpp
