// One answer, shown while it is made.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "session/generation.h"

namespace pyllamacpp {

class Screen;

struct Answer {
  enum class End { finished, max_tokens, context_full, interrupted };

  std::string text;
  End end = End::interrupted;
  int32_t n_prompt = 0;       // tokens the model saw
  int32_t n_reused = 0;       // of them, found in the cache
  int32_t n_tokens = 0;       // of the answer
  int32_t n_dropped = 0;      // messages that the model stopped seeing for it
  int32_t n_shifts = 0;       // how often the older half of the text was dropped meanwhile
  double prompt_seconds = 0;  // until the first token
  double decode_seconds = 0;  // from there to the last

  // Tokens per second of the prompt's new part and of the answer; nothing: too few to tell.
  std::optional<double> prompt_rate() const;
  std::optional<double> decode_rate() const;
  // All of it as an object of JSON on one line, as `pyllamacpp chat --json` writes it.
  std::string json() const;
};

// Ctrl-C ends it. Throws what Generation does.
Answer make_answer(Context& context, std::vector<int32_t> prompt, const GenerationParams& params,
                   Screen& screen);

}  // namespace pyllamacpp
