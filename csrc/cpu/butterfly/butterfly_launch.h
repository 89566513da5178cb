// Butterflies on the CPU: rows, or chunks of rows, in parallel, each thread with scratch memory of its own.
#pragma once

#include <algorithm>
#include <memory>

#include "machine/fresh_pages.h"
#include "kernels.h"
#include "register.h"

namespace stone {

// Short rows share lines of at most this many entries.
constexpr int64_t kShortestLine = 16;

inline void run_butterfly(launch::Direction direction, ButterflyArguments arguments, const launch::Tensor& x) {
  const ButterflyKernels& kernel = *kernels().butterfly;
  const int64_t width = std::max(arguments.dim, kShortestLine);
  const launch::Tensor arranged = launch::new_tensor({arguments.stages, 2, width}, launch::compute_dtype(x), x);
  arguments.arranged = arranged.mutable_data_ptr();
  kernel.arrange(arguments);
  const int64_t bytes = kernel.scratch_bytes(arguments, direction == launch::Direction::kBackward);
  const auto scratch = [bytes] {
    return std::make_unique_for_overwrite<std::max_align_t[]>(static_cast<size_t>(bytes) / sizeof(std::max_align_t) + 1);
  };
  if (direction == launch::Direction::kForward) {
    const int64_t grain = 32768 / arguments.dim + 1;
    const auto work = [&](int64_t begin, int64_t end) {
      const auto memory = scratch();
      over_pieces(arguments, arguments.rows, begin, end,
                  [&](int64_t first, int64_t last) { kernel.forward(arguments, first, last, memory.get()); });
    };
    if (arguments.rows <= grain) {
      work(0, arguments.rows);
    } else {
      torch::stable::parallel_for(0, arguments.rows, grain, work);
    }
    return;
  }
  arguments.chunks = portable::count_chunks(arguments.rows);
  const launch::Tensor partial = launch::new_tensor({arguments.chunks, arguments.stages, 2, width},
                                                    launch::ScalarType::Double, x);
  arguments.partial = partial.mutable_data_ptr();
  const auto work = [&](int64_t begin, int64_t end) {
    const auto memory = scratch();
    over_chunks(arguments, begin, end,
                [&](int64_t first, int64_t last) { kernel.backward(arguments, first, last, memory.get()); });
  };
  if (arguments.chunks == 1) {
    work(0, 1);
  } else {
    torch::stable::parallel_for(0, arguments.chunks, 1, work);
  }
  kernel.collect(arguments);
}

}  // namespace stone
