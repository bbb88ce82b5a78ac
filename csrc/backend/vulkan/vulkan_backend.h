// The GPU implementation of the backend. Knows no Vulkan type: anything may include it.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace pyllamacpp {

// On the GPU that PYLLAMACPP_DEVICE names, or the first of list_gpus(). Throws Error(unsupported)
// where there is none, Error(device) where it cannot be opened.
std::unique_ptr<Backend> make_vulkan_backend();

}  // namespace pyllamacpp
