// Weights and KV memory of the CPU backend, shared by its two source files.
#pragma once

#include "backend/backend.h"
#include "base/buffer.h"
#include "cpu/kernel_table.h"

namespace pyllamacpp {

struct CpuWeight final : Weight {
  WeightSource source;
  const cpu::TypeKernels* kernels = nullptr;  // null: a table or a vector
  Buffer packed;  // the kernels' layout, or a vector's floats; empty: used as it lies in the file
  bool uses_source() const override { return packed.size() == 0; }
};

inline const CpuWeight& as_cpu(const Weight& w) { return static_cast<const CpuWeight&>(w); }

// K as [page][kv_head][head_dim][kPageTokens], V as [page][kv_head][kPageTokens][head_dim].
struct CpuKvLayer final : KvLayer {
  Buffer k, v;
  int64_t page_halves = 0;  // of a page in each buffer
};

std::unique_ptr<Stream> make_cpu_stream(const cpu::KernelTable& kernels, const StreamShape& shape);

}  // namespace pyllamacpp
