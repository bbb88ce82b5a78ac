// One completion: evaluates the prompt, then yields text token by token. Stop strings are found at
// their earliest place across token borders, a tail that may become one is held back, and only
// whole UTF-8 characters leave. Python and the native program share this loop.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sample/sampler.h"
#include "session/context.h"
#include "session/stop_strings.h"
#include "text/utf8.h"

namespace pyllamacpp {

struct GenerationParams {
  int32_t max_tokens = -1;  // < 0: until the context is full
  int32_t min_tokens = 0;   // so many tokens come before an end-of-text token or a stop string
  std::vector<std::string> stop;
  SamplingParams sampling;
  bool ignore_eos = false;
};

enum class FinishReason { none, stop, length };

struct GenerationStep {
  std::string text;                                 // new text, may be empty
  int32_t token = -1;                               // the token sampled, -1: none in this step
  FinishReason finish_reason = FinishReason::none;  // not none: this was the last step
};

class Generation {
 public:
  // Reuses what the sequence already holds of `prompt`. Throws Error(context_full) when the prompt
  // leaves no room for a token, Error(invalid_argument) for an empty prompt.
  Generation(Context& context, int32_t sequence, std::vector<int32_t> prompt,
             GenerationParams params);

  // The first call evaluates the prompt. A cancelled step can be taken again. A token that ends
  // the text gives no text of its own.
  GenerationStep next();

  int32_t n_prompt_tokens() const { return n_prompt_tokens_; }
  int32_t n_generated() const { return n_generated_; }
  int32_t n_reused() const { return n_reused_; }  // tokens of the prompt found in the cache

 private:
  GenerationStep finish(FinishReason reason, std::string text, int32_t token);
  std::string tail();

  Context& context_;
  int32_t sequence_;
  GenerationParams params_;
  Sampler sampler_;
  StopStrings stops_;
  Utf8Stream utf8_;
  std::vector<int32_t> pending_;  // prompt or sampled, not yet in the cache
  int32_t n_prompt_tokens_ = 0;
  int32_t n_generated_ = 0;
  int32_t n_reused_ = 0;
  bool finished_ = false;
};

}  // namespace pyllamacpp
