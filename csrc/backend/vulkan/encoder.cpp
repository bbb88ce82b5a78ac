#include "backend/vulkan/encoder.h"

#include <algorithm>

namespace pyllamacpp::vk {

namespace {

constexpr uint32_t kSetsPerPool = 256;
// Multiply-adds of one submission: a third of a second on a GPU of 0.2 TFLOP/s.
constexpr uint64_t kMostCost = uint64_t{1} << 35;
// Drivers end what hangs by themselves, and the device is lost then. Not to wait for what is merely
// slow would leave memory that is still in use.
constexpr uint64_t kTimeout = UINT64_MAX;

}  // namespace

Encoder::Encoder(Device& device) : device_(device) {
  const VkCommandPoolCreateInfo pool{VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, nullptr,
                                     VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                     device.queue_family()};
  check(device.call.CreateCommandPool(device.handle, &pool, nullptr, &command_pool_), "commands");
  for (Submission& s : submissions_) {
    const VkCommandBufferAllocateInfo commands{VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                               nullptr, command_pool_, 0, 1};
    check(device.call.AllocateCommandBuffers(device.handle, &commands, &s.commands), "commands");
    const VkFenceCreateInfo fence{VK_STRUCTURE_TYPE_FENCE_CREATE_INFO, nullptr, 0};
    check(device.call.CreateFence(device.handle, &fence, nullptr, &s.fence), "fence");
  }
}

Encoder::~Encoder() {
  for (Submission& s : submissions_) {
    if (s.running) device_.call.WaitForFences(device_.handle, 1, &s.fence, 1, kTimeout);
    device_.call.DestroyFence(device_.handle, s.fence, nullptr);
  }
  device_.call.DestroyCommandPool(device_.handle, command_pool_, nullptr);
  for (VkDescriptorPool pool : pools_)
    device_.call.DestroyDescriptorPool(device_.handle, pool, nullptr);
}

void Encoder::begin(uint64_t upload_bytes, uint64_t read_bytes) {
  for (Submission& s : submissions_) wait(s);
  recording_ = false;  // beginning a command buffer again forgets what it held
  for (VkDescriptorPool pool : pools_)
    check(device_.call.ResetDescriptorPool(device_.handle, pool, 0), "descriptors");
  sets_used_ = 0;
  staged_ = read_ = 0;
  if (upload_bytes > staging_.size())
    staging_ = Memory(device_, upload_bytes, Memory::Kind::upload, "upload buffer");
  if (read_bytes > readback_.size())
    readback_ = Memory(device_, read_bytes, Memory::Kind::readback, "read buffer");
}

void Encoder::wait(Submission& s) {
  if (!s.running) return;
  s.running = false;
  check(device_.call.WaitForFences(device_.handle, 1, &s.fence, 1, kTimeout), "waiting for work");
  check(device_.call.ResetFences(device_.handle, 1, &s.fence), "fence");
}

// The command buffer, after the barrier that orders what comes next behind all before.
VkCommandBuffer Encoder::record(Order order) {
  Submission& s = submissions_[current_];
  if (!recording_) {
    wait(s);
    const VkCommandBufferBeginInfo info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, nullptr,
                                        VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT, nullptr};
    check(device_.call.BeginCommandBuffer(s.commands, &info), "commands");
    recording_ = true;
    order = Order::after_last;  // behind the submission before
    cost_ = 0;
  }
  if (order == Order::after_last) {
    constexpr VkFlags kStages =
        VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    const VkMemoryBarrier barrier{VK_STRUCTURE_TYPE_MEMORY_BARRIER, nullptr,
                                  VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                                  VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                                      VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT};
    device_.call.CmdPipelineBarrier(s.commands, kStages, kStages, 0, 1, &barrier, 0, nullptr, 0,
                                    nullptr);
  }
  return s.commands;
}

