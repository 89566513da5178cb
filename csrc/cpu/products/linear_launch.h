// The epilogue of poincare_linear on the CPU: rows, or chunks of rows, in parallel.
#pragma once

#include <algorithm>

#include "butterfly/butterfly_launch.h"

namespace stone {

inline void run_poincare_linear(launch::Direction direction, PoincareLinearArguments arguments,
                                const launch::Tensor& x) {
  const LinearEpilogueKernels& kernel = *kernels().linear_epilogue;
  if (direction == launch::Direction::kForward) {
    const int64_t grain = 32768 / std::max<int64_t>(arguments.in + arguments.out, 1) + 1;
    const auto work = [&](int64_t begin, int64_t end) { kernel.poincare_linear(arguments, begin, end); };
    if (arguments.rows <= grain) {
      work(0, arguments.rows);
    } else {
      torch::stable::parallel_for(0, arguments.rows, grain, [&](int64_t begin, int64_t end) {
        over_pieces(arguments, arguments.rows, begin, end, work);
      });
    }
    return;
  }
  arguments.chunks = portable::count_chunks(arguments.rows);
  const launch::Tensor partial =
      launch::new_tensor({arguments.chunks, arguments.out}, launch::ScalarType::Double, x);
  arguments.partial = static_cast<double*>(partial.mutable_data_ptr());
  const auto work = [&](int64_t begin, int64_t end) { kernel.poincare_linear_backward(arguments, begin, end); };
  if (arguments.chunks == 1) {
    work(0, 1);
  } else {
    torch::stable::parallel_for(
        0, arguments.chunks, 1, [&](int64_t begin, int64_t end) { over_chunks(arguments, begin, end, work); });
  }
  if (arguments.bias != nullptr) {
    kernel.poincare_linear_collect(arguments);
  }
}

}  // namespace stone
