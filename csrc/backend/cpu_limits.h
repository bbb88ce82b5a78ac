// What this machine can do at most, measured: the figures that speeds are held against.
#pragma once

#include <cstddef>

#include "base/buffer.h"
#include "base/thread_pool.h"
#include "cpu/kernel_table.h"

namespace pyllamacpp {

struct CpuLimits {
  double bytes_per_second;      // read from memory in order
  double int_ops_per_second;    // int8 multiplies and adds of the tier in use
  double float_ops_per_second;  // float32 multiplies and adds
};

class CpuLimitProbe {
 public:
  // Reads `n_bytes` of its own, which should be far more than the caches hold; 0: 1 GiB, or less
  // where there is little memory.
  explicit CpuLimitProbe(int n_threads, size_t n_bytes = 0);

  // The best of several passes, all threads together; takes some tenths of a second.
  CpuLimits measure();

 private:
  template <class Work>
  double best_rate(const Work& work);

  const cpu::KernelTable& kernels_;
  ThreadPool pool_;
  Buffer memory_, operands_;
};

}  // namespace pyllamacpp
