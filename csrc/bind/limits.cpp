#include "backend/cpu_limits.h"
#include "bind/bindings.h"
#include "session/work.h"

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
                            "Measures this machine's limits, reading n_bytes of its own; 0: 1 GiB, "
                            "or less where there is little memory.")
      .def(py::init<int, size_t>(), py::arg("n_threads"), py::arg("n_bytes") = 0,
           py::call_guard<py::gil_scoped_release>())
      .def("measure", &CpuLimitProbe::measure, py::call_guard<py::gil_scoped_release>(),
           "The best of several passes; takes some tenths of a second.");
  py::class_<Work>(
      m, "Work",
      "What one token costs: operations of matrix products by kind of weight, bytes "
      "read. head_*: of them, the output matrix's, which a prompt needs once. kv_bytes, "
      "attention_ops: per key that the token sees.")
      .def_readonly("int8_ops", &Work::int8_ops)
      .def_readonly("float_ops", &Work::float_ops)
      .def_readonly("head_int8_ops", &Work::head_int8_ops)
      .def_readonly("head_float_ops", &Work::head_float_ops)
      .def_readonly("weight_bytes", &Work::weight_bytes)
      .def_readonly("kv_bytes", &Work::kv_bytes)
      .def_readonly("attention_ops", &Work::attention_ops)
      .def(
          "prompt_ops",
          [](const Work& work, int32_t n, int32_t depth) {
            const Work::Ops ops = work.prompt_ops(n, depth);
            return py::make_tuple(ops.int8, ops.float32);
          },
          py::arg("n"), py::arg("depth"),
          "int8 and float32 operations per token of a prompt of n after `depth` others.")
      .def("token_bytes", &Work::token_bytes, py::arg("n"), py::arg("depth"),
           "Bytes read per token of n that are generated after `depth` others.");
  m.def(
      "work_of",
      [](const Model& model, const std::string& type_k, const std::string& type_v) {
        return work_of(model, kv_type_named("type_k", type_k), kv_type_named("type_v", type_v));
      },
      py::arg("model"), py::arg("type_k"), py::arg("type_v"),
      "What a token costs, from the tensors of the file, keys and values being of these types.");
}

}  // namespace pyllamacpp
