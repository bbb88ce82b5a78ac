// What a driver says of a device: read once, for the list and for opening it.
#pragma once

#include <vector>

#include "backend/vulkan/gpu_list.h"
#include "backend/vulkan/vulkan_api.h"

namespace pyllamacpp::vk {

struct PhysicalDevice {
  VkPhysicalDevice handle = nullptr;
  GpuInfo info;
  VkPhysicalDeviceLimits limits{};
  VkPhysicalDeviceMemoryProperties memory{};
  uint64_t max_allocation = 0;  // bytes
  uint32_t queue_family = 0;    // one that computes
};

// In the order of list_gpus().
std::vector<PhysicalDevice> physical_devices();

}  // namespace pyllamacpp::vk
