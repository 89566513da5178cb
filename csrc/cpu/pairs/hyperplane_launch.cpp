// poincare_hyperplanes on the CPU: rows in parallel on torch's own threads.
#include "pairs/hyperplane_kernels.h"
#include "hyperplanes.h"

namespace stone {

namespace {

constexpr int64_t kGrainEntries = 16384;

struct Cpu {
  static void hyperplanes(launch::Direction direction, const HyperplaneArguments& arguments,
                          const launch::Tensor& /*x*/) {
    const bool forward = direction == launch::Direction::kForward;
    const auto kernel = forward ? hyperplane_kernels().forward : hyperplane_kernels().backward;
    const int64_t rows = forward ? 1 : kHyperplaneBlock;
    const int64_t units = (arguments.rows + rows - 1) / rows;
    const int64_t grain = kGrainEntries / (rows * (arguments.planes + arguments.dim + 1)) + 1;
    if (units <= grain) {
      kernel(arguments, 0, units);
      return;
    }
    torch::stable::parallel_for(0, units, grain,
                                [&](int64_t begin, int64_t end) { kernel(arguments, begin, end); });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stone, CPU, m) { launch::register_hyperplanes<Cpu>(m); }

}  // namespace stone
