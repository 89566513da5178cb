// The operators on the CPU: rows in parallel on torch's own threads.
#include "butterfly/butterfly_launch.h"
#include "machine/fresh_pages.h"
#include "kernels.h"
#include "products/linear_launch.h"
#include "register.h"
#include "products/take_launch.h"

namespace stone {

namespace {

// Fewer elements than this on a thread cost more to hand out than to work off.
constexpr int64_t kGrainElements = 32768;

template <class Arguments>
int64_t row_length(const Arguments& arguments) {
  return arguments.dim;
}
int64_t row_length(const RowArguments& arguments) { return arguments.width[0]; }

template <class Kernel, class Arguments>
void over_rows(Kernel kernel, const Arguments& arguments, int64_t rows) {
  const int64_t dim = row_length(arguments);
  const int64_t grain = kGrainElements / (dim > 0 ? dim : 1) + 1;
  const auto work = [&](int64_t begin, int64_t end) { kernel(arguments, begin, end); };
  if (rows <= grain) {
    work(0, rows);
    return;
  }
  torch::stable::parallel_for(
      0, rows, grain, [&](int64_t begin, int64_t end) { over_pieces(arguments, rows, begin, end, work); });
}

struct Cpu {
  using Order = CpuOrder;

  static void radial(launch::RadialMap which, launch::Direction direction, const RadialArguments& arguments,
                     int64_t rows, const launch::Tensor& /*x*/) {
    const Kernels& table = kernels();
    const bool forward = direction == launch::Direction::kForward;
    if (which == launch::RadialMap::kExpmap0) {
      over_rows(forward ? table.expmap0 : table.expmap0_backward, arguments, rows);
    } else {
      over_rows(forward ? table.logmap0 : table.logmap0_backward, arguments, rows);
    }
  }

  static void mobius(launch::Direction direction, const MobiusArguments& arguments, int64_t rows,
                     const launch::Tensor& /*x*/) {
    const Kernels& table = kernels();
    over_rows(direction == launch::Direction::kForward ? table.mobius_add : table.mobius_add_backward, arguments,
              rows);
  }

  static void butterfly(launch::Direction direction, const ButterflyArguments& arguments, const launch::Tensor& x) {
    run_butterfly(direction, arguments, x);
  }

  static void poincare_linear(launch::Direction direction, const PoincareLinearArguments& arguments,
                              const launch::Tensor& x) {
    run_poincare_linear(direction, arguments, x);
  }

  static void add_time(launch::Direction direction, const AddTimeArguments& arguments, int64_t rows,
                       const launch::Tensor& /*x*/) {
    const LinearEpilogueKernels& kernel = *kernels().linear_epilogue;
    over_rows(direction == launch::Direction::kForward ? kernel.add_time : kernel.add_time_backward, arguments, rows);
  }

  static void rows(int index, launch::Direction direction, const RowArguments& arguments, int64_t rows,
                   const launch::Tensor& /*x*/) {
    const RowKernels& formula = kernels().rows[index];
    over_rows(direction == launch::Direction::kForward ? formula.forward : formula.backward, arguments, rows);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stone, CPU, m) {
  launch::register_operators<Cpu>(m);
  launch::register_linear_layers<Cpu>(m);
  launch::register_pifa<Cpu>(m);
}

}  // namespace stone
