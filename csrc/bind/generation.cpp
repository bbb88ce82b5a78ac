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
                       int32_t sequence, int32_t max_tokens, int32_t min_tokens,
                       std::vector<std::string> stop, SamplingParams sampling, bool ignore_eos) {
             GenerationParams params{max_tokens, min_tokens, std::move(stop), std::move(sampling),
                                     ignore_eos};
             auto make = [&] {
               return Generation(context->context, sequence, std::move(prompt), std::move(params));
             };
             auto generation = context->exclusive(make);
             return std::unique_ptr<PyGeneration>(new PyGeneration{context, std::move(generation)});
           }),
           py::arg("context"), py::arg("prompt"), py::kw_only(), py::arg("sequence") = 0,
           py::arg("max_tokens") = -1, py::arg("min_tokens") = 0,
           py::arg("stop") = std::vector<std::string>{}, py::arg("sampling") = SamplingParams(),
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
