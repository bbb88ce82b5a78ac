#include "chat/answer.h"

#include <chrono>
#include <cstdio>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "chat/json.h"
#include "chat/screen.h"

namespace pyllamacpp {

namespace {

// Tokens per second; nothing where they are too few to tell.
std::optional<double> rate(int32_t n, double seconds) {
  if (n <= 0 || !(seconds > 0)) return std::nullopt;
  return n / seconds;
}

std::string in_json(std::optional<double> rate) {
  char text[48] = "null";
  if (rate) std::snprintf(text, sizeof text, "%.6g", *rate);
  return text;
}

const char* finish_reason(Answer::End end) {
  switch (end) {
    case Answer::End::finished:
      return "stop";
    case Answer::End::max_tokens:
    case Answer::End::context_full:
      return "length";
    case Answer::End::interrupted:
      break;
  }
  return "interrupted";
}

}  // namespace

std::optional<double> Answer::prompt_rate() const {
  return rate(n_prompt - n_reused, prompt_seconds);
}

std::optional<double> Answer::decode_rate() const { return rate(n_tokens - 1, decode_seconds); }

std::string Answer::json() const {
  std::string object = "{";
  const auto add = [&](std::string_view name, std::string_view value) {
    if (object.size() > 1) object += ", ";
    object += quoted(name, true);
    object += ": ";
    object += value;
  };
  add("text", quoted(text, true));
  add("finish_reason", quoted(finish_reason(end), true));
  add("prompt_tokens", std::to_string(n_prompt));
  add("cached_tokens", std::to_string(n_reused));
  add("completion_tokens", std::to_string(n_tokens));
  add("dropped_messages", std::to_string(n_dropped));
  add("context_shifts", std::to_string(n_shifts));
  add("prompt_tokens_per_s", in_json(prompt_rate()));
  add("completion_tokens_per_s", in_json(decode_rate()));
  object += '}';
  return object;
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
  try {
    for (bool is_first = true;; is_first = false) {
      const GenerationStep step = generation.next();
      if (is_first) first = Clock::now();
      screen.show(step.text);
      a.text += step.text;
      if (generation.n_shifts() > a.n_shifts) {
        a.n_shifts = generation.n_shifts();
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
