#include "backend/vulkan/device.h"

#include <algorithm>
#include <utility>

#include "backend/vulkan/instance.h"
#include "base/error.h"

namespace pyllamacpp::vk {

void check(VkResult result, const char* what) {
  if (result == VK_SUCCESS) return;
  const bool memory =
      result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY;
  fail(memory ? ErrorKind::memory : ErrorKind::device, "GPU: ", what, ": ", result_text(result),
       " (VkResult ", result, ")");
}

Device::Device(const PhysicalDevice& physical) : physical_(physical) {
  const VkPhysicalDeviceLimits& l = limits();
  alignment_ = std::max<uint64_t>(l.minStorageBufferOffsetAlignment, 16);
  max_allocation_ = size_from("PYLLAMACPP_VK_MAX_ALLOC", physical_.max_allocation);
  memory_limit_ = size_from("PYLLAMACPP_VK_MEM_LIMIT", UINT64_MAX);
  const uint64_t binding = size_from("PYLLAMACPP_VK_MAX_BIND", l.maxStorageBufferRange);
  // Whole vectors of 16 bytes, so that alignment never exceeds it.
  max_slice_ = std::min({binding, uint64_t(l.maxStorageBufferRange), max_allocation_}) / 256 * 256;

  const Instance& vulkan = *instance();
  const float priority = 1;
  const VkDeviceQueueCreateInfo queue{
      VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, nullptr, 0, physical_.queue_family, 1, &priority};
  if (physical_.uses_integer_dot && !physical_.has_integer_dot)
    fail(ErrorKind::unsupported, "PYLLAMACPP_VK_TIER is ", physical_.info.tier, ", and ",
         physical_.info.name, " has no integer dot products");
  if (physical_.uses_cooperative && physical_.cooperative.m == 0)
    fail(ErrorKind::unsupported, "PYLLAMACPP_VK_TIER is ", physical_.info.tier, ", and ",
         physical_.info.name, " has no cooperative matrices of bytes");
  // What matmul_cooperative.comp needs: all of these.
  VkPhysicalDeviceShaderFloat16Int8Features bytes{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES, nullptr, 0, 1};
  VkPhysicalDeviceVulkanMemoryModelFeatures model{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES, &bytes, 1, 0, 0};
  VkPhysicalDeviceSubgroupSizeControlFeatures subgroups{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES, &model, 0, 1};
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrices{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, &subgroups, 1, 0};
  const VkPhysicalDeviceShaderIntegerDotProductFeatures dot{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES,
      physical_.uses_cooperative ? &matrices : nullptr, 1};
  const char* extension = kCooperativeExtension;
  const VkDeviceCreateInfo info{VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                physical_.uses_integer_dot ? &dot : nullptr,
                                0,
                                1,
                                &queue,
                                0,
                                nullptr,
                                physical_.uses_cooperative ? 1u : 0u,
                                &extension,
                                nullptr};
  check(vulkan.call.CreateDevice(physical_.handle, &info, nullptr, &handle), "opening the device");
#define PYLLAMACPP_VK_LOAD(Result, name, parameters) \
  call.name =                                        \
      reinterpret_cast<Result(*) parameters>(vulkan.call.GetDeviceProcAddr(handle, "vk" #name));
  PYLLAMACPP_VK_DEVICE(PYLLAMACPP_VK_LOAD)
#undef PYLLAMACPP_VK_LOAD
  call.GetDeviceQueue(handle, physical_.queue_family, 0, &queue_);

  VkDescriptorSetLayoutBinding bindings[kBindings];
  for (uint32_t i = 0; i < kBindings; ++i)
    bindings[i] = {i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, nullptr};
  const VkDescriptorSetLayoutCreateInfo set{VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
                                            nullptr, 0, kBindings, bindings};
  check(call.CreateDescriptorSetLayout(handle, &set, nullptr, &set_layout_), "set layout");
  const VkPushConstantRange push{VK_SHADER_STAGE_COMPUTE_BIT, 0, kPushBytes};
  const VkPipelineLayoutCreateInfo layout{
      VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, nullptr, 0, 1, &set_layout_, 1, &push};
  check(call.CreatePipelineLayout(handle, &layout, nullptr, &pipeline_layout_), "pipeline layout");
}

Device::~Device() {
  if (!handle) return;
  call.DeviceWaitIdle(handle);
  for (const auto& [key, pipeline] : pipelines_) call.DestroyPipeline(handle, pipeline, nullptr);
  call.DestroyPipelineLayout(handle, pipeline_layout_, nullptr);
  call.DestroyDescriptorSetLayout(handle, set_layout_, nullptr);
  call.DestroyDevice(handle, nullptr);
}

uint64_t Device::memory_free() const {
  const uint64_t limit = memory_limit_ - std::min<uint64_t>(memory_limit_, allocated_);
  uint64_t left = vk::memory_free(physical_);
  if (!physical_.has_budget) left -= std::min<uint64_t>(left, allocated_);
  return std::min(left, limit);
}

VkPipeline Device::pipeline(Shader shader, const Constants& constants) {
  const std::lock_guard lock(pipelines_mutex_);
  VkPipeline& pipeline = pipelines_[{shader, constants}];
  if (pipeline != VkPipeline{}) return pipeline;
  const Spirv& spirv = kSpirv[size_t(shader)];
  const VkShaderModuleCreateInfo source{VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, nullptr, 0,
                                        spirv.n_bytes, spirv.words};
  VkShaderModule module{};
  check(call.CreateShaderModule(handle, &source, nullptr, &module), "shader");
  VkSpecializationMapEntry entries[std::tuple_size_v<Constants>];
  for (uint32_t i = 0; i < constants.size(); ++i) entries[i] = {i, i * 4, 4};
  const VkSpecializationInfo special{uint32_t(constants.size()), entries, sizeof(Constants),
                                     constants.data()};
  const VkFlags flags = shader == Shader::matmul_cooperative
                            ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT
                            : 0;
  const VkComputePipelineCreateInfo info{
      VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
      nullptr,
      0,
      {VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO, nullptr, flags,
       VK_SHADER_STAGE_COMPUTE_BIT, module, "main", &special},
      pipeline_layout_,
      {},
      0};
  const VkResult result = call.CreateComputePipelines(handle, {}, 1, &info, nullptr, &pipeline);
  call.DestroyShaderModule(handle, module, nullptr);
  check(result, "compiling a shader");
  return pipeline;
}

void Device::submit(VkCommandBuffer commands, VkFence fence) {
  const VkSubmitInfo info{
      VK_STRUCTURE_TYPE_SUBMIT_INFO, nullptr, 0, nullptr, nullptr, 1, &commands, 0, nullptr};
  const std::lock_guard lock(queue_mutex_);
  check(call.QueueSubmit(queue_, 1, &info, fence), "submitting work");
}

// Of the types that serve, the one with most of what is liked.
uint32_t Device::memory_type(uint32_t allowed, Memory::Kind kind) const {
  constexpr VkFlags kMapped =
      VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  const bool device = kind == Memory::Kind::device;
  const VkFlags needed = device ? VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT : kMapped;
  int best = -1, best_score = -1;
  for (uint32_t i = 0; i < physical_.memory.memoryTypeCount; ++i) {
    const VkMemoryType& type = physical_.memory.memoryTypes[i];
    if (!(allowed >> i & 1) || (type.propertyFlags & needed) != needed) continue;
    // Weights: the largest heap, unmapped (a mapped window into it may be small). Uploads: out of
    // the device's memory; what the CPU reads: cached.
    const uint64_t heap = physical_.memory.memoryHeaps[type.heapIndex].size;
    const bool local = type.propertyFlags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    const bool cached = type.propertyFlags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    const bool mapped = type.propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
    const int score = device ? int(heap >> 20 & 0x3fffffff) * 2 + !mapped
                             : 2 * !local + (cached == (kind == Memory::Kind::readback));
    if (score > best_score) {
      best = int(i);
      best_score = score;
    }
  }
  if (best < 0) fail(ErrorKind::device, "GPU: no memory type of the device serves");
  return uint32_t(best);
}

Memory::Memory(Device& device, uint64_t size, Kind kind, const char* what) {
  size = std::max<uint64_t>(device.align(size), 256);
  Memory made;  // frees what there is if a step fails
  made.device_ = &device;
  const bool on_device = kind == Kind::device;
  const auto refuse = [&](const char* why) {
    fail(ErrorKind::memory, "not enough memory on ", device.info().name, " for the ", what, " (",
         size >> 20, " MiB): ", why);
  };
  if (size > device.max_allocation_) refuse("more than may be allocated at once");
  if (on_device) {
    const uint64_t before = device.allocated_.fetch_add(size);
    made.size_ = size;  // from here on it is counted
    if (before + size > device.memory_limit_) refuse("over PYLLAMACPP_VK_MEM_LIMIT");
  }
  const VkFlags usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                        VK_BUFFER_USAGE_STORAGE_BUFFER_BIT;
  const VkBufferCreateInfo buffer{
      VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, nullptr, 0, size, usage, 0, 0, nullptr};
  const auto require = [&](VkResult result) {
    if (result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY)
      refuse(result_text(result));
    check(result, what);
  };
  require(device.call.CreateBuffer(device.handle, &buffer, nullptr, &made.buffer_));
  VkMemoryRequirements needs;
  device.call.GetBufferMemoryRequirements(device.handle, made.buffer_, &needs);
  const VkMemoryAllocateInfo allocation{VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, nullptr, needs.size,
                                        device.memory_type(needs.memoryTypeBits, kind)};
  require(device.call.AllocateMemory(device.handle, &allocation, nullptr, &made.memory_));
  require(device.call.BindBufferMemory(device.handle, made.buffer_, made.memory_, 0));
  if (!on_device) {
    void* address = nullptr;
    require(device.call.MapMemory(device.handle, made.memory_, 0, needs.size, 0, &address));
    made.mapped_ = static_cast<std::byte*>(address);
    made.size_ = size;
  }
  swap(made);
}

Memory::~Memory() {
  if (!device_) return;
  device_->call.DestroyBuffer(device_->handle, buffer_, nullptr);
  device_->call.FreeMemory(device_->handle, memory_, nullptr);
  if (!mapped_) device_->allocated_ -= size_;
}

void Memory::swap(Memory& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(size_, other.size_);
  std::swap(buffer_, other.buffer_);
  std::swap(memory_, other.memory_);
  std::swap(mapped_, other.mapped_);
}

void DeviceArena::reserve(uint64_t size) {
  constexpr uint64_t kMost = uint64_t{1} << 30;
  if (size == 0 || size > std::min(kMost, device_.max_allocation())) return;
  shared_.emplace_back(device_, size, Memory::Kind::device, what_);
  used_ = 0;
}

Slice DeviceArena::take(uint64_t size) {
  // What is large gets its own, so that little is left over at the end of shared blocks.
  constexpr uint64_t kLarge = uint64_t{8} << 20, kBlock = uint64_t{32} << 20;
  if (shared_.empty() || used_ + size > shared_.back().size()) {
    if (size >= kLarge)
      return large_.emplace_back(device_, size, Memory::Kind::device, what_).slice(0, size);
    shared_.emplace_back(device_, std::max(size, std::min(kBlock, device_.max_slice())),
                         Memory::Kind::device, what_);
    used_ = 0;
  }
  const Slice slice = shared_.back().slice(used_, size);
  used_ = device_.align(used_ + size);
  return slice;
}

}  // namespace pyllamacpp::vk
