#include "session/memory_plan.h"

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "base/memory.h"
#include "model/config.h"

namespace pyllamacpp {

namespace {

// Reads only the header: what Context allocates follows from it.
class Planner {
 public:
  Planner(const std::string& path, const ContextParams& params, const MetaOverrides& overrides)
      : files_(GgufSet::open(path, overrides)), config_(read_config(files_)) {
    if (const TensorInfo* table = files_.find_tensor("token_embd.weight"))
      config_.n_vocab = int32_t(table->n_rows());
    params_ = with_defaults(config_, *make_cpu_backend(Repack::never, 1), params);
  }

  MemoryPlan plan(Repack repack, uint64_t available) const {
    const auto backend = make_cpu_backend(repack, 1);
    MemoryPlan plan;
    plan.context = params_;
    plan.available = available;
    plan.repack = repack;
    plan.kv = kv_bytes(*backend, params_.n_ctx, params_.type_k, params_.type_v);
    plan.scratch = backend->stream_bytes(stream_shape(config_, params_)) +
                   uint64_t(config_.n_vocab) * sizeof(float);
    const bool tied = !files_.find_tensor("output.weight");
    uint64_t vectors = 0;
    for (const TensorInfo& t : files_.tensors()) {
      if (t.shape.size() == 1) {  // float32 copies
        vectors += t.n_elements() * sizeof(float);
        continue;
      }
      const bool table = t.name == "token_embd.weight";  // rows are looked up in the file
      const uint64_t packed =
          table && !tied ? 0
                         : backend->matrix_bytes(t.type, int64_t(t.n_rows()), int64_t(t.shape[0]));
      plan.packed += packed;
      if (packed == 0 || table) plan.mapped += t.data.size();
    }
    plan.packed += vectors;
    const uint64_t least = plan.scratch + vectors;
    const uint64_t left = available - std::min(available, least);
    plan.most_ctx = most_ctx(*backend, left, params_.type_k, params_.type_v);
    if (backend->supports_kv(DType::q8_0, config_.head_dim))
      plan.most_ctx_q8_0 = most_ctx(*backend, left, DType::q8_0, DType::q8_0);
    return plan;
  }

 private:
  // Of a context of n_ctx tokens.
  uint64_t kv_bytes(const Backend& backend, int64_t n_ctx, DType k, DType v) const {
    const int32_t page = backend.kv_page_tokens();
    ContextParams params = params_;
    params.n_ctx = int32_t(n_ctx);
    const int64_t n_pages = (kv_tokens(params, page) + page - 1) / page;
    return uint64_t(config_.n_layers) *
           backend.kv_bytes({n_pages, config_.n_kv_heads, config_.head_dim, k, v});
  }

  int64_t most_ctx(const Backend& backend, uint64_t bytes, DType k, DType v) const {
    const int64_t page = backend.kv_page_tokens();
    const uint64_t first = kv_bytes(backend, page, k, v);
    const uint64_t next = kv_bytes(backend, 2 * page, k, v) - first;
    if (bytes < first) return 0;
    return int64_t((bytes - first) / std::max<uint64_t>(1, next) + 1) * page;
  }

  GgufSet files_;
  ModelConfig config_;
  ContextParams params_;
};

std::string size_text(uint64_t bytes) {
  std::ostringstream out;
  out.precision(2);
  out << std::fixed << double(bytes) / double(1 << 30) << " GiB";
  return out.str();
}

}  // namespace

MemoryPlan plan_memory(const std::string& path, const ContextParams& params, Repack repack,
                       uint64_t available, const MetaOverrides& overrides) {
  const Planner planner(path, params, overrides);
  if (available == 0) available = available_memory();
  MemoryPlan plan = planner.plan(repack, available);
  if (repack == Repack::automatic && plan.own() + plan.own() / 10 + plan.mapped > available)
    plan = planner.plan(Repack::never, available);
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
  if (fitting.str().empty()) fitting << "; a smaller batch or model is needed";
  fail(ErrorKind::memory, path, " needs ", size_text(plan.own()), " of memory (keys and values of ",
       plan.context.n_ctx, " tokens ", size_text(plan.kv), ", weights ", size_text(plan.packed),
       ", working memory ", size_text(plan.scratch), ") and ", size_text(plan.available),
       " are available", fitting.str());
}

}  // namespace pyllamacpp
