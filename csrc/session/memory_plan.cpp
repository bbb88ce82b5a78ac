#include "session/memory_plan.h"

#include <algorithm>
#include <charconv>
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

// Reads only the header: what Context allocates follows from it.
class Planner {
 public:
  Planner(const std::string& path, const ContextParams& params, const MetaOverrides& overrides,
          uint64_t adapters)
      : files_(GgufSet::open(path, overrides)), config_(read_config(files_)), adapters_(adapters) {
    if (const TensorInfo* table = files_.find_tensor("token_embd.weight"))
      config_.n_vocab = int32_t(table->n_rows());
    params_ = with_defaults(config_, *make_cpu_backend(Repack::never, 1), params);
  }

  // The most of the layers asked for that fit into `available` bytes of a GPU.
  GpuPlan fit_gpu(int32_t n_layers, uint64_t available) const {
    const int32_t n_parts = config_.n_layers + 1;
    if (!vulkan_supports_kv(params_.type_k, config_.head_dim) ||
        !vulkan_supports_kv(params_.type_v, config_.head_dim))
      return {.available = available,
              .obstacle =
                  "the GPU holds keys and values as f16, or as q8_0 or q4_0 of heads of "
                  "multiples of 32 values, of heads of up to 256 values"};
    for (int32_t n = n_layers < 0 ? n_parts : std::min(n_layers, n_parts); n > 0; --n) {
      const GpuPlan plan = gpu_plan(n, available);
      if (plan.total() <= plan.usable()) return plan;
    }
    return {.available = available};
  }

  MemoryPlan plan(Repack repack, uint64_t available, const GpuPlan& gpu) const {
    const int32_t n_cpu = config_.n_layers + 1 - gpu.n_layers;
    const auto backend = make_cpu_backend(repack, 1);
    MemoryPlan plan;
    plan.context = params_;
    plan.available = available;
    plan.repack = repack;
    plan.gpu = gpu;
    plan.adapters = adapters_;
    plan.kv = uint64_t(std::min(n_cpu, config_.n_layers)) *
              layer_kv_bytes(*backend, params_.n_ctx, params_.type_k, params_.type_v);
    plan.scratch = uint64_t(config_.n_vocab) * sizeof(float);
    if (n_cpu > 0) plan.scratch += backend->stream_bytes(stream_shape(config_, params_));
    const bool tied = !files_.find_tensor("output.weight");
    uint64_t vectors = 0;
    for (const TensorInfo& t : files_.tensors()) {
      const bool table = t.name == "token_embd.weight";  // rows are looked up in the file
      const bool on_gpu = part_of(t) >= n_cpu;
      if (t.shape.size() == 1) {  // float32 copies
        if (!on_gpu) vectors += t.n_elements() * sizeof(float);
        continue;
      }
      if (on_gpu && !table) continue;
      const uint64_t packed =
          table && (!tied || on_gpu)
              ? 0
              : backend->matrix_bytes(t.type, int64_t(t.n_rows()), int64_t(t.shape[0]));
      plan.packed += packed;
      if (packed == 0 || table) plan.mapped += t.data.size();
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
  // Which layer's a tensor is; n_layers: the head's, to which a tied table belongs as its matrix.
  int32_t part_of(const TensorInfo& t) const {
    constexpr std::string_view kPrefix = "blk.";
    int32_t layer = config_.n_layers;
    if (t.name.starts_with(kPrefix))
      std::from_chars(t.name.data() + kPrefix.size(), t.name.data() + t.name.size(), layer);
    return layer;
  }

  // Of the last n parts.
  GpuPlan gpu_plan(int32_t n, uint64_t available) const {
    GpuPlan plan;
    plan.n_layers = n;
    plan.available = available;
    const bool tied = !files_.find_tensor("output.weight");
    for (const TensorInfo& t : files_.tensors()) {
      if (part_of(t) <= config_.n_layers - n) continue;
      if (t.name == "token_embd.weight" && !tied) continue;
      plan.weights += t.shape.size() == 1
                          ? t.n_elements() * sizeof(float)
                          : vulkan_matrix_bytes(t.type, int64_t(t.n_rows()), int64_t(t.shape[0]));
    }
    const auto backend = make_cpu_backend(Repack::never, 1);  // pages are of one size everywhere
    plan.kv = uint64_t(n - 1) *
              vulkan_kv_bytes(kv_shape(*backend, params_.n_ctx, params_.type_k, params_.type_v));
    plan.scratch = vulkan_stream_bytes(stream_shape(config_, params_));
    return plan;
  }

  // Of one layer of a context of n_ctx tokens.
  uint64_t layer_kv_bytes(const Backend& backend, int64_t n_ctx, DType k, DType v) const {
    return backend.kv_bytes(kv_shape(backend, n_ctx, k, v));
  }

  KvShape kv_shape(const Backend& backend, int64_t n_ctx, DType k, DType v) const {
    const int32_t page = backend.kv_page_tokens();
    ContextParams params = params_;
    params.n_ctx = int32_t(n_ctx);
    const int64_t n_pages = (kv_tokens(params, page) + page - 1) / page;
    return {n_pages, config_.n_kv_heads, config_.head_dim, k, v};
  }

  int64_t most_ctx(const Backend& backend, uint64_t bytes, DType k, DType v) const {
    const int64_t page = backend.kv_page_tokens();
    const uint64_t n_layers = uint64_t(config_.n_layers);
    const uint64_t first = n_layers * layer_kv_bytes(backend, page, k, v);
    const uint64_t next = n_layers * layer_kv_bytes(backend, 2 * page, k, v) - first;
    if (bytes < first) return 0;
    return int64_t((bytes - first) / std::max<uint64_t>(1, next) + 1) * page;
  }

  GgufSet files_;
  ModelConfig config_;
  ContextParams params_;
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
  if (request.n_layers != 0 && request.available > 0) {
    gpu = planner.fit_gpu(request.n_layers, request.available);
  } else if (request.n_layers != 0) {
    const std::vector<GpuInfo> gpus = list_gpus();
    const std::optional<size_t> chosen = chosen_gpu(gpus, request.main_gpu);
    if (chosen)
      gpu = planner.fit_gpu(request.n_layers, gpus[*chosen].memory_free);
    else
      gpu.obstacle = gpus.empty() ? "no Vulkan driver found a GPU" : "PYLLAMACPP_DEVICE is cpu";
  }
  MemoryPlan plan = planner.plan(repack, available, gpu);
  if (repack == Repack::automatic && plan.own() + plan.own() / 10 + plan.mapped > available)
    plan = planner.plan(Repack::never, available, gpu);
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
