#include "model/adapter.h"

#include <pybind11/numpy.h>

#include <vector>

#include "base/error.h"
#include "bind/bindings.h"

namespace py = pybind11;

namespace pyllamacpp {

namespace {

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

WeightSource source_of(const std::string& tensor, const Floats& array) {
  if (array.ndim() != 2)
    fail(ErrorKind::invalid_argument, tensor, " has ", array.ndim(), " dimensions, expected 2");
  const auto* data = reinterpret_cast<const std::byte*>(array.data());
  return {DType::f32, array.shape(0), array.shape(1), {data, size_t(array.nbytes())}};
}

std::shared_ptr<Adapter> from_arrays(std::shared_ptr<Model> model, const std::string& name,
                                     const py::dict& matrices) {
  std::vector<Floats> arrays;  // what the pairs refer to
  std::vector<AdapterPair> pairs;
  for (const auto& [key, value] : matrices) {
    const auto matrix = key.cast<std::string>();
    const auto [a, b, scale] = value.cast<std::tuple<Floats, Floats, float>>();
    arrays.push_back(a);
    arrays.push_back(b);
    pairs.push_back(
        {matrix, source_of(matrix + ".lora_a", a), source_of(matrix + ".lora_b", b), scale});
  }
  const py::gil_scoped_release release;
  return std::make_shared<Adapter>(std::move(model), name, pairs);
}

}  // namespace

void register_adapter(py::module_& m) {
  py::class_<Adapter, std::shared_ptr<Adapter>>(m, "Adapter",
                                                "A LoRA adapter of one model, from a GGUF file.")
      .def(py::init([](std::shared_ptr<Model> model, const std::string& path) {
             const py::gil_scoped_release release;
             return std::make_shared<Adapter>(std::move(model), path);
           }),
           py::arg("model"), py::arg("path"))
      .def_static("from_arrays", &from_arrays, py::arg("model"), py::arg("name"),
                  py::arg("matrices"),
                  "matrices: name of the matrix in the model -> (a, b, scale), float32 a [rank, "
                  "columns] and b [rows, rank]; the change is scale * b a. Rows of queries and "
                  "keys in the order of the model's file.")
      .def_property_readonly("name", [](const Adapter& a) { return to_str(a.name()); })
      .def_property_readonly("rank", &Adapter::most_rank, "The largest of its changes.")
      .def_property_readonly("n_bytes", &Adapter::n_bytes, "Of memory.");
}

}  // namespace pyllamacpp
