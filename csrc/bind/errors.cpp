#include <new>

#include "base/error.h"
#include "bind/bindings.h"

namespace py = pybind11;

namespace pyllamacpp {

namespace {

const char* class_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::invalid_argument:
      return "InvalidArgumentError";
    case ErrorKind::format:
      return "FormatError";
    case ErrorKind::io:
      return "FileError";
    case ErrorKind::memory:
      return "OutOfMemoryError";
    case ErrorKind::unsupported:
      return "UnsupportedError";
    case ErrorKind::context_full:
      return "ContextFullError";
    case ErrorKind::cancelled:
      return "CancelledError";
    case ErrorKind::device:
      return "DeviceError";
  }
  return "PyllamacppError";
}

void raise(const char* name, const char* sentence) {
  const py::object type = py::module_::import("pyllamacpp.errors").attr(name);
  PyErr_SetObject(type.ptr(), to_str(sentence).ptr());
}

}  // namespace

void register_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& e) {
      raise(class_name(e.kind()), e.what());
    } catch (const std::bad_alloc&) {
      raise("OutOfMemoryError", "not enough memory");
    }
  });
}

}  // namespace pyllamacpp
