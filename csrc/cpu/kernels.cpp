#include "kernels.h"

#include <string>

#include "pairs/cdist_kernels.h"
#include "pairs/hyperplane_kernels.h"
#include "machine/isa.h"

namespace stone {

// On x86-64 the strongest set that is compiled and runs here, or the one that was asked for.
#if defined(STONE_X86)
#define STONE_CHOSEN(table)                                       \
  (chosen_instruction_set() == "avx512"   ? avx512::table          \
   : chosen_instruction_set() == "avx2"   ? avx2::table            \
                                          : baseline::table)
#else
#define STONE_CHOSEN(table) baseline::table
#endif

const Kernels& kernels() {
  static const Kernels& table = STONE_CHOSEN(kKernels);
  return table;
}

const HyperplaneKernels& hyperplane_kernels() {
  static const HyperplaneKernels& table = STONE_CHOSEN(kHyperplanes);
  return table;
}

const CdistKernels& cdist_kernels() {
  static const CdistKernels& table = STONE_CHOSEN(kCdist);
  return table;
}

}  // namespace stone
