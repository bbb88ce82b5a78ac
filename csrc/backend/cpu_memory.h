// Weights and KV memory of the CPU backend, shared by its two source files.
#pragma once

#include "backend/backend.h"
#include "base/buffer.h"
#include "cpu/kernel_table.h"

namespace pyllamacpp {

struct CpuWeight final : Weight {
  const cpu::TypeKernels* kernels = nullptr;  // null: a table or a vector
  // The kernels' layout, or a vector's floats, in the backend's arena; null: as it lies in the
  // file.
  std::byte* packed = nullptr;
  const float* floats() const { return reinterpret_cast<const float*>(packed); }
  bool uses_source() const override { return !packed; }
};

inline const CpuWeight& as_cpu(const Weight& w) { return static_cast<const CpuWeight&>(w); }

// Keys or values of one layer: [page][kv_head], in the layout of their type.
struct CpuKvSide {
  const cpu::KvKernels* type = nullptr;
  Buffer data;
  int64_t head_bytes = 0;  // of one head in one page
  int64_t page_bytes = 0;
  uint8_t* at(int64_t page, int64_t head) const {
    return data.as<uint8_t>() + page * page_bytes + head * head_bytes;
  }
};

struct CpuKvLayer final : KvLayer {
  CpuKvSide k, v;
  int32_t head_dim = 0;
  int32_t n_heads = 0;
};

size_t cpu_stream_bytes(const cpu::KernelTable& kernels, const StreamShape& shape);
std::unique_ptr<Stream> make_cpu_stream(const cpu::KernelTable& kernels, const StreamShape& shape);

}  // namespace pyllamacpp
