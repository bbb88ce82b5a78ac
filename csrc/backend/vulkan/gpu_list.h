// The GPUs this machine has, as users see them. Knows no Vulkan type: anything may include it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pyllamacpp {

struct GpuInfo {
  std::string name;
  std::string driver;
  std::string kind;          // "discrete", "integrated", "virtual" or "software"
  uint64_t memory = 0;       // bytes of the device's own memory
  uint64_t memory_free = 0;  // of these, what this process may take now, where the driver says so
  // Beyond what is required, of "fp16", "int8", "dot" and "matrix".
  std::vector<std::string> features;
  // Of shaders: "core", "integer_dot" or "cooperative_matrix", chosen by the features or by
  // PYLLAMACPP_VK_TIER.
  std::string tier;
};

// Those that can run models, best first: discrete, virtual, integrated. Software renderers come
// last, and only with PYLLAMACPP_VK_ALLOW_CPU=1, as the CPU's own kernels are far faster. Empty
// where there is no Vulkan loader or no driver.
std::vector<GpuInfo> list_gpus();

// The index in list_gpus() that PYLLAMACPP_DEVICE names: a number, part of a name, or "cpu" for
// none. Without it number `main_gpu`; nothing where the list is empty. Throws
// Error(invalid_argument) for one that is not there.
std::optional<size_t> chosen_gpu(const std::vector<GpuInfo>& gpus, size_t main_gpu = 0);

// With PYLLAMACPP_VK_VALIDATE=1: what Vulkan's validation layers said since the last call.
std::vector<std::string> take_gpu_messages();

}  // namespace pyllamacpp
