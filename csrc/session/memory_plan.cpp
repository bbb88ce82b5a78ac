#include "session/memory_plan.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>
#include <vector>

#include "backend/vulkan/gpu_list.h"
#include "backend/vulkan/vulkan_backend.h"
#include "base/error.h"
#include "base/memory.h"
#include "model/config.h"

namespace pyllamacpp {

namespace {

// Of one layer, on every backend.
KvShape kv_shape(const ModelConfig& config, const ContextParams& params, int32_t page_tokens) {
  const int64_t n_pages = (kv_tokens(params, page_tokens) + page_tokens - 1) / page_tokens;
  return {n_pages, config.n_kv_heads, config.head_dim, params.type_k, params.type_v};
}

// Reads only the header: what Context allocates follows from it.
class Planner {
 public:
  Planner(const std::string& path, const ContextParams& params, const MetaOverrides& overrides,
          uint64_t adapters)
      : files_(GgufSet::open(path, overrides)), config_(read_config(files_)), adapters_(adapters) {
    const TensorInfo* table = files_.find_tensor("token_embd.weight");
    if (table) config_.n_vocab = int32_t(table->n_rows());
    tied_ = !files_.find_tensor("output.weight");
    const auto backend = make_cpu_backend(Repack::never, 1);
    params_ = with_defaults(config_, *backend, params);
    shape_ = stream_shape(config_, params_, backend->kv_page_tokens());
    kv_ = kv_shape(config_, params_, backend->kv_page_tokens());
  }

  // To the CPU; the first layer's is the last to leave it.
  bool leaves_feed_forward(const GpuPlan& gpu) const { return !on_gpu(1, gpu); }

  // Whether batches are to stream weights, whatever runs on the GPU besides. `pretended`: the GPU
  // is not the one that is here.
  StreamingPlan streaming(Repack repack, size_t main_gpu, bool pretended) const {
    StreamingPlan plan;
    plan.work = feed_forward_work(files_);
    const std::optional<int32_t> rows = rows_from_environment();
    if (rows) {
      plan.rows = *rows;
      plan.note = "PYLLAMACPP_STREAM_ROWS";
    } else if (pretended) {
      plan.note = "not measured, as no GPU of that memory is at hand";
    } else {
      try {
        plan.rates = measure_streaming(files_, config_, shape_, repack, main_gpu);
        plan.rows = least_streamed_rows(plan.rates, plan.work, shape_.max_rows);
        if (plan.rows == 0) plan.note = "the CPU is faster up to the largest batch";
      } catch (const Error& e) {
        if (e.kind() != ErrorKind::memory && e.kind() != ErrorKind::device) throw;
        plan.note = e.what();
      }
    }
    if (plan.rows > 0) {
      StreamShape borrowing = shape_;
      borrowing.borrows = true;
      plan.scratch = vulkan_stream_bytes(borrowing) - vulkan_stream_bytes(shape_);
    }
    return plan;
  }

  // What fits into `available` bytes of a GPU of the last n_layers, so that the CPU reads least.
  GpuPlan fit_gpu(int32_t n_layers, uint64_t available, const StreamingPlan& streaming = {}) const {
    if (!vulkan_supports_kv(params_.type_k, config_.head_dim) ||
        !vulkan_supports_kv(params_.type_v, config_.head_dim))
      return {.available = available,
              .obstacle =
                  "the GPU holds keys and values as f16, or as q8_0 or q4_0 of heads of "
                  "multiples of 32 values, of heads of up to 256 values"};
    const int32_t n_parts = config_.n_layers + 1;
    const int32_t most = n_layers < 0 ? n_parts : std::min(n_layers, n_parts);
    const std::vector<GpuPart> parts = gpu_parts();
    GpuPlan best = {.available = available};
    uint64_t least = UINT64_MAX;
    for (int32_t n = most; n > 0; --n)
      for (int32_t n_ffn = 0; n_ffn < n; ++n_ffn) {
        const GpuPlan plan = gpu_plan(parts, n, n_ffn, available, streaming);
        if (plan.total() > plan.usable()) continue;
        // What a crossing costs, as bytes that the CPU could read meanwhile: two waits of some 0.1
        // ms for a token; for a prompt all of its rows cross as well.
        constexpr uint64_t kCrossing = uint64_t{8} << 20;
        uint64_t cost = kCrossing * uint64_t(2 * n_ffn + (n < n_parts));
        for (size_t i = 0; i < parts.size(); ++i)
          if (!on_gpu(int32_t(i), plan)) cost += parts[i].stored + parts[i].kv;
        if (cost < least) {
          best = plan;
          least = cost;
        }
        break;  // with more of them on the CPU it would read more
      }
    return best;
  }

