// What a driver says of a device: read once, for the list and for opening it.
#pragma once

#include <vector>

#include "backend/vulkan/gpu_list.h"
#include "backend/vulkan/vulkan_api.h"

namespace pyllamacpp::vk {

// Of a product of cooperative matrices, m x k by k x n, of signed bytes with sums of 32 bits.
struct CooperativeShape {
  uint32_t m = 0, n = 0, k = 0;  // zeros: the device has none that serves
  uint32_t span = 0;  // of k, multiplied for the sum of 16: as matmul_cooperative.comp has it
};

struct PhysicalDevice {
  VkPhysicalDevice handle = nullptr;
  GpuInfo info;
  VkPhysicalDeviceLimits limits{};
  VkPhysicalDeviceMemoryProperties memory{};
  bool has_budget = false;  // its driver says what is free now
  bool has_integer_dot = false;
  CooperativeShape cooperative;
  bool uses_integer_dot = false;  // its tier is integer_dot or cooperative_matrix
  bool uses_cooperative = false;  // the latter
  uint64_t max_allocation = 0;    // bytes
  uint32_t queue_family = 0;      // one that computes
};

inline constexpr char kCooperativeExtension[] = "VK_KHR_cooperative_matrix";

// In the order of list_gpus().
std::vector<PhysicalDevice> physical_devices();

// Bytes of its memory that this process may take now; without a budget, all that there is.
uint64_t memory_free(PhysicalDevice device);

// Bytes of an environment variable such as PYLLAMACPP_VK_MEM_LIMIT=4G (powers of 1024). Throws
// Error(invalid_argument) for what is no size.
uint64_t size_from(const char* name, uint64_t otherwise);

}  // namespace pyllamacpp::vk
