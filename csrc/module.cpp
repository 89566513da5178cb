// stonefx._C: what was built and what this machine runs. No header of torch here: it loads on its own.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cpu/machine/isa.h"
#include "cpu/machine/machine.h"

namespace py = pybind11;

namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    if (end > begin) {
      parts.push_back(text.substr(begin, end - begin));
    }
    begin = end + 1;
  }
  return parts;
}

py::dict build_info() {
  py::dict info;
  info["stonefx"] = STONE_VERSION;
  info["torch_headers"] = STONE_TORCH_VERSION;
  info["torch_target"] = STONE_TORCH_TARGET;
  info["compiler"] = STONE_COMPILER;
  info["compile_flags"] = split(STONE_FLAGS);
  info["instruction_sets"] = stone::compiled_instruction_sets();
  info["instruction_sets_usable"] = stone::usable_instruction_sets();
  info["instruction_set"] = stone::chosen_instruction_set();
  info["cuda_compiler"] = STONE_CUDA_COMPILER;
  info["cuda_architectures"] = split(STONE_CUDA_ARCHITECTURES);
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Facts about the build of stonefx and the machine it runs on.";
  m.def("build_info", &build_info,
        "Facts of the build as a dict: versions, instruction sets, CUDA architectures, compile flags.\n\n"
        "Raises RuntimeError where STONEFX_CPU_ISA names an instruction set that cannot run here.");
  m.def("usable_cores", &stone::usable_cores, "The cores that this process may use.");
  m.def("cache_bytes", &stone::cache_bytes,
        "Bytes of the data caches of one core, level 1 first; empty where the system does not say.");
  m.def("read_bandwidth", &stone::read_bandwidth, py::arg("bytes"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>(),
        "Bytes a second at which so many threads together read a buffer of that size.\n\n"
        "Raises ValueError for less than one thread, or a buffer too small for them.");
  m.def("usable_instruction_sets", &stone::usable_instruction_sets,
        "The compiled instruction sets that this CPU has, weakest first.");
}
