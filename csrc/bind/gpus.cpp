#include <pybind11/stl.h>

#include "backend/vulkan/gpu_list.h"
#include "bind/bindings.h"

namespace py = pybind11;

namespace pyllamacpp {

void register_gpus(py::module_& m) {
  py::class_<GpuInfo>(m, "GpuInfo", "A GPU that can run models.")
      .def_property_readonly("name", [](const GpuInfo& g) { return to_str(g.name); })
      .def_property_readonly("driver", [](const GpuInfo& g) { return to_str(g.driver); })
      .def_readonly("kind", &GpuInfo::kind, "discrete, integrated, virtual or software")
      .def_readonly("memory", &GpuInfo::memory, "bytes of its own")
      .def_readonly("memory_free", &GpuInfo::memory_free)
      .def_readonly("features", &GpuInfo::features)
      .def_readonly("tier", &GpuInfo::tier);
  m.def("list_gpus", &list_gpus, py::call_guard<py::gil_scoped_release>(),
        "Best first; empty without a Vulkan loader or driver.");
  m.def("chosen_gpu", &chosen_gpu, py::arg("gpus"), py::arg("main_gpu") = 0,
        "The index that PYLLAMACPP_DEVICE names, or main_gpu; None for the CPU.");
  m.def("take_gpu_messages", &take_gpu_messages,
        "What the validation layers said since the last call (PYLLAMACPP_VK_VALIDATE=1).");
}

}  // namespace pyllamacpp
