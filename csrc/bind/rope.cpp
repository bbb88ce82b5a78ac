#include "model/rope.h"

#include <pybind11/stl.h>

#include "bind/bindings.h"

namespace py = pybind11;

namespace pyllamacpp {

namespace {

// By llama.cpp's numbers; -1 is the file's own.
std::optional<RopeScaling::Kind> kind_of(int64_t number) {
  if (number == -1) return std::nullopt;
  if (number < 0 || number > 3)
    fail(ErrorKind::invalid_argument, "rope_scaling_type is ", number,
         ", expected -1 (the file's), 0 (none), 1 (linear), 2 (YaRN) or 3 (LongRoPE)");
  return RopeScaling::Kind(number);
}

}  // namespace

void register_rope(py::module_& m) {
  py::class_<RopeOverrides>(m, "RopeOverrides", "RoPE settings in place of a file's.")
      .def(py::init([](int64_t scaling_type, double freq_base, double freq_scale, double ext_factor,
                       double attn_factor, std::optional<double> beta_fast,
                       std::optional<double> beta_slow, int64_t orig_ctx) {
             return RopeOverrides{kind_of(scaling_type), freq_base, freq_scale, ext_factor,
                                  attn_factor,           beta_fast, beta_slow,  orig_ctx};
           }),
           py::kw_only(), py::arg("scaling_type") = -1, py::arg("freq_base") = 0,
           py::arg("freq_scale") = 0, py::arg("ext_factor") = -1, py::arg("attn_factor") = 1,
           py::arg("beta_fast") = py::none(), py::arg("beta_slow") = py::none(),
           py::arg("orig_ctx") = 0);
}

}  // namespace pyllamacpp
