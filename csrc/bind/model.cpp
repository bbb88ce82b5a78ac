#include "model/model.h"

#include "base/error.h"
#include "bind/bindings.h"

namespace py = pybind11;

namespace pyllamacpp {

Repack repack_named(const std::string& name) {
  if (name == "auto") return Repack::automatic;
  if (name == "never") return Repack::never;
  fail(ErrorKind::invalid_argument, "repack is '", name, "', expected 'auto' or 'never'");
}

const char* repack_name(Repack repack) { return repack == Repack::never ? "never" : "auto"; }

void register_model(py::module_& m) {
  py::class_<ModelConfig>(m, "ModelConfig", "The shape of a model.")
      .def_readonly("architecture", &ModelConfig::architecture)
      .def_readonly("n_vocab", &ModelConfig::n_vocab)
      .def_readonly("n_ctx_train", &ModelConfig::n_ctx_train)
      .def_readonly("n_embd", &ModelConfig::dim)
      .def_readonly("n_layers", &ModelConfig::n_layers)
      .def_readonly("n_heads", &ModelConfig::n_heads)
      .def_readonly("n_kv_heads", &ModelConfig::n_kv_heads)
      .def_readonly("head_dim", &ModelConfig::head_dim)
      .def_readonly("n_ff", &ModelConfig::n_ff)
      .def_property_readonly("rope_theta", [](const ModelConfig& c) { return c.rope.theta; })
      .def_readonly("norm_eps", &ModelConfig::norm_eps)
      .def_readonly("window", &ModelConfig::window, "tokens one sees, itself included; 0: all");

  py::class_<Model, std::shared_ptr<Model>>(m, "Model", "A GGUF file, ready to run.")
      .def(py::init([](const std::string& path, bool vocab_only, const std::string& repack,
                       int32_t n_threads, int32_t n_gpu_layers, int32_t n_cpu_ffn, size_t main_gpu,
                       const py::object& progress, const py::dict& overrides) {
             ModelParams params{
                 vocab_only, repack_named(repack),   n_threads, n_gpu_layers, n_cpu_ffn,
                 main_gpu,   overrides_of(overrides)};
             if (!progress.is_none())
               params.progress = [&progress](double share) {
                 const py::gil_scoped_acquire gil;
                 const py::object answer = progress(share);
                 return answer.is_none() || py::bool_(answer);
               };
             const py::gil_scoped_release release;
             return std::make_shared<Model>(path, params);
           }),
           py::arg("path"), py::kw_only(), py::arg("vocab_only") = false,
           py::arg("repack") = "auto", py::arg("n_threads") = 0, py::arg("n_gpu_layers") = 0,
           py::arg("n_cpu_ffn") = 0, py::arg("main_gpu") = 0, py::arg("progress") = py::none(),
           py::arg("overrides") = py::dict())
      .def_property_readonly("path", [](const Model& m) { return to_str(m.file().name()); })
      .def_property_readonly("metadata", [](const Model& m) { return metadata_dict(m.file()); })
      .def_property_readonly("tensors",
                             [](const Model& m) { return tensor_list(m.files().tensors()); })
      .def_property_readonly("tokenizer", &Model::tokenizer,
                             py::return_value_policy::reference_internal)
      .def_property_readonly("config", &Model::config, py::return_value_policy::reference_internal)
      .def_property_readonly(
          "n_gpu_layers", [](const Model& m) { return m.config().n_layers + 1 - m.n_cpu_layers(); },
          "how many run on the GPU, counted from the end; the head is one")
      .def_property_readonly("n_cpu_ffn", &Model::n_cpu_ffn,
                             "how many of these leave their feed-forward part to the CPU")
      .def_property_readonly(
          "gpu_bytes", [](const Model& m) { return m.gpu() ? m.gpu()->device_bytes() : 0; },
          "of the GPU's memory, what the model and its contexts hold")
      .def_property_readonly(
          "gpu_bytes_free",
          [](const Model& m) { return m.gpu() ? m.gpu()->device_bytes_free() : 0; },
          "of the GPU's memory, what it could still give")
      .def_property_readonly("repack", [](const Model& m) { return repack_name(m.repack()); })
      .def(
          "identity", [](const Model& m) { return py::bytes(m.files().identity()); },
          "What tells the model from others: its file's header, what overrides it and some bytes "
          "of every tensor.")
      .def_property_readonly("vocab_only", &Model::vocab_only)
      .def_property_readonly("n_params", &Model::n_params)
      .def_property_readonly("n_bytes", &Model::n_bytes);
}

}  // namespace pyllamacpp