VkDescriptorSet Encoder::new_set() {
  const size_t pool = sets_used_++ / kSetsPerPool;
  if (pool == pools_.size()) {
    const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, kSetsPerPool * kBindings};
    const VkDescriptorPoolCreateInfo info{
        VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO, nullptr, 0, kSetsPerPool, 1, &size};
    VkDescriptorPool made{};
    check(device_.call.CreateDescriptorPool(device_.handle, &info, nullptr, &made), "descriptors");
    pools_.push_back(made);
  }
  const VkDescriptorSetLayout layout = device_.set_layout();
  const VkDescriptorSetAllocateInfo info{VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO, nullptr,
                                         pools_[pool], 1, &layout};
  VkDescriptorSet set{};
  check(device_.call.AllocateDescriptorSets(device_.handle, &info, &set), "descriptors");
  return set;
}

void Encoder::dispatch(Shader shader, const Constants& constants,
                       std::initializer_list<Slice> bindings, const void* arguments,
                       uint32_t n_bytes, Groups groups, Order order, uint64_t cost) {
  const VkPipeline pipeline = device_.pipeline(shader, constants);
  const VkDescriptorSet set = new_set();
  VkDescriptorBufferInfo buffers[kBindings];
  VkWriteDescriptorSet writes[kBindings];
  uint32_t n = 0;
  for (const Slice& slice : bindings) {
    buffers[n] = {slice.buffer, slice.offset, slice.size};
    writes[n] = {VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET, nullptr, set,         n,      0, 1,
                 VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,      nullptr, &buffers[n], nullptr};
    ++n;
  }
  device_.call.UpdateDescriptorSets(device_.handle, n, writes, 0, nullptr);
  const VkCommandBuffer commands = record(order);
  device_.call.CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
  device_.call.CmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE,
                                     device_.pipeline_layout(), 0, 1, &set, 0, nullptr);
  device_.call.CmdPushConstants(commands, device_.pipeline_layout(), VK_SHADER_STAGE_COMPUTE_BIT, 0,
                                n_bytes, arguments);
  device_.call.CmdDispatch(commands, groups.x, groups.y, 1);
  cost_ += cost;
}

void* Encoder::upload(Slice to) {
  copy(staging_.slice(staged_, to.size), to);
  void* from = staging_.mapped() + staged_;
  staged_ += (to.size + 15) / 16 * 16;
  return from;
}

void* Encoder::upload_from(uint64_t place, Slice to) {
  copy(staging_.slice(place, to.size), to);  // waits for the submission before the last
  return staging_.mapped() + place;
}

const void* Encoder::read(Slice from) {
  copy(from, readback_.slice(read_, from.size));
  const void* to = readback_.mapped() + read_;
  read_ += (from.size + 15) / 16 * 16;
  return to;
}

void Encoder::copy(Slice from, Slice to) {
  const VkBufferCopy region{from.offset, to.offset, from.size};
  const VkCommandBuffer commands = record(Order::after_last);
  device_.call.CmdCopyBuffer(commands, from.buffer, to.buffer, 1, &region);
}

void Encoder::zero(Slice slice) {
  const VkCommandBuffer commands = record(Order::after_last);
  device_.call.CmdFillBuffer(commands, slice.buffer, slice.offset, slice.size, 0);
}

void Encoder::submit() {
  if (!recording_) return;
  Submission& s = submissions_[current_];
  // What was written for the CPU is there once the fence is signalled.
  const VkMemoryBarrier barrier{VK_STRUCTURE_TYPE_MEMORY_BARRIER, nullptr,
                                VK_ACCESS_TRANSFER_WRITE_BIT, VK_ACCESS_HOST_READ_BIT};
  device_.call.CmdPipelineBarrier(s.commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                                  VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, nullptr, 0,
                                  nullptr);
  check(device_.call.EndCommandBuffer(s.commands), "commands");
  device_.submit(s.commands, s.fence);
  s.running = true;
  recording_ = false;
  current_ = 1 - current_;
}

void Encoder::submit_if_long() {
  if (cost_ >= kMostCost) submit();
}

void Encoder::drop_buffers() {
  staging_ = Memory();
  readback_ = Memory();
}

void Encoder::finish() {
  submit();
  for (Submission& s : submissions_) wait(s);
  staged_ = read_ = 0;
}

}  // namespace pyllamacpp::vk
