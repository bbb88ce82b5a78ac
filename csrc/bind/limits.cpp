#include "backend/cpu_limits.h"
#include "bind/bindings.h"

namespace py = pybind11;

namespace pyllamacpp {

void register_limits(py::module_& m) {
  py::class_<CpuLimits>(m, "CpuLimits", "What this machine can do at most, per second.")
      .def_readonly("bytes_per_second", &CpuLimits::bytes_per_second,
                    "read from memory, in order, all threads together")
      .def_readonly("int_ops_per_second", &CpuLimits::int_ops_per_second,
                    "int8 multiplies and adds of the tier in use")
      .def_readonly("float_ops_per_second", &CpuLimits::float_ops_per_second,
                    "float32 multiplies and adds");
  py::class_<CpuLimitProbe>(m, "CpuLimitProbe",
                            "Measures this machine's limits, reading n_bytes of its own.")
      .def(py::init<int, size_t>(), py::arg("n_threads"), py::arg("n_bytes"),
           py::call_guard<py::gil_scoped_release>())
      .def("measure", &CpuLimitProbe::measure, py::call_guard<py::gil_scoped_release>(),
           "The best of several passes; takes some tenths of a second.");
}

}  // namespace pyllamacpp
