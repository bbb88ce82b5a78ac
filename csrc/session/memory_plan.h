// What a model and a context will take, known from the file's header before anything is loaded.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/cpu_backend.h"
#include "session/context.h"
#include "session/streaming.h"

namespace pyllamacpp {

// An attention or feed-forward part of a layer, or the head: what it takes where it runs.
struct PartPlan {
  bool on_gpu = false;
  uint64_t weights = 0;  // bytes in that backend's layout, or in the file's map
  uint64_t kv = 0;
};

// The layers to run on a GPU.
struct GpuRequest {
  int32_t n_layers = 0;    // as ModelParams::n_gpu_layers
  size_t main_gpu = 0;     // see chosen_gpu()
  uint64_t available = 0;  // bytes of its memory; 0: what the device says is free
  // Whether prompts may stream the feed-forward weights of layers on the CPU through it.
  bool streams = false;
};

// Whether they do, decided by what is measured here.
struct StreamingPlan {
  int32_t rows = 0;           // the least of a batch: ContextParams::stream_rows
  uint64_t scratch = 0;       // bytes of the GPU's memory for it, which its scratch counts
  FeedForwardWork work = {};  // of the first layer
  StreamingRates rates = {};  // zeros where they were not measured
  std::string note = {};      // why it is not done or not measured
};

// What of the model runs there, in bytes of the GPU's memory.
struct GpuPlan {
  int32_t n_layers = 0;   // counted from the end; the head is one
  int32_t n_cpu_ffn = 0;  // as ModelParams::n_cpu_ffn
  uint64_t weights = 0, kv = 0, scratch = 0;
  uint64_t available = 0;
  // Why none of the layers asked for can run there, whatever its memory; else empty.
  std::string obstacle = {};
  StreamingPlan streaming = {};

  uint64_t total() const { return weights + kv + scratch; }
  // Left to the driver, pipelines and displays: a tenth, and 256 MiB at least.
  uint64_t usable() const {
    const uint64_t reserve = std::max(available / 10, uint64_t{256} << 20);
    return available - std::min(available, reserve);
  }
};

// In bytes. Memory of our own can only be swapped; what is read from the file's map the system can
// drop and read again.
struct MemoryPlan {
  uint64_t mapped = 0;     // weights read from the file's map
  uint64_t packed = 0;     // weights in memory of our own, in the kernels' layout
  uint64_t kv = 0;         // keys and values of n_ctx tokens, of the layers on the CPU
  uint64_t scratch = 0;    // one batch, and the logits of its last token
  uint64_t adapters = 0;   // LoRA adapters, as the caller says
  uint64_t available = 0;  // what this process may still take
  Repack repack = Repack::never;
  ContextParams context;  // with the defaults filled in
  GpuPlan gpu;            // what it takes is in no other figure
  // Attention and feed-forward part of each layer in turn, then the head. A table that is looked up
  // in the file is in none of them.
  std::vector<PartPlan> parts;
  // The largest contexts that fit without a GPU, beside weights that are mapped: with these types
  // of keys and values, and with q8_0 for both (0 where heads do not allow it).
  int64_t most_ctx = 0;
  int64_t most_ctx_q8_0 = 0;

  uint64_t own() const { return packed + kv + scratch + adapters; }
  bool fits() const { return own() <= available; }
  // All of the weights can stay in memory while it runs.
  bool fits_in_memory() const { return own() + mapped <= available; }
};

// Repack::automatic packs where weights, context and a tenth more fit into what is available.
// available: 0 is what this process may take now. On the GPU runs what fits of the layers asked
// for, so placed that as little as possible is read by the CPU for a token: a layer that does not
// fit whole may leave its feed-forward part to the CPU. Where prompts may stream weights, the
// device and the CPU are measured first, unless PYLLAMACPP_STREAM_ROWS says how many rows a batch
// must have (0: never). overrides: of the file's metadata. adapters: bytes of the LoRA adapters
// that come beside it. Throws Error as loading the file would.
MemoryPlan plan_memory(const std::string& path, const ContextParams& params, Repack repack,
                       uint64_t available = 0, const GpuRequest& gpu = {},
                       const MetaOverrides& overrides = {}, uint64_t adapters = 0);

// What one more context of a loaded model takes, in bytes.
struct ContextPlan {
  ContextParams context;  // with the defaults filled in
  uint64_t own = 0, available = 0;
  uint64_t gpu = 0, gpu_available = 0;  // of the GPU's memory
};
ContextPlan plan_context(const Model& model, const ContextParams& params);

// Throws Error(memory) that says what would fit unless the plan fits.
void require_fit(const std::string& path, const MemoryPlan& plan);

}  // namespace pyllamacpp
