#include "chat/speed.h"

#include <cstdio>

#include "session/work.h"

namespace pyllamacpp {

namespace {

std::string in_sentence(double rate, std::optional<double> share) {
  char text[96];
  int n = std::snprintf(text, sizeof text, ", %.1f tokens/s", rate);
  if (share)
    n += std::snprintf(text + n, sizeof text - size_t(n), " (%.0f%% of the machine's limit)",
                       100 * *share);
  return {text, size_t(n)};
}

}  // namespace

const CpuLimits& Speed::limits(const Context& context) {
  if (!limits_) limits_ = CpuLimitProbe(context.params().n_threads).measure();
  return *limits_;
}

std::string Speed::sentence(const Answer& a, const Context& context) {
  const bool is_measured = !context.model().gpu();  // nobody has measured a GPU's limits
  const Work work = work_of(context.model(), context.params().type_k, context.params().type_v);
  std::string text = "prompt " + std::to_string(a.n_prompt) + " tokens";
  if (a.n_reused > 0) text += ", " + std::to_string(a.n_reused) + " of them from the cache";
  if (const std::optional<double> rate = a.prompt_rate()) {
    std::optional<double> share;
    if (is_measured) {
      const CpuLimits& most = limits(context);
      const Work::Ops ops = work.prompt_ops(a.n_prompt - a.n_reused, a.n_reused);
      share =
          *rate * (ops.int8 / most.int_ops_per_second + ops.float32 / most.float_ops_per_second);
    }
    text += in_sentence(*rate, share);
  }
  text += "; answer " + std::to_string(a.n_tokens) + " tokens";
  if (const std::optional<double> rate = a.decode_rate()) {
    std::optional<double> share;
    if (is_measured)
      share =
          *rate * work.token_bytes(a.n_tokens - 1, a.n_prompt) / limits(context).bytes_per_second;
    text += in_sentence(*rate, share);
  }
  return text;
}

}  // namespace pyllamacpp
