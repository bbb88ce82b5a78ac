// How fast an answer was, and what share of this machine's limits that is, as `bench` counts.
#pragma once

#include <optional>
#include <string>

#include "backend/cpu_limits.h"
#include "chat/answer.h"
#include "session/context.h"

namespace pyllamacpp {

// Of answers on this machine, whose limits are measured when they are first asked for, some 2 s.
class Speed {
 public:
  // Tokens, tokens per second and, where the CPU does all of it, shares of its limits.
  std::string sentence(const Answer& answer, const Context& context);

 private:
  const CpuLimits& limits(const Context& context);

  std::optional<CpuLimits> limits_;
};

}  // namespace pyllamacpp
