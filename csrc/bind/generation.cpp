#include "session/generation.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>

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

py::object log_probs_tuple(const std::optional<LogProbs>& found) {
  if (!found) return py::none();
  return py::make_tuple(found->chosen, found->top);
}

py::tuple step_tuple(const GenerationStep& step) {
  return py::make_tuple(to_str(step.text), step.token, reason_name(step.finish_reason),
                        log_probs_tuple(step.log_probs));
}

py::list step_list(const std::vector<GenerationStep>& steps) {
  py::list list;
  for (const GenerationStep& step : steps) list.append(step_tuple(step));
  return list;
}

using Generations = std::vector<std::pair<PyGeneration*, bool>>;  // with "sampled by Python"

// Throws Error(invalid_argument) unless all are of one context.
std::vector<Generation*> of_one_context(const Generations& generations) {
  std::vector<Generation*> all;
  for (const auto& [g, by_python] : generations) {
    if (g->context != generations.front().first->context)
      fail(ErrorKind::invalid_argument, "the generations belong to several contexts");
    all.push_back(&g->generation);
  }
  return all;
}

using Steps = std::vector<std::vector<GenerationStep>>;

// Evaluates all and samples those that are ready and for which Python has nothing to say before.
py::object advance(const Generations& generations) {
  if (generations.empty()) return py::list();
  PyContext& context = *generations.front().first->context;
  const std::vector<Generation*> all = of_one_context(generations);
  const auto steps = context.exclusive([&]() -> std::optional<Steps> {
    if (Generation::pages_to_evaluate(all) > context.context.n_free_pages()) return std::nullopt;
    Generation::evaluate(all);
    Steps found(all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      if (!all[i]->ready() || generations[i].second) continue;
      try {
        found[i] = all[i]->sample();
      } catch (const Error&) {
        // It stays ready: sample() gives the same error again, for this generation alone.
      }
    }
    return found;
  });
  if (!steps) return py::none();
  py::list list;
  for (const std::vector<GenerationStep>& found : *steps) list.append(step_list(found));
  return list;
}

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Words = py::array_t<uint32_t, py::array::c_style | py::array::forcecast>;

template <class T, class Array>
std::span<const T> span_of(const std::optional<Array>& array) {
  if (!array) return {};
  return {array->data(), size_t(array->size())};
}

py::list sample(PyGeneration& g, const std::optional<Floats>& logits,
                const std::optional<Words>& allowed) {
  const auto steps = g.context->exclusive(
      [&] { return g.generation.sample(span_of<float>(logits), span_of<uint32_t>(allowed)); });
  return step_list(steps);
}

py::array_t<float> next_logits(PyGeneration& g) {
  return g.context->exclusive([&] {
    const std::span<const float> row = g.generation.logits();
    const py::gil_scoped_acquire gil;
    return py::array_t<float>(py::ssize_t(row.size()), row.data());
  });
}

WhenFull when_full_named(const std::string& name) {
  if (name == "stop") return WhenFull::stop;
  if (name == "shift") return WhenFull::shift;
  fail(ErrorKind::invalid_argument, "when_full is '", name, "', expected 'stop' or 'shift'");
}

}  // namespace

