// From the options to a model that is ready to run.
#pragma once

#include <memory>

#include "chat/options.h"
#include "session/context.h"

namespace pyllamacpp {

// With as many of the layers asked for on the GPU as fit there, and says how many those are. Once
// interrupts are caught, Ctrl-C ends loading and evaluations. Throws Error.
std::unique_ptr<Context> load_model(const Options& options);

}  // namespace pyllamacpp
