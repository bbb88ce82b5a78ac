#include "session/streaming.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <vector>

#include "backend/vulkan/vulkan_backend.h"
#include "base/error.h"
#include "model/model.h"

namespace pyllamacpp {

namespace {

// Enough columns for the kernels of prompts on either side, few enough for a short measurement.
constexpr int32_t kRows = 64;

// Of one batch's feed-forward part, with its way to the stream and back: the best of several.
double best_seconds(Stream& stream, const LayerWeights& layer, int32_t n_rows, int64_t dim) {
  using Clock = std::chrono::steady_clock;
  constexpr double kEnough = 0.3;
  const std::vector<int32_t> tokens(static_cast<size_t>(n_rows));
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int32_t>& pages = positions;  // more than there are
  const SequenceRows sequence{0, n_rows, pages.data()};
  const BatchView batch{tokens, positions, {&sequence, 1}, {}};
  std::vector<float> x(tokens.size() * size_t(dim)), out(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(std::sin(double(i)));
  double best = INFINITY, total = 0;
  // The first pass also compiles shaders and reads the file.
  for (int pass = 0; pass < 2 || (pass < 8 && total < kEnough); ++pass) {
    const Clock::time_point start = Clock::now();
    stream.begin(batch);
    stream.write_rows(x.data());
    stream.feed_forward(layer);
    stream.read_rows(out.data());
    stream.submit();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

}  // namespace

int32_t least_streamed_rows(const StreamingRates& rates, const FeedForwardWork& work,
                            int32_t most_rows) {
  const double upload = double(work.weight_bytes) / rates.upload_bytes_per_second;
  const double gained_by_row = double(work.row_ops) / rates.cpu_ops_per_second -
                               double(work.row_ops) / rates.gpu_ops_per_second;
  if (!(gained_by_row > 0)) return 0;
  const double rows = std::floor(upload / gained_by_row) + 1;
  return rows <= double(most_rows) ? int32_t(rows) : 0;
}

FeedForwardWork feed_forward_work(const GgufSet& files) {
  FeedForwardWork work;
  for (const TensorInfo& t : files.tensors())
    if (t.name.starts_with("blk.0.ffn_") && t.shape.size() == 2) {
      work.weight_bytes += t.data.size();
      work.row_ops += 2 * t.n_elements();
    }
  return work;
}

StreamingRates measure_streaming(const GgufSet& files, const ModelConfig& config,
                                 const StreamShape& shape, Repack repack, size_t main_gpu) {
  const auto cpu = make_cpu_backend(repack, shape.n_threads_batch);
  const auto gpu = make_vulkan_backend(main_gpu);
  const LayerWeights on_cpu = load_feed_forward(files, config, 0, *cpu);
  const LayerWeights on_gpu = load_feed_forward(files, config, 0, *gpu);
  StreamShape small = shape;
  small.max_rows = std::min(kRows, shape.max_rows);
  small.max_pages = small.max_rows;
  small.n_vocab = 1;
  small.borrows = true;
  const auto cpu_stream = cpu->make_stream(small), gpu_stream = gpu->make_stream(small);
  const FeedForwardWork work = feed_forward_work(files);
  const auto rate = [&](Stream& stream, const LayerWeights& layer) {
    const double seconds = best_seconds(stream, layer, small.max_rows, small.dim);
    return double(work.row_ops) * small.max_rows / seconds;
  };
  StreamingRates rates;
  rates.cpu_ops_per_second = rate(*cpu_stream, on_cpu);
  rates.gpu_ops_per_second = rate(*gpu_stream, on_gpu);
  // With one row it is all but upload.
  const double seconds = best_seconds(*gpu_stream, on_cpu, 1, small.dim);
  rates.upload_bytes_per_second = double(work.weight_bytes) / seconds;
  return rates;
}

}  // namespace pyllamacpp
