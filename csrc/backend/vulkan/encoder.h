// Records work for the device and submits it. Everything recorded runs in order: a barrier stands
// between any two commands, written in one place, except where `Order::with_last` says that two
// touch different memory. One per context; not for several threads.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "backend/vulkan/device.h"

namespace pyllamacpp::vk {

enum class Order { after_last, with_last };

class Encoder {
 public:
  explicit Encoder(Device& device);
  ~Encoder();
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  // Forgets what was recorded and not submitted, waits for the rest, and makes room for
  // `upload_bytes` of uploads and `read_bytes` of reads before the next begin.
  void begin(uint64_t upload_bytes, uint64_t read_bytes);

  // Frees what uploads and reads have taken so far; after finish().
  void drop_buffers();

  struct Groups {
    uint32_t x = 1, y = 1;  // each at most kMostGroups
  };
  // `arguments`: the shader's push constants. `cost`: multiply-adds, roughly; see kMostCost.
  template <class Arguments>
  void dispatch(Shader shader, const Constants& constants, std::initializer_list<Slice> bindings,
                const Arguments& arguments, Groups groups, Order order = Order::after_last,
                uint64_t cost = 0) {
    static_assert(sizeof(Arguments) <= kPushBytes && sizeof(Arguments) % 4 == 0);
    dispatch(shader, constants, bindings, &arguments, sizeof(Arguments), groups, order, cost);
  }
  // Where to write what is copied to `to`, before the next submission.
  void* upload(Slice to);
  // The same from a place in the room for uploads that is the caller's own, beyond what upload()
  // uses between two finish(). It is free again once a submission without it was begun.
  void* upload_from(uint64_t place, Slice to);
  // Copies; the result is where this points after finish().
  const void* read(Slice from);
  void zero(Slice slice);
  void copy(Slice from, Slice to);

  void submit();
  // Submits what was recorded once it is more than a device should be asked for at once, so that no
  // watchdog ends it and a cancelled evaluation stops soon.
  void submit_if_long();
  // Submits, waits, and throws Error(device) if the device failed.
  void finish();

 private:
  struct Submission {
    VkCommandBuffer commands = nullptr;
    VkFence fence{};
    bool running = false;
  };

  void dispatch(Shader shader, const Constants& constants, std::initializer_list<Slice> bindings,
                const void* arguments, uint32_t n_bytes, Groups groups, Order order, uint64_t cost);
  VkCommandBuffer record(Order order);
  void wait(Submission& submission);
  VkDescriptorSet new_set();

  Device& device_;
  VkCommandPool command_pool_{};
  Submission submissions_[2];  // one is recorded while the other runs
  int current_ = 0;
  bool recording_ = false;
  uint64_t cost_ = 0;
  std::vector<VkDescriptorPool> pools_;
  size_t sets_used_ = 0;
  Memory staging_, readback_;
  uint64_t staged_ = 0, read_ = 0;
};

}  // namespace pyllamacpp::vk
