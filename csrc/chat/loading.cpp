#include "chat/loading.h"

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "chat/screen.h"
#include "session/memory_plan.h"

namespace pyllamacpp {

std::unique_ptr<Context> load_model(const Options& options) {
  ContextParams params;
  params.n_ctx = options.n_ctx;
  params.n_threads = options.n_threads;
  GpuRequest gpu{.n_layers = options.n_gpu_layers};
  const auto planned = [&] {
    return plan_memory(options.model, params, Repack::automatic, 0, gpu);
  };
  for (;;) {
    MemoryPlan plan = planned();
    if (params.n_ctx == 0) {  // the least of the model's own, 4096 and what fits
      const int64_t most = plan.most_ctx > 0 ? std::min<int64_t>(plan.most_ctx, 4096) : 4096;
      params.n_ctx = int32_t(std::min<int64_t>(plan.context.n_ctx, most));
      plan = planned();
    }
    require_fit(options.model, plan);
    try {
      const auto model = std::make_shared<const Model>(
          options.model, ModelParams{.repack = plan.repack,
                                     .n_gpu_layers = plan.gpu.n_layers,
                                     .n_cpu_ffn = plan.gpu.n_cpu_ffn,
                                     .progress = [](double) { return !is_interrupted(); }});
      auto context = std::make_unique<Context>(model, params);
      context->set_poll(is_interrupted);
      if (options.n_gpu_layers != 0)
        std::cerr << plan.gpu.n_layers << " of " << model->config().n_layers + 1
                  << " layers on the GPU" << (plan.gpu.obstacle.empty() ? "" : ": ")
                  << plan.gpu.obstacle << "\n";
      return context;
    } catch (const Error& e) {  // the device had less than it said
      if (e.kind() != ErrorKind::memory || plan.gpu.n_layers == 0) throw;
      gpu.n_layers = plan.gpu.n_layers * 3 / 4;
    }
  }
}

}  // namespace pyllamacpp
