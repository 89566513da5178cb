// The table of CPU kernels over pairs of points; each instruction set fills one.
#pragma once

#include "stone/arguments.h"

namespace stone {

struct CdistKernels {
  // Tiles [begin, end) of the matrices, and the memory that a thread needs for them.
  void (*forward)(const CdistArguments&, void* scratch, int64_t begin, int64_t end);
  // Panels [begin, end) of x and, after them, of y.
  void (*backward)(const CdistArguments&, void* scratch, int64_t begin, int64_t end);
  int64_t (*scratch_bytes)(const CdistArguments&);
  int64_t (*tiles)(int64_t extent);
};

namespace baseline {
extern const CdistKernels kCdist;
}
namespace avx2 {
extern const CdistKernels kCdist;
}
namespace avx512 {
extern const CdistKernels kCdist;
}

// The table of the chosen instruction set.
const CdistKernels& cdist_kernels();

}  // namespace stone
