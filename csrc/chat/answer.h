// One answer, shown while it is made.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "chat/screen.h"
#include "session/generation.h"

namespace pyllamacpp {

struct Answer {
  enum class End { finished, max_tokens, context_full, interrupted };

  std::string text;
  End end = End::interrupted;
  int32_t n_prompt = 0;       // tokens the model saw
  int32_t n_reused = 0;       // of them, found in the cache
  int32_t n_tokens = 0;       // of the answer
  double prompt_seconds = 0;  // until the first token
  double decode_seconds = 0;  // from there to the last

  // Counts and tokens per second, as a sentence.
  std::string speed() const;
};

// Ctrl-C ends it. Throws what Generation does.
Answer make_answer(Context& context, std::vector<int32_t> prompt, const GenerationParams& params,
                   Screen& screen);

}  // namespace pyllamacpp
