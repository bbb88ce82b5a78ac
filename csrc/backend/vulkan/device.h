// An opened GPU: its memory and its pipelines. Shared by the threads of all contexts.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "backend/vulkan/physical_device.h"
#include "backend/vulkan/spirv.h"
#include "backend/vulkan/vulkan_api.h"

namespace pyllamacpp::vk {

// Throws Error(memory) or Error(device) naming what was tried, unless the result is success.
void check(VkResult result, const char* what);

inline constexpr uint32_t kBindings = 6;        // most storage buffers of a shader
inline constexpr uint32_t kPushBytes = 64;      // most bytes of a shader's arguments
inline constexpr uint32_t kMostGroups = 65535;  // of one dispatch, in each direction
using Constants = std::array<uint32_t, 10>;     // specialization constants 0, 1, ..

// To what slices are aligned where it must be known without a device: no device asks for more.
constexpr uint64_t aligned(uint64_t n_bytes) { return (n_bytes + 255) / 256 * 256; }

// Part of a buffer, as a shader sees it.
struct Slice {
  VkBuffer buffer{};
  uint64_t offset = 0, size = 0;
};

class Device;

// One allocation and the buffer that fills it.
class Memory {
 public:
  enum class Kind { device, upload, readback };  // the last two are mapped

  Memory() = default;
  // Throws Error(memory) naming `what`.
  Memory(Device& device, uint64_t size, Kind kind, const char* what);
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Memory();

  uint64_t size() const { return size_; }
  Slice slice(uint64_t offset, uint64_t size) const { return {buffer_, offset, size}; }
  Slice all() const { return {buffer_, 0, size_}; }
  std::byte* mapped() const { return mapped_; }

 private:
  void swap(Memory& other) noexcept;

  Device* device_ = nullptr;
  uint64_t size_ = 0;
  VkBuffer buffer_{};
  VkDeviceMemory memory_{};
  std::byte* mapped_ = nullptr;
};

// Hands out parts of allocations, which live as long as the arena.
class DeviceArena {
 public:
  DeviceArena(Device& device, const char* what) : device_(device), what_(what) {}
  // Allocates so much at once, for parts whose aligned() sizes add up to it. What is more than a
  // driver may give at once is left to take().
  void reserve(uint64_t size);
  // `size` is at most Device::max_slice().
  Slice take(uint64_t size);

 private:
  Device& device_;
  const char* what_;
  std::vector<Memory> large_, shared_;
  uint64_t used_ = 0;  // bytes of the last shared one
};

class Device {
 public:
  // Throws Error(device) where the driver does not open it.
  explicit Device(const PhysicalDevice& physical);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const GpuInfo& info() const { return physical_.info; }
  const VkPhysicalDeviceLimits& limits() const { return physical_.limits; }
  uint32_t queue_family() const { return physical_.queue_family; }
  bool uses_integer_dot() const { return physical_.uses_integer_dot; }
  bool uses_cooperative() const { return physical_.uses_cooperative; }
  const CooperativeShape& cooperative() const { return physical_.cooperative; }
  // Most bytes of a slice: the least of what may be allocated and what may be bound at once.
  uint64_t max_slice() const { return max_slice_; }
  uint64_t align(uint64_t offset) const {
    return (offset + alignment_ - 1) / alignment_ * alignment_;
  }
  uint64_t max_allocation() const { return max_allocation_; }
  uint64_t allocated() const { return allocated_; }  // bytes of Kind::device
  // Bytes that it may still give, as far as is known.
  uint64_t memory_free() const;

  // Compiled when first asked for, and kept. Constants that a shader does not have are ignored.
  VkPipeline pipeline(Shader shader, const Constants& constants);
  VkPipelineLayout pipeline_layout() const { return pipeline_layout_; }
  VkDescriptorSetLayout set_layout() const { return set_layout_; }
  void submit(VkCommandBuffer commands, VkFence fence);

  VkDevice handle = nullptr;
  DeviceFunctions call;

 private:
  friend class Memory;
  uint32_t memory_type(uint32_t allowed, Memory::Kind kind) const;

  PhysicalDevice physical_;
  uint64_t max_slice_ = 0, max_allocation_ = 0, memory_limit_ = 0, alignment_ = 0;
  std::atomic<uint64_t> allocated_ = 0;
  VkQueue queue_ = nullptr;
  VkDescriptorSetLayout set_layout_{};
  VkPipelineLayout pipeline_layout_{};
  std::mutex queue_mutex_, pipelines_mutex_;
  std::map<std::pair<Shader, Constants>, VkPipeline> pipelines_;
};

}  // namespace pyllamacpp::vk
