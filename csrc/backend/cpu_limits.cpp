#include "backend/cpu_limits.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/memory.h"
#include "cpu/isa.h"

namespace pyllamacpp {

namespace {

constexpr int kPasses = 4;
constexpr int64_t kGranule = 1024;

double now() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

size_t fitting_bytes() {
  return size_t(std::clamp<uint64_t>(available_memory() / 4, uint64_t(1) << 26, uint64_t(1) << 30));
}

}  // namespace

CpuLimitProbe::CpuLimitProbe(int n_threads, size_t n_bytes)
    : kernels_(cpu::active_tier()),
      pool_(n_threads > 0 ? n_threads : default_thread_count()),
      memory_(n_bytes > 0 ? n_bytes : fitting_bytes(), "bandwidth probe"),
      operands_(cpu::kPeakBytes, "arithmetic probe") {
  if (n_bytes > 0 && n_bytes / kGranule < size_t(pool_.size()))
    fail(ErrorKind::invalid_argument, "a probe of ", n_bytes, " bytes is too small");
  std::memset(memory_.data(), 1, memory_.size());  // its own pages, not the system's page of zeros
}

// Of `work(thread, sink)`, which returns how much it did: per second, all threads together.
template <class Work>
double CpuLimitProbe::best_rate(const Work& work) {
  std::vector<double> done(size_t(pool_.size()));
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const double start = now();
    pool_.run(pool_.size(), [&](int thread) {
      float sink = 0;
      done[size_t(thread)] = work(thread, &sink);
      [[maybe_unused]] volatile float keep = sink;
    });
    const double seconds = now() - start;
    double total = 0;
    for (const double d : done) total += d;
    best = std::max(best, total / seconds);
  }
  return best;
}

CpuLimits CpuLimitProbe::measure() {
  const int64_t part = int64_t(memory_.size()) / kGranule / pool_.size() * kGranule;
  constexpr int64_t kRounds = 100000;
  const uint8_t* operands = operands_.as<uint8_t>();
  return {
      best_rate([&](int thread, float* sink) {
        kernels_.read_memory(memory_.as<uint8_t>() + thread * part, part, sink);
        return double(part);
      }),
      best_rate([&](int, float* sink) { return kernels_.int_peak(operands, kRounds, sink); }),
      best_rate([&](int, float* sink) { return kernels_.float_peak(operands, kRounds, sink); }),
  };
}

}  // namespace pyllamacpp