  MemoryPlan plan(Repack repack, uint64_t available, const GpuPlan& gpu) const {
    const auto backend = make_cpu_backend(repack, 1);
    MemoryPlan plan;
    plan.context = params_;
    plan.available = available;
    plan.repack = repack;
    plan.gpu = gpu;
    plan.adapters = adapters_;
    plan.parts.resize(size_t(n_halves()));
    for (int32_t i = 0; i < n_halves(); ++i) {
      PartPlan& part = plan.parts[size_t(i)];
      part.on_gpu = on_gpu(i, gpu);
      if (has_kv(i)) part.kv = part.on_gpu ? vulkan_kv_bytes(kv_) : backend->kv_bytes(kv_);
      if (!part.on_gpu) plan.kv += part.kv;
    }
    plan.scratch = uint64_t(config_.n_vocab) * sizeof(float);
    if (gpu.n_layers <= config_.n_layers || gpu.n_cpu_ffn > 0)
      plan.scratch += backend->stream_bytes(shape_);
    StreamShape gpu_shape = shape_;
    gpu_shape.borrows = gpu.streaming.rows > 0;
    if (gpu.n_layers > 0) plan.scratch += vulkan_stream_host_bytes(gpu_shape);
    uint64_t vectors = 0;
    for (const TensorInfo& t : files_.tensors()) {
      PartPlan& part = plan.parts[size_t(part_of(t))];
      const bool table = t.name == "token_embd.weight";  // rows are looked up in the file
      if (table) plan.mapped += t.data.size();
      if (table && !tied_) continue;
      const int64_t rows = int64_t(t.n_rows()), cols = int64_t(t.shape[0]);
      if (part.on_gpu) {
        part.weights += gpu_bytes(t);
      } else if (t.shape.size() == 1) {  // float32 copies
        part.weights += backend->vector_bytes(cols);
        vectors += backend->vector_bytes(cols);
      } else {
        const uint64_t packed = backend->matrix_bytes(t.type, rows, cols);
        plan.packed += packed;
        const bool streamed = gpu.streaming.rows > 0 && part_of(t) % 2;
        if ((packed == 0 && !table) || streamed) plan.mapped += t.data.size();
        part.weights += packed > 0 ? packed : t.data.size();
      }
    }
    plan.packed += vectors;
    const uint64_t least = plan.scratch + vectors + adapters_;
    const uint64_t left = available - std::min(available, least);
    plan.most_ctx = most_ctx(*backend, left, params_.type_k, params_.type_v);
    if (backend->supports_kv(DType::q8_0, config_.head_dim))
      plan.most_ctx_q8_0 = most_ctx(*backend, left, DType::q8_0, DType::q8_0);
    return plan;
  }

 private:
  // Of a half of a layer or of the head: bytes on a GPU, and of its weights in the file.
  struct GpuPart {
    uint64_t weights = 0, kv = 0, stored = 0;
  };

  int32_t n_halves() const { return 2 * config_.n_layers + 1; }
  bool has_kv(int32_t half) const { return half % 2 == 0 && half < 2 * config_.n_layers; }
  // As Model::backend() and ffn_backend() have it.
  bool on_gpu(int32_t half, const GpuPlan& gpu) const {
    return half / 2 - (half % 2 ? gpu.n_cpu_ffn : 0) > config_.n_layers - gpu.n_layers;
  }

