#include "session/memory_plan.h"

#include <pybind11/stl.h>

#include "base/memory.h"
#include "bind/bindings.h"

namespace py = pybind11;

namespace pyllamacpp {

void register_memory_plan(py::module_& m) {
  py::class_<PartPlan>(m, "PartPlan", "What a part of a model takes where it runs, in bytes.")
      .def_readonly("on_gpu", &PartPlan::on_gpu)
      .def_readonly("weights", &PartPlan::weights)
      .def_readonly("kv", &PartPlan::kv, "keys and values of n_ctx tokens");
  py::class_<ContextPlan>(m, "ContextPlan", "What one more context takes, in bytes.")
      .def_readonly("own", &ContextPlan::own)
      .def_readonly("available", &ContextPlan::available)
      .def_readonly("gpu", &ContextPlan::gpu, "of the GPU's memory")
      .def_readonly("gpu_available", &ContextPlan::gpu_available)
      .def_property_readonly("n_ctx", [](const ContextPlan& p) { return p.context.n_ctx; });
  py::class_<StreamingPlan>(
      m, "StreamingPlan",
      "Whether prompts stream the feed-forward weights of layers on the CPU through the GPU.")
      .def_readonly("rows", &StreamingPlan::rows, "the least tokens of a batch; 0: none does")
      .def_readonly("scratch", &StreamingPlan::scratch, "bytes for it, in the GPU's working memory")
      .def_property_readonly(
          "weight_bytes", [](const StreamingPlan& p) { return p.work.weight_bytes; },
          "of the first layer's feed-forward part, in the file")
      .def_property_readonly(
          "row_ops", [](const StreamingPlan& p) { return p.work.row_ops; },
          "multiplies and adds of it for a token")
      .def_property_readonly(
          "upload_bytes_per_second",
          [](const StreamingPlan& p) { return p.rates.upload_bytes_per_second; },
          "0, as the other rates, where nothing was measured")
      .def_property_readonly("gpu_ops_per_second",
                             [](const StreamingPlan& p) { return p.rates.gpu_ops_per_second; })
      .def_property_readonly("cpu_ops_per_second",
                             [](const StreamingPlan& p) { return p.rates.cpu_ops_per_second; })
      .def_readonly("note", &StreamingPlan::note, "why it is not done or not measured");
  py::class_<GpuPlan>(m, "GpuPlan", "What of a model runs on the GPU, in bytes of its memory.")
      .def_readonly("n_layers", &GpuPlan::n_layers, "from the end; the head is one")
      .def_readonly(
          "n_cpu_ffn", &GpuPlan::n_cpu_ffn,
          "how many of these, from the first on, leave their feed-forward part to the CPU")
      .def_readonly("weights", &GpuPlan::weights)
      .def_readonly("kv", &GpuPlan::kv)
      .def_readonly("scratch", &GpuPlan::scratch)
      .def_readonly("available", &GpuPlan::available)
      .def_property_readonly("usable", &GpuPlan::usable, "without what is left to the driver")
      .def_property_readonly("total", &GpuPlan::total)
      .def_readonly("obstacle", &GpuPlan::obstacle, "why no layer can run there, else empty")
      .def_readonly("streaming", &GpuPlan::streaming);
  py::class_<MemoryPlan>(m, "MemoryPlan", "What a model and a context will take, in bytes.")
      .def_readonly("mapped", &MemoryPlan::mapped, "weights read from the file's map")
      .def_readonly("packed", &MemoryPlan::packed, "weights in memory of our own")
      .def_readonly("kv", &MemoryPlan::kv, "keys and values of n_ctx tokens, on the CPU")
      .def_readonly("gpu", &MemoryPlan::gpu, "what runs on the GPU, in no other figure")
      .def_readonly("parts", &MemoryPlan::parts,
                    "attention and feed-forward part of each layer in turn, then the head")
      .def_readonly("scratch", &MemoryPlan::scratch, "one batch, and the logits of a token")
      .def_readonly("adapters", &MemoryPlan::adapters, "LoRA adapters, as the caller said")
      .def_readonly("available", &MemoryPlan::available, "what this process may still take")
      .def_readonly("most_ctx", &MemoryPlan::most_ctx, "tokens of the largest context that fits")
      .def_readonly("most_ctx_q8_0", &MemoryPlan::most_ctx_q8_0)
      .def_property_readonly("n_ctx", [](const MemoryPlan& p) { return p.context.n_ctx; })
      .def_property_readonly("n_batch", [](const MemoryPlan& p) { return p.context.n_batch; })
      .def_property_readonly("n_threads", [](const MemoryPlan& p) { return p.context.n_threads; })
      .def_property_readonly("repack", [](const MemoryPlan& p) { return repack_name(p.repack); })
      .def_property_readonly("own", &MemoryPlan::own)
      .def_property_readonly("fits", &MemoryPlan::fits)
      .def_property_readonly("fits_in_memory", &MemoryPlan::fits_in_memory);
  m.def(
      "plan_memory",
      [](const std::string& path, int32_t n_ctx, int32_t n_batch, int32_t n_threads,
         int32_t n_threads_batch, const std::string& type_k, const std::string& type_v,
         const std::string& repack, uint64_t available, int32_t n_parallel,
         const RopeOverrides& rope, const py::dict& overrides, int32_t n_gpu_layers,
         size_t main_gpu, uint64_t gpu_available, uint64_t adapters, int32_t max_sequences,
         bool op_offload) {
        ContextParams params;
        params.max_sequences = max_sequences;
        params.rope = rope;
        params.n_parallel = n_parallel;
        params.n_ctx = n_ctx;
        params.n_batch = n_batch;
        params.n_threads = n_threads;
        params.n_threads_batch = n_threads_batch;
        params.type_k = kv_type_named("type_k", type_k);
        params.type_v = kv_type_named("type_v", type_v);
        const MetaOverrides set = overrides_of(overrides);
        const py::gil_scoped_release release;
        return plan_memory(path, params, repack_named(repack), available,
                           {n_gpu_layers, main_gpu, gpu_available, op_offload}, set, adapters);
      },
      py::arg("path"), py::kw_only(), py::arg("n_ctx") = 0, py::arg("n_batch") = 512,
      py::arg("n_threads") = 0, py::arg("n_threads_batch") = 0, py::arg("type_k") = "f16",
      py::arg("type_v") = "f16", py::arg("repack") = "auto", py::arg("available") = 0,
      py::arg("n_parallel") = 1, py::arg("rope") = RopeOverrides(),
      py::arg("overrides") = py::dict(), py::arg("n_gpu_layers") = 0, py::arg("main_gpu") = 0,
      py::arg("gpu_available") = 0, py::arg("adapters") = 0, py::arg("max_sequences") = 1,
      py::arg("op_offload") = false,
      "The plan from the file's header alone; available=0 is what this process may take now, "
      "gpu_available=0 what the GPU says is free; adapters: bytes of the LoRA adapters to come; "
      "op_offload: whether prompts may stream weights, for which the GPU and the CPU are measured "
      "on the first layer's.");
  m.def(
      "least_streamed_rows",
      [](double upload_bytes_per_second, double gpu_ops_per_second, double cpu_ops_per_second,
         uint64_t weight_bytes, uint64_t row_ops, int32_t most_rows) {
        return least_streamed_rows(
            {upload_bytes_per_second, gpu_ops_per_second, cpu_ops_per_second},
            {weight_bytes, row_ops}, most_rows);
      },
      py::kw_only(), py::arg("upload_bytes_per_second"), py::arg("gpu_ops_per_second"),
      py::arg("cpu_ops_per_second"), py::arg("weight_bytes"), py::arg("row_ops"),
      py::arg("most_rows"),
      "The least rows of a batch for which the GPU, upload included, takes less time than the CPU; "
      "0: none up to most_rows.");
  m.def(
      "plan_context",
      [](const Model& model, int32_t n_ctx, int32_t n_batch, int32_t n_threads,
         int32_t n_threads_batch, int32_t max_sequences, const std::string& type_k,
         const std::string& type_v, int32_t n_parallel, const RopeOverrides& rope) {
        return plan_context(model, {.n_ctx = n_ctx,
                                    .n_batch = n_batch,
                                    .n_threads = n_threads,
                                    .n_threads_batch = n_threads_batch,
                                    .max_sequences = max_sequences,
                                    .type_k = kv_type_named("type_k", type_k),
                                    .type_v = kv_type_named("type_v", type_v),
                                    .n_parallel = n_parallel,
                                    .rope = rope});
      },
      py::arg("model"), py::kw_only(), py::arg("n_ctx") = 0, py::arg("n_batch") = 512,
      py::arg("n_threads") = 0, py::arg("n_threads_batch") = 0, py::arg("max_sequences") = 1,
      py::arg("type_k") = "f16", py::arg("type_v") = "f16", py::arg("n_parallel") = 0,
      py::arg("rope") = RopeOverrides(),
      "What another context of a loaded model takes; the arguments are those of Context.");
  m.def("require_fit", &require_fit, py::arg("path"), py::arg("plan"),
        "Raises OutOfMemoryError that says what would fit unless the plan fits.");
  m.def("available_memory", &available_memory, py::arg("root") = "",
        "Bytes this process may still take; root: where /proc and /sys are looked for.");
}

}  // namespace pyllamacpp
