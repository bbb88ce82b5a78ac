// The Vulkan loader and this process's one instance, made when first asked for and kept.
#pragma once

#include <string>
#include <vector>

#include "backend/vulkan/vulkan_api.h"

namespace pyllamacpp::vk {

struct Instance {
  VkInstance handle = nullptr;
  InstanceFunctions call;
  std::vector<VkPhysicalDevice> devices;
};

// nullptr where there is no loader, no driver or none that knows Vulkan 1.1.
const Instance* instance();

// With PYLLAMACPP_VK_VALIDATE=1: what the validation layer said since the last call.
std::vector<std::string> take_validation_messages();

// "out of memory on the device" and the like.
const char* result_text(VkResult result);

}  // namespace pyllamacpp::vk
