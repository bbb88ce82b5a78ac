// The Python extension, one file per class. Binding files define register_* and nothing else.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <mutex>
#include <string_view>

#include "backend/cpu_backend.h"
#include "base/error.h"
#include "gguf/gguf_reader.h"
#include "session/context.h"

namespace pyllamacpp {

// A context as Python holds it: calls from several threads take turns, and a signal that arrives
// during an evaluation (Ctrl-C) ends it within one layer.
class PyContext {
 public:
  PyContext(std::shared_ptr<const Model> model, const ContextParams& params);

  // Calls f() with the GIL released and the context locked. A Python exception that a signal
  // handler raised meanwhile is thrown in place of Error(cancelled).
  template <class F>
  auto exclusive(const F& f);

  Context context;

 private:
  std::mutex mutex_;
};

template <class F>
auto PyContext::exclusive(const F& f) {
  try {
    const pybind11::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    return f();
  } catch (const Error&) {
    if (PyErr_Occurred()) throw pybind11::error_already_set();
    throw;
  }
}

// Values by the names that Python knows. Throw Error(invalid_argument).
Repack repack_named(const std::string& name);
const char* repack_name(Repack repack);
DType kv_type_named(const char* argument, const std::string& name);

// Python objects from what a file holds. Text that is not UTF-8 gets U+FFFD.
pybind11::str to_str(std::string_view text);
pybind11::dict metadata_dict(const GgufFile& file);
// A dict of the user's. Throws Error(invalid_argument) for what is no int, float, bool or str.
MetaOverrides overrides_of(const pybind11::dict& values);
pybind11::list tensor_list(const std::vector<TensorInfo>& tensors);

void register_errors(pybind11::module_& m);
void register_gguf(pybind11::module_& m);
void register_tokenizer(pybind11::module_& m);
void register_model(pybind11::module_& m);
void register_rope(pybind11::module_& m);
void register_memory_plan(pybind11::module_& m);
void register_limits(pybind11::module_& m);
void register_gpus(pybind11::module_& m);
void register_adapter(pybind11::module_& m);
void register_context(pybind11::module_& m);
void register_sampler(pybind11::module_& m);
void register_generation(pybind11::module_& m);

}  // namespace pyllamacpp
