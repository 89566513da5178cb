#include "kernels.h"

#include <string>

#include "isa.h"

namespace stone {

const Kernels& kernels() {
  static const Kernels& table = []() -> const Kernels& {
    const std::string name = chosen_instruction_set();
#if defined(STONE_X86)
    if (name == "avx512") {
      return avx512::kKernels;
    }
    if (name == "avx2") {
      return avx2::kKernels;
    }
#endif
    return baseline::kKernels;
  }();
  return table;
}

}  // namespace stone