void register_generation(py::module_& m) {
  py::class_<PyGeneration>(m, "Generation", "One completion, token by token.")
      .def(py::init([](std::shared_ptr<PyContext> context, std::vector<int32_t> prompt,
                       int32_t sequence, int32_t max_tokens, int32_t min_tokens,
                       std::vector<std::string> stop, SamplingParams sampling, bool ignore_eos,
                       int32_t n_log_probs, bool prompt_log_probs, const std::string& when_full,
                       int32_t n_keep, std::vector<int32_t> shown) {
             GenerationParams params{
                 max_tokens, min_tokens,      std::move(stop),  std::move(sampling),
                 ignore_eos, n_log_probs,     prompt_log_probs, when_full_named(when_full),
                 n_keep,     std::move(shown)};
             auto make = [&] {
               return Generation(context->context, sequence, std::move(prompt), std::move(params));
             };
             auto generation = context->exclusive(make);
             return std::unique_ptr<PyGeneration>(new PyGeneration{context, std::move(generation)});
           }),
           py::arg("context"), py::arg("prompt"), py::kw_only(), py::arg("sequence") = 0,
           py::arg("max_tokens") = -1, py::arg("min_tokens") = 0,
           py::arg("stop") = std::vector<std::string>{}, py::arg("sampling") = SamplingParams(),
           py::arg("ignore_eos") = false, py::arg("n_log_probs") = -1,
           py::arg("prompt_log_probs") = false, py::arg("when_full") = "stop",
           py::arg("n_keep") = 0, py::arg("shown") = std::vector<int32_t>{})
      .def("next",
           [](PyGeneration& g) {
             GenerationStep step = g.context->exclusive([&] { return g.generation.next(); });
             return py::make_tuple(to_str(step.text), step.token, reason_name(step.finish_reason));
           })
      .def("logits", &next_logits, "float32 [n_vocab] that the next token is sampled from; a copy.")
      .def("sample", &sample, py::arg("logits") = py::none(), py::arg("allowed") = py::none(),
           "The steps that the last evaluation allows, from other logits (float32 [n_vocab]) or of "
           "allowed tokens only (uint32 [ceil(n_vocab / 32)], bit i % 32 of word i / 32).")
      .def(
          "guess",
          [](PyGeneration& g, std::vector<int32_t> tokens) {
            g.generation.guess(std::move(tokens));
          },
          py::arg("tokens"), "What the next tokens may be: checked in the next evaluation.")
      .def(
          "interrupt",
          [](PyGeneration& g) { g.context->exclusive([&] { g.generation.interrupt(); }); },
          "Empties its sequence and gives it up.")
      .def(
          "resume",
          [](PyGeneration& g, int32_t sequence) {
            g.context->exclusive([&] { g.generation.resume(sequence); });
          },
          py::arg("sequence"),
          "Goes on in a free sequence, evaluating again what that does not hold.")
      .def_property_readonly("ready", [](const PyGeneration& g) { return g.generation.ready(); })
      .def(
          "end", [](PyGeneration& g) { return to_str(g.generation.end()); },
          "Ends the text; returns what was held back of it.")
      .def_property_readonly("n_pending",
                             [](const PyGeneration& g) { return g.generation.pending().size(); })
      .def_property_readonly("pending",
                             [](const PyGeneration& g) {
                               const std::span<const int32_t> tokens = g.generation.pending();
                               return std::vector<int32_t>(tokens.begin(), tokens.end());
                             })
      .def_property_readonly("sequence",
                             [](const PyGeneration& g) { return g.generation.sequence(); })
      .def_property_readonly("n_prompt_tokens",
                             [](const PyGeneration& g) { return g.generation.n_prompt_tokens(); })
      .def_property_readonly("n_generated",
                             [](const PyGeneration& g) { return g.generation.n_generated(); })
      .def_property_readonly("n_reused",
                             [](const PyGeneration& g) { return g.generation.n_reused(); })
      .def_property_readonly(
          "stop_string", [](const PyGeneration& g) { return to_str(g.generation.stop_string()); })
      .def_property_readonly("n_shifts",
                             [](const PyGeneration& g) { return g.generation.n_shifts(); })
      .def_property_readonly("prompt_log_probs", [](const PyGeneration& g) {
        py::list list;
        for (const LogProbs& found : g.generation.prompt_log_probs())
          list.append(log_probs_tuple(found));
        return list;
      });
  m.def("advance", &advance, py::arg("generations"),
        "One batch for (generation, sampled by Python) pairs of one context: evaluates what they "
        "wait for, and samples. Per generation a list of (text, token, finish reason, log-probs) "
        "steps, empty while its prompt is not through or Python is to call sample(). None, and "
        "nothing was evaluated, if the cache has not as many free pages as that takes.");
}

}  // namespace pyllamacpp
