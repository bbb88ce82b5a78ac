#include "sample/sampler.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bind/bindings.h"

namespace py = pybind11;

namespace pyllamacpp {

namespace {

using Logits = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Tokens = std::vector<int32_t>;

std::span<const float> row(const Logits& logits) {
  if (logits.ndim() != 1)
    fail(ErrorKind::invalid_argument, "logits have ", logits.ndim(), " dimensions, expected 1");
  return {logits.data(), size_t(logits.size())};
}

std::vector<std::string> names_of(const SamplingParams& params) {
  std::vector<std::string> names;
  for (SamplerStep step : params.samplers) names.emplace_back(name_of(step));
  return names;
}

void set_names(SamplingParams& params, const std::vector<std::string>& names) {
  std::vector<SamplerStep> steps;
  for (const std::string& name : names) steps.push_back(sampler_step(name));
  params.samplers = std::move(steps);
}

}  // namespace

void register_sampler(py::module_& m) {
  using P = SamplingParams;
  py::class_<P>(m, "SamplingParams", "See pyllamacpp.params.SamplingParams.")
      .def(py::init([](const py::kwargs& values) {
        const py::object params = py::cast(SamplingParams());
        for (const auto& [name, value] : values) params.attr(name) = value;
        return params.cast<SamplingParams>();
      }))
      .def_readwrite("temperature", &P::temperature)
      .def_readwrite("top_k", &P::top_k)
      .def_readwrite("top_p", &P::top_p)
      .def_readwrite("min_p", &P::min_p)
      .def_readwrite("seed", &P::seed)
      .def_readwrite("tfs_z", &P::tfs_z)
      .def_readwrite("typical_p", &P::typical_p)
      .def_readwrite("repeat_penalty", &P::repeat_penalty)
      .def_readwrite("frequency_penalty", &P::frequency_penalty)
      .def_readwrite("presence_penalty", &P::presence_penalty)
      .def_readwrite("penalty_last_n", &P::penalty_last_n)
      .def_readwrite("unpenalized", &P::unpenalized)
      .def_readwrite("logit_bias", &P::logit_bias)
      .def_readwrite("dynatemp_range", &P::dynatemp_range)
      .def_readwrite("dynatemp_exponent", &P::dynatemp_exponent)
      .def_readwrite("mirostat_mode", &P::mirostat_mode)
      .def_readwrite("mirostat_tau", &P::mirostat_tau)
      .def_readwrite("mirostat_eta", &P::mirostat_eta)
      .def_readwrite("adaptive_target", &P::adaptive_target)
      .def_readwrite("adaptive_decay", &P::adaptive_decay)
      .def_readwrite("dry_multiplier", &P::dry_multiplier)
      .def_readwrite("dry_base", &P::dry_base)
      .def_readwrite("dry_allowed_length", &P::dry_allowed_length)
      .def_readwrite("dry_penalty_last_n", &P::dry_penalty_last_n)
      .def_readwrite("dry_sequence_breakers", &P::dry_sequence_breakers)
      .def_readwrite("xtc_probability", &P::xtc_probability)
      .def_readwrite("xtc_threshold", &P::xtc_threshold)
      .def_readwrite("top_n_sigma", &P::top_n_sigma)
      .def_property("samplers", &names_of, &set_names)
      .def("check", [](const P& params) { check(params); });

  py::class_<Sampler>(m, "Sampler", "Draws tokens from logits.")
      .def(py::init([](const P& params, std::vector<py::bytes> pieces) {
             std::vector<std::string> texts(pieces.begin(), pieces.end());
             if (texts.empty()) return std::make_unique<Sampler>(params);
             return std::make_unique<Sampler>(
                 params, [texts = std::move(texts)](int32_t token) -> std::string_view {
                   if (token < 0 || size_t(token) >= texts.size()) return {};
                   return texts[size_t(token)];
                 });
           }),
           py::arg("params"), py::arg("pieces") = std::vector<py::bytes>{})
      .def(
          "sample",
          [](Sampler& s, const Logits& logits, const Tokens& history, const Tokens& barred) {
            return s.sample(row(logits), history, barred);
          },
          py::arg("logits"), py::arg("history") = Tokens{}, py::arg("barred") = Tokens{})
      .def(
          "probabilities",
          [](Sampler& s, const Logits& logits, const Tokens& history, const Tokens& barred) {
            const std::vector<double> p = s.probabilities(row(logits), history, barred);
            return py::array_t<double>(py::ssize_t(p.size()), p.data());
          },
          py::arg("logits"), py::arg("history") = Tokens{}, py::arg("barred") = Tokens{});
}

}  // namespace pyllamacpp
