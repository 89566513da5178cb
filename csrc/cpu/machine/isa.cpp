#include "machine/isa.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace stone {

namespace {

bool runs_here(const std::string& name) {
#if defined(STONE_X86)
  __builtin_cpu_init();
  if (name == "avx2") {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }
  if (name == "avx512") {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma");
  }
#endif
  return name == "baseline";
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

}  // namespace

std::vector<std::string> compiled_instruction_sets() {
#if defined(STONE_X86)
  return {"baseline", "avx2", "avx512"};
#else
  return {"baseline"};
#endif
}

std::vector<std::string> usable_instruction_sets() {
  std::vector<std::string> usable;
  for (const std::string& name : compiled_instruction_sets()) {
    if (runs_here(name)) {
      usable.push_back(name);
    }
  }
  return usable;
}

std::string chosen_instruction_set() {
  const std::vector<std::string> usable = usable_instruction_sets();
  const char* wanted = std::getenv("STONEFX_CPU_ISA");
  if (wanted == nullptr || *wanted == '\0') {
    return usable.back();
  }
  if (std::find(usable.begin(), usable.end(), wanted) == usable.end()) {
    throw std::runtime_error(std::string("STONEFX_CPU_ISA=") + wanted + ", but this build on this CPU runs only " +
                             join(usable) + "; choose one of these, or unset it");
  }
  return wanted;
}

}  // namespace stone
