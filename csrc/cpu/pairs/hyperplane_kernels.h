// The table of CPU kernels over products with hyperplanes; each instruction set fills one.
#pragma once

#include "stone/arguments.h"

namespace stone {

struct HyperplaneKernels {
  using Rows = void (*)(const HyperplaneArguments&, int64_t begin, int64_t end);
  Rows forward;
  Rows backward;  // begin and end count blocks of kHyperplaneBlock rows
};

namespace baseline {
extern const HyperplaneKernels kHyperplanes;
}
namespace avx2 {
extern const HyperplaneKernels kHyperplanes;
}
namespace avx512 {
extern const HyperplaneKernels kHyperplanes;
}

// The table of the chosen instruction set.
const HyperplaneKernels& hyperplane_kernels();

}  // namespace stone