  // Which half of a layer's a tensor is; the head's, to which a tied table belongs as its matrix.
  int32_t part_of(const TensorInfo& t) const {
    constexpr std::string_view kPrefix = "blk.";
    if (!t.name.starts_with(kPrefix)) return 2 * config_.n_layers;
    int32_t layer = 0;
    const char* end = t.name.data() + t.name.size();
    const auto [rest, error] = std::from_chars(t.name.data() + kPrefix.size(), end, layer);
    if (error != std::errc() || layer < 0 || layer >= config_.n_layers)
      return 2 * config_.n_layers;  // loading refuses it
    return 2 * layer + std::string_view(rest, size_t(end - rest)).starts_with(".ffn_");
  }

  static uint64_t gpu_bytes(const TensorInfo& t) {
    return t.shape.size() == 1
               ? vulkan_vector_bytes(int64_t(t.shape[0]))
               : vulkan_matrix_bytes(t.type, int64_t(t.n_rows()), int64_t(t.shape[0]));
  }

  std::vector<GpuPart> gpu_parts() const {
    std::vector<GpuPart> parts{size_t(n_halves())};
    for (int32_t i = 0; i < n_halves(); ++i)
      if (has_kv(i)) parts[size_t(i)].kv = vulkan_kv_bytes(kv_);
    for (const TensorInfo& t : files_.tensors()) {
      if (t.name == "token_embd.weight" && !tied_) continue;
      GpuPart& part = parts[size_t(part_of(t))];
      part.weights += gpu_bytes(t);
      part.stored += t.data.size();
    }
    return parts;
  }

  GpuPlan gpu_plan(const std::vector<GpuPart>& parts, int32_t n, int32_t n_cpu_ffn,
                   uint64_t available, const StreamingPlan& streaming) const {
    GpuPlan plan = {.n_layers = n, .n_cpu_ffn = n_cpu_ffn, .available = available};
    for (size_t i = 0; i < parts.size(); ++i)
      if (on_gpu(int32_t(i), plan)) {
        plan.weights += parts[i].weights;
        plan.kv += parts[i].kv;
      }
    plan.scratch = vulkan_stream_bytes(shape_);
    if (!leaves_feed_forward(plan)) return plan;
    plan.streaming = streaming;
    plan.scratch += streaming.scratch;
    return plan;
  }

  static std::optional<int32_t> rows_from_environment() {
    const char* text = std::getenv("PYLLAMACPP_STREAM_ROWS");
    if (!text || !*text) return std::nullopt;
    int32_t rows = 0;
    const auto [end, error] = std::from_chars(text, text + std::strlen(text), rows);
    if (error != std::errc() || *end || rows < 0 || rows > 1 << 20)
      fail(ErrorKind::invalid_argument, "PYLLAMACPP_STREAM_ROWS is '", text,
           "', expected a number of tokens, 0 for never");
    return rows;
  }

  int64_t most_ctx(const Backend& backend, uint64_t bytes, DType k, DType v) const {
    const int64_t page = backend.kv_page_tokens();
    const auto layer_bytes = [&](int64_t n_ctx) {
      ContextParams params = params_;
      params.n_ctx = int32_t(n_ctx);
      params.type_k = k;
      params.type_v = v;
      return backend.kv_bytes(kv_shape(config_, params, int32_t(page)));
    };
    const uint64_t n_layers = uint64_t(config_.n_layers);
    const uint64_t first = n_layers * layer_bytes(page);
    const uint64_t next = n_layers * layer_bytes(2 * page) - first;
    if (bytes < first) return 0;
    return int64_t((bytes - first) / std::max<uint64_t>(1, next) + 1) * page;
  }

