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

MetaOverrides overrides_of(const py::dict& values) {
  MetaOverrides overrides;
  for (const auto& [key, value] : values) {
    if (!py::isinstance<py::str>(key))
      fail(ErrorKind::invalid_argument, "kv_overrides: a key is a string, found ",
           std::string(py::repr(key)));
    const auto name = key.cast<std::string>();
    if (py::isinstance<py::bool_>(value)) {
      overrides.emplace_back(name, value.cast<bool>());
    } else if (py::isinstance<py::int_>(value)) {
      int overflow = 0;
      const long long small = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
      if (overflow != 0)
        fail(ErrorKind::invalid_argument, "kv_overrides: ", name, " must lie in -2^63 .. 2^63 - 1");
      if (small < 0)
        overrides.emplace_back(name, int64_t(small));
      else
        overrides.emplace_back(name, uint64_t(small));
    } else if (py::isinstance<py::float_>(value)) {
      overrides.emplace_back(name, value.cast<double>());
    } else if (py::isinstance<py::str>(value)) {
      overrides.emplace_back(name, value.cast<std::string>());
    } else {
      fail(ErrorKind::invalid_argument, "kv_overrides: ", name,
           " must be an int, a float, a bool or a string, found ", std::string(py::repr(value)));
    }
  }
  return overrides;
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
      .def(py::init([](const std::string& path) { return GgufSet::open(path); }), py::arg("path"),
           py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("version", [](const GgufSet& s) { return s.first().version(); })
      .def_property_readonly("alignment", [](const GgufSet& s) { return s.first().alignment(); })
      .def_property_readonly("n_parts", &GgufSet::n_parts)
      .def_property_readonly("metadata", [](const GgufSet& s) { return metadata_dict(s.first()); })
      .def_property_readonly("tensors", [](const GgufSet& s) { return tensor_list(s.tensors()); });
}

}  // namespace pyllamacpp
