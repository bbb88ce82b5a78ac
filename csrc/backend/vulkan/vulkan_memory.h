// Weights and KV memory of the Vulkan backend, shared by its two source files.
#pragma once

#include <memory>

#include "backend/vulkan/ops.h"

namespace pyllamacpp::vk {

struct VulkanWeight final : Weight {
  DeviceMatrix matrix;
  Slice vector;  // float32
  bool is_table = false;
  bool uses_source() const override { return is_table; }
};

// Else another backend holds it: see StreamShape::borrows.
inline bool is_vulkan(const Weight& w) { return dynamic_cast<const VulkanWeight*>(&w); }

inline const VulkanWeight& as_vulkan(const Weight& w) {
  return static_cast<const VulkanWeight&>(w);
}

struct VulkanKvLayer final : KvLayer {
  DeviceKv kv;
  uint64_t k_page_bytes = 0, v_page_bytes = 0;  // of one head
};

// The device outlives the stream.
std::unique_ptr<Stream> make_vulkan_stream(Device& device, const StreamShape& shape);

}  // namespace pyllamacpp::vk
