#include <pybind11/stl.h>

#include "bind/bindings.h"

namespace py = pybind11;

namespace pyllamacpp {

namespace {

py::object to_object(const MetaContent& content) {
  if (const MetaArray* array = std::get_if<MetaArray>(&content)) {
    py::list list;
    for (MetaArrayReader reader(*array); !reader.done();) list.append(to_object(reader.next()));
    return list;
  }
  return std::visit(
      [](auto value) -> py::object {
        if constexpr (std::is_same_v<decltype(value), std::string_view>)
          return to_str(value);
        else
          return py::cast(value);
      },
      std::get<MetaScalar>(content));
}

// Owns its strings: it may outlive the file.
struct Tensor {
  std::string name, dtype;
  std::vector<uint64_t> shape;
  size_t n_bytes;
  uint64_t offset;
};

}  // namespace

py::str to_str(std::string_view text) {
  PyObject* str = PyUnicode_DecodeUTF8(text.data(), py::ssize_t(text.size()), "replace");
  if (!str) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(str);
}

py::dict metadata_dict(const GgufFile& file) {
  py::dict dict;
  for (const MetaValue& value : file.metadata()) dict[to_str(value.key)] = to_object(value.value);
  return dict;
}

py::list tensor_list(const std::vector<TensorInfo>& tensors) {
  py::list list;
  for (const TensorInfo& t : tensors)
    list.append(Tensor{std::string(t.name), traits(t.type).name, t.shape, t.data.size(), t.offset});
  return list;
}

void register_gguf(py::module_& m) {
  py::class_<Tensor>(m, "TensorInfo", "A tensor of a GGUF file.")
      .def_readonly("name", &Tensor::name)
      .def_readonly("dtype", &Tensor::dtype, "type name, such as 'q4_1'")
      .def_property_readonly(
          "shape", [](const Tensor& t) { return py::tuple(py::cast(t.shape)); },
          "as in the file: shape[0] is the length of a row")
      .def_readonly("n_bytes", &Tensor::n_bytes)
      .def_readonly("offset", &Tensor::offset, "of the data, from the start of its file");
  py::class_<GgufSet>(m, "GgufFile",
                      "The header of a GGUF file (versions 2 and 3), all parts of a split one.")
      .def(py::init(&GgufSet::open), py::arg("path"), py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("version", [](const GgufSet& s) { return s.first().version(); })
      .def_property_readonly("alignment", [](const GgufSet& s) { return s.first().alignment(); })
      .def_property_readonly("n_parts", &GgufSet::n_parts)
      .def_property_readonly("metadata", [](const GgufSet& s) { return metadata_dict(s.first()); })
      .def_property_readonly("tensors", [](const GgufSet& s) { return tensor_list(s.tensors()); });
}

}  // namespace pyllamacpp
