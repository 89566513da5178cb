// The table of CPU kernels; each instruction set fills one. Every kernel works on the rows [begin, end).
#pragma once

#include "stone/arguments.h"
#include "stone/butterfly_arguments.h"
#include "stone/linear_epilogue_arguments.h"
#include "stone/take_arguments.h"

namespace stone {

// Butterflies need the weight arranged first, scratch memory for each thread, and the weight's gradient collected.
struct ButterflyKernels {
  int64_t (*scratch_bytes)(const ButterflyArguments&, bool backward);
  void (*arrange)(const ButterflyArguments&);
  void (*forward)(const ButterflyArguments&, int64_t begin, int64_t end, void* scratch);
  void (*backward)(const ButterflyArguments&, int64_t first_chunk, int64_t last_chunk, void* scratch);
  void (*collect)(const ButterflyArguments&);
};

struct LinearEpilogueKernels {
  void (*poincare_linear)(const PoincareLinearArguments&, int64_t begin, int64_t end);
  void (*poincare_linear_backward)(const PoincareLinearArguments&, int64_t first_chunk, int64_t last_chunk);
  void (*poincare_linear_collect)(const PoincareLinearArguments&);
  void (*add_time)(const AddTimeArguments&, int64_t begin, int64_t end);
  void (*add_time_backward)(const AddTimeArguments&, int64_t begin, int64_t end);
};

// With `copy`, memory of a row and `vector_bytes` more, each row is copied there first: its target may be the row itself.
// `plan` fills memory of `plan_bytes` and says whether the rows may be taken by it, which needs the copy. Both lie at
// multiples of `vector_bytes`.
struct TakeKernels {
  void (*rows)(const TakeArguments&, int64_t begin, int64_t end, void* copy);
  int64_t (*plan_bytes)(Element, int64_t count);
  bool (*plan)(const TakeArguments&, int64_t split, void* memory);
  int64_t vector_bytes;
};

// One operator of rows, in the order of RowFormulas; point_of_distances is the last.
struct RowKernels {
  using Rows = void (*)(const RowArguments&, int64_t begin, int64_t end);
  Rows forward;
  Rows backward;
};

struct Kernels {
  using Radial = void (*)(const RadialArguments&, int64_t begin, int64_t end);
  using Mobius = void (*)(const MobiusArguments&, int64_t begin, int64_t end);
  Radial expmap0;
  Radial expmap0_backward;
  Radial logmap0;
  Radial logmap0_backward;
  Mobius mobius_add;
  Mobius mobius_add_backward;
  const ButterflyKernels* butterfly;
  const LinearEpilogueKernels* linear_epilogue;
  const TakeKernels* take;
  const RowKernels* rows;
};

namespace baseline {
extern const Kernels kKernels;
extern const ButterflyKernels kButterfly;
extern const LinearEpilogueKernels kLinearEpilogue;
extern const TakeKernels kTake;
}
namespace avx2 {
extern const Kernels kKernels;
extern const ButterflyKernels kButterfly;
extern const LinearEpilogueKernels kLinearEpilogue;
extern const TakeKernels kTake;
}
namespace avx512 {
extern const Kernels kKernels;
extern const ButterflyKernels kButterfly;
extern const LinearEpilogueKernels kLinearEpilogue;
extern const TakeKernels kTake;
}

// The table of the chosen instruction set.
const Kernels& kernels();

}  // namespace stone
