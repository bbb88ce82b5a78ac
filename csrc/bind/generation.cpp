#include "session/generation.h"

#include <pybind11/stl.h>

#include "bind/bindings.h"

namespace py = pybind11;

namespace pyllamacpp {

namespace {

struct PyGeneration {
  std::shared_ptr<PyContext> context;
  Generation generation;
};

py::object reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return py::str("stop");
    case FinishReason::length:
      return py::str("length");
    case FinishReason::none:
      break;
  }
  return py::none();
}

}  // namespace

void register_generation(py::module_& m) {
  py::class_<PyGeneration>(m, "Generation", "One completion, token by token.")
      .def(py::init([](std::shared_ptr<PyContext> context, std::vector<int32_t> prompt,
                       int32_t sequence, int32_t max_tokens, std::vector<std::string> stop,
                       float temperature, int32_t top_k, float top_p, float min_p, uint64_t seed,
                       float typical_p, float repeat_penalty, float frequency_penalty,
                       float presence_penalty, int32_t penalty_last_n,
                       std::vector<std::pair<int32_t, float>> logit_bias, bool ignore_eos) {
             GenerationParams params;
             params.max_tokens = max_tokens;
             params.stop = std::move(stop);
             params.sampling = {temperature,
                                top_k,
                                top_p,
                                min_p,
                                seed,
                                typical_p,
                                repeat_penalty,
                                frequency_penalty,
                                presence_penalty,
                                penalty_last_n,
                                std::move(logit_bias)};
             params.ignore_eos = ignore_eos;
             auto make = [&] {
               return Generation(context->context, sequence, std::move(prompt), std::move(params));
             };
             auto generation = context->exclusive(make);
             return std::unique_ptr<PyGeneration>(new PyGeneration{context, std::move(generation)});
           }),
           py::arg("context"), py::arg("prompt"), py::kw_only(), py::arg("sequence") = 0,
           py::arg("max_tokens") = -1, py::arg("stop") = std::vector<std::string>{},
           py::arg("temperature") = 0.8f, py::arg("top_k") = 40, py::arg("top_p") = 0.95f,
           py::arg("min_p") = 0.05f, py::arg("seed") = 0, py::arg("typical_p") = 1.0f,
           py::arg("repeat_penalty") = 1.0f, py::arg("frequency_penalty") = 0.0f,
           py::arg("presence_penalty") = 0.0f, py::arg("penalty_last_n") = 64,
           py::arg("logit_bias") = std::vector<std::pair<int32_t, float>>{},
           py::arg("ignore_eos") = false)
      .def("next",
           [](PyGeneration& g) {
             GenerationStep step = g.context->exclusive([&] { return g.generation.next(); });
             return py::make_tuple(to_str(step.text), step.token, reason_name(step.finish_reason));
           })
      .def_property_readonly("n_prompt_tokens",
                             [](const PyGeneration& g) { return g.generation.n_prompt_tokens(); })
      .def_property_readonly("n_generated",
                             [](const PyGeneration& g) { return g.generation.n_generated(); })
      .def_property_readonly("n_reused",
                             [](const PyGeneration& g) { return g.generation.n_reused(); });
}

}  // namespace pyllamacpp
