#include <pybind11/stl.h>

#include "base/thread_pool.h"
#include "bind/bindings.h"
#include "cpu/isa.h"

PYBIND11_MODULE(_core, m) {
  using namespace pyllamacpp;
  m.doc() = "The compiled core of pyllamacpp; use the classes of the package instead.";
  m.attr("version") = PYLLAMACPP_VERSION;
  m.def("default_thread_count", &default_thread_count,
        "min(physical cores, CPU affinity, container CPU quota)");
  m.def("isa", [] { return cpu::active_tier().name; }, "The tier of kernels in use.");
  m.def(
      "isa_tiers",
      [] {
        std::vector<std::string> names;
        for (const cpu::KernelTable* table : cpu::available_tiers()) names.push_back(table->name);
        return names;
      },
      "Tiers this CPU can run, best first.");
  register_errors(m);
  register_gguf(m);
  register_tokenizer(m);
  register_model(m);
  register_rope(m);
  register_limits(m);
  register_gpus(m);
  register_memory_plan(m);
  register_adapter(m);
  register_context(m);
  register_sampler(m);
  register_generation(m);
}
