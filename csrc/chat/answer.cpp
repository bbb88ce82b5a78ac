#include "chat/answer.h"

#include <chrono>
#include <cstdio>
#include <utility>

#include "base/error.h"

namespace pyllamacpp {

namespace {

std::string rate(int32_t n, double seconds) {
  char text[48] = "";
  if (n > 0 && seconds > 0) std::snprintf(text, sizeof text, ", %.1f tokens/s", n / seconds);
  return text;
}

}  // namespace

std::string Answer::speed() const {
  std::string text = "prompt " + std::to_string(n_prompt) + " tokens";
  if (n_reused > 0) text += ", " + std::to_string(n_reused) + " of them from the cache";
  return text + rate(n_prompt - n_reused, prompt_seconds) + "; answer " + std::to_string(n_tokens) +
         " tokens" + rate(n_tokens - 1, decode_seconds);
}

Answer make_answer(Context& context, std::vector<int32_t> prompt, const GenerationParams& params,
                   Screen& screen) {
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;
  Generation generation(context, 0, std::move(prompt), params);
  Answer a;
  a.n_prompt = generation.n_prompt_tokens();
  a.n_reused = generation.n_reused();
  const Clock::time_point began = Clock::now();
  Clock::time_point first = began;
  int32_t n_shifts = 0;
  try {
    for (bool is_first = true;; is_first = false) {
      const GenerationStep step = generation.next();
      if (is_first) first = Clock::now();
      screen.show(step.text);
      a.text += step.text;
      if (generation.n_shifts() > n_shifts) {
        n_shifts = generation.n_shifts();
        screen.notice("the context of " + std::to_string(context.params().n_ctx) +
                      " tokens is full: the older half was dropped, " +
                      (params.n_keep > 0
                           ? "the first " + std::to_string(params.n_keep) + " tokens and "
                           : "") +
                      "the newer half stay");
      }
      if (step.finish_reason == FinishReason::none) continue;
      a.end = step.finish_reason == FinishReason::stop        ? Answer::End::finished
              : generation.n_generated() == params.max_tokens ? Answer::End::max_tokens
                                                              : Answer::End::context_full;
      break;
    }
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::cancelled) throw;
    if (generation.n_generated() == 0) first = Clock::now();
  }
  a.n_tokens = generation.n_generated();
  a.prompt_seconds = Seconds(first - began).count();
  a.decode_seconds = Seconds(Clock::now() - first).count();
  return a;
}

}  // namespace pyllamacpp
