// The table of CPU kernels; each instruction set fills one. Every kernel works on the rows [begin, end).
#pragma once

#include "stone/arguments.h"

namespace stone {

struct Kernels {
  using Radial = void (*)(const RadialArguments&, int64_t begin, int64_t end);
  using Mobius = void (*)(const MobiusArguments&, int64_t begin, int64_t end);
  Radial expmap0;
  Radial expmap0_backward;
  Radial logmap0;
  Radial logmap0_backward;
  Mobius mobius_add;
  Mobius mobius_add_backward;
};

namespace baseline {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}

// The table of the chosen instruction set.
const Kernels& kernels();

}  // namespace stone