  GgufSet files_;
  ModelConfig config_;
  ContextParams params_;
  StreamShape shape_;
  KvShape kv_;
  bool tied_ = false;
  uint64_t adapters_;
};

std::string size_text(uint64_t bytes) {
  std::ostringstream out;
  out.precision(2);
  out << std::fixed << double(bytes) / double(1 << 30) << " GiB";
  return out.str();
}

}  // namespace

MemoryPlan plan_memory(const std::string& path, const ContextParams& params, Repack repack,
                       uint64_t available, const GpuRequest& request,
                       const MetaOverrides& overrides, uint64_t adapters) {
  const Planner planner(path, params, overrides, adapters);
  if (available == 0) available = available_memory();
  GpuPlan gpu;
  const auto fit_gpu = [&](uint64_t gpu_available) {
    GpuPlan plan = planner.fit_gpu(request.n_layers, gpu_available);
    if (!request.streams || plan.n_layers == 0 || !planner.leaves_feed_forward(plan)) return plan;
    const StreamingPlan streaming =
        planner.streaming(repack, request.main_gpu, request.available > 0);
    const GpuPlan streamed = planner.fit_gpu(request.n_layers, gpu_available, streaming);
    if (streamed.n_layers > 0) return streamed;
    plan.streaming.note = "no layer fits beside it";
    return plan;
  };
  if (request.n_layers != 0 && request.available > 0) {
    gpu = fit_gpu(request.available);
  } else if (request.n_layers != 0) {
    const std::vector<GpuInfo> gpus = list_gpus();
    const std::optional<size_t> chosen = chosen_gpu(gpus, request.main_gpu);
    if (chosen)
      gpu = fit_gpu(gpus[*chosen].memory_free);
    else
      gpu.obstacle = gpus.empty() ? "no Vulkan driver found a GPU" : "PYLLAMACPP_DEVICE is cpu";
  }
  MemoryPlan plan = planner.plan(repack, available, gpu);
  if (repack == Repack::automatic && plan.own() + plan.own() / 10 + plan.mapped > available)
    plan = planner.plan(Repack::never, available, gpu);
  return plan;
}

ContextPlan plan_context(const Model& model, const ContextParams& params) {
  const ModelConfig& config = model.config();
  const int32_t page_tokens = model.backend(0).kv_page_tokens();
  ContextPlan plan;
  plan.context = with_defaults(config, model.backend(config.n_layers),
                               with_defaults(config, model.backend(0), params));
  plan.available = available_memory();
  const KvShape kv = kv_shape(config, plan.context, page_tokens);
  const StreamShape shape = stream_shape(config, plan.context, page_tokens);
  plan.own = uint64_t(config.n_vocab) * sizeof(float);
  bool uses_cpu = false;
  for (int32_t i = 0; i < config.n_layers; ++i) {
    const Backend& backend = model.backend(i);
    (&backend == model.gpu() ? plan.gpu : plan.own) += backend.kv_bytes(kv);
    uses_cpu |= &model.ffn_backend(i) != model.gpu();
  }
  if (uses_cpu || !model.gpu()) plan.own += make_cpu_backend(Repack::never, 1)->stream_bytes(shape);
  if (!model.gpu()) return plan;
  plan.gpu += vulkan_stream_bytes(shape);
  plan.own += vulkan_stream_host_bytes(shape);
  plan.gpu_available = model.gpu()->device_bytes_free();
  return plan;
}

void require_fit(const std::string& path, const MemoryPlan& plan) {
  if (plan.fits()) return;
  std::ostringstream fitting;
  if (plan.most_ctx > 0) fitting << "; a context of " << plan.most_ctx << " tokens would fit";
  if (plan.most_ctx_q8_0 > plan.most_ctx)
    fitting << (plan.most_ctx > 0 ? ", " : "; a context of ") << plan.most_ctx_q8_0
            << (plan.most_ctx > 0 ? " with q8_0 keys and values"
                                  : " tokens with q8_0 keys and values would fit");
  if (plan.packed > 0 && plan.own() - plan.packed <= plan.available)
    fitting << "; with repack=\"never\" the weights run from the file";
  const std::string adapters =
      plan.adapters == 0 ? "" : ", LoRA adapters " + size_text(plan.adapters);
  if (fitting.str().empty()) fitting << "; a smaller batch or model is needed";
  fail(ErrorKind::memory, path, " needs ", size_text(plan.own()), " of memory (keys and values of ",
       plan.context.n_ctx, " tokens ", size_text(plan.kv), ", weights ", size_text(plan.packed),
       ", working memory ", size_text(plan.scratch), adapters, ") and ", size_text(plan.available),
       " are available", fitting.str());
}

}  // namespace pyllamacpp
