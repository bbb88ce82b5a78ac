// Speed of every matrix product of every tier (PYLLAMACPP_ISA: of one) on one thread, weights warm in cache.
//   cmake --preset release -DPYLLAMACPP_BENCH=ON && cmake --build --preset release
//   build/release/bench_kernels [ROWS [K]]
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "base/buffer.h"
#include "cpu/isa.h"

using namespace pyllamacpp;

namespace {

// Processor seconds of one call, over at least 0.1 s of them: other work on the machine shows less.
template <class F>
double seconds(const F& f) {
  f();
  const std::clock_t start = std::clock();
  std::clock_t spent = 0;
  int n = 0;
  for (; spent < CLOCKS_PER_SEC / 10; spent = std::clock() - start, ++n) f();
  return double(spent) / CLOCKS_PER_SEC / n;
}

void measure(const cpu::KernelTable& tier, const cpu::TypeKernels& type, int64_t rows, int64_t k) {
  const Buffer weights(bytes_of(type.type, uint64_t(rows * k)), "weights");
  const Buffer scratch(type.scratch_bytes(k), "panels");
  Buffer packed;
  if (type.pack) {
    packed = Buffer(type.packed_bytes(rows, k), "packed weights");
    type.pack(weights.as<uint8_t>(), rows, k, 0, rows, packed.as<uint8_t>());
  }
  for (bool use_packed : {true, false}) {
    if (use_packed && !type.pack) continue;
    std::printf("| %s | %s %s |", tier.name, traits(type.type).name,
                use_packed ? "packed" : "rows");
    for (int64_t n_cols : {1, 4, 8, 64, 512}) {
      const Buffer x(cpu::act_bytes(type.act, k) * size_t(n_cols), "activations");
      const Buffer y(size_t(rows * n_cols) * sizeof(float), "results");
      const cpu::MatmulArgs args{(use_packed ? packed : weights).as<uint8_t>(),
                                 rows,
                                 k,
                                 0,
                                 rows,
                                 x.data(),
                                 n_cols,
                                 y.as<float>(),
                                 rows,
                                 false,
                                 scratch.as<uint8_t>()};
      const auto matmul = use_packed ? type.matmul_packed : type.matmul_rows;
      const double s = seconds([&] { matmul(args); });
      if (n_cols == 1) std::printf(" %.1f |", double(weights.size()) / s * 1e-9);
      std::printf(" %.0f |", 2.0 * double(rows * k * n_cols) / s * 1e-9);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

// What a thread of the tier can do at most, by the entries of cpu/peak.h.
void measure_peaks(const cpu::KernelTable& tier) {
  const Buffer operands(cpu::kPeakBytes, "operands");
  float sink = 0;
  const auto peak = [&](auto entry) {
    constexpr int64_t kRounds = 10000;
    double done = 0;
    const double s = seconds([&] { done = entry(operands.as<uint8_t>(), kRounds, &sink); });
    return done / s * 1e-9;
  };
  std::printf("| %s | peak: int8 %.0f Gop/s, float %.0f Gop/s |\n", tier.name, peak(tier.int_peak),
              peak(tier.float_peak));
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t rows = argc > 1 ? std::atoll(argv[1]) : 2048;
  const int64_t k = argc > 2 ? std::atoll(argv[2]) : 2048;
  if (rows <= 0 || k <= 0 || k % kSuperBlock != 0) {
    std::fprintf(stderr, "expected a number of rows and a multiple of %d\n", kSuperBlock);
    return 2;
  }
  std::printf(
      "| tier | type | GB/s, 1 column | Gop/s, 1 | 4 | 8 | 64 | 512 "
      "|\n|---|---|---|---|---|---|---|---|\n");
  std::vector<const cpu::KernelTable*> tiers = cpu::available_tiers();
  if (std::getenv("PYLLAMACPP_ISA")) tiers = {&cpu::active_tier()};
  for (const cpu::KernelTable* tier : tiers) {
    measure_peaks(*tier);
    for (int i = 0; i < tier->n_types; ++i) measure(*tier, tier->types[i], rows, k);
  }
  return 0;
}
