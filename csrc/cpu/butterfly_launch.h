// Butterflies on the CPU: rows, or chunks of rows, in parallel, each thread with scratch memory of its own.
#pragma once

#include <algorithm>
#include <memory>

#include "kernels.h"
#include "register.h"

namespace stone {

// A chunk sums its own gradient of the weight or bias: enough chunks to share out, of enough rows to be worth their memory.
constexpr int64_t kRowsOfChunk = 256;
constexpr int64_t kMostChunks = 32;
// Short rows share lines of at most this many entries.
constexpr int64_t kShortestLine = 16;

inline int64_t chunks_of(int64_t rows) {
  return std::clamp<int64_t>((rows + kRowsOfChunk - 1) / kRowsOfChunk, 1, kMostChunks);
}

inline void run_butterfly(launch::Direction direction, ButterflyArguments arguments, const launch::Tensor& x) {
  const ButterflyKernels& kernel = *kernels().butterfly;
  const int64_t width = std::max(arguments.dim, kShortestLine);
  const launch::Tensor arranged = launch::new_tensor({arguments.stages, 2, width}, launch::compute_dtype(x), x);
  arguments.arranged = arranged.mutable_data_ptr();
  kernel.arrange(arguments);
  const int64_t bytes = kernel.scratch_bytes(arguments, direction == launch::Direction::kBackward);
  const auto with_scratch = [&](auto run) {
    return [&arguments, run, bytes](int64_t begin, int64_t end) {
      const std::unique_ptr<std::max_align_t[]> scratch(
          new std::max_align_t[static_cast<size_t>(bytes) / sizeof(std::max_align_t) + 1]);
      run(arguments, begin, end, scratch.get());
    };
  };
  if (direction == launch::Direction::kForward) {
    const int64_t grain = 32768 / arguments.dim + 1;
    const auto work = with_scratch(kernel.forward);
    if (arguments.rows <= grain) {
      work(0, arguments.rows);
    } else {
      torch::stable::parallel_for(0, arguments.rows, grain, work);
    }
    return;
  }
  arguments.chunks = chunks_of(arguments.rows);
  const launch::Tensor partial = launch::new_tensor({arguments.chunks, arguments.stages, 2, width},
                                                    launch::ScalarType::Double, x);
  arguments.partial = partial.mutable_data_ptr();
  const auto work = with_scratch(kernel.backward);
  if (arguments.chunks == 1) {
    work(0, 1);
  } else {
    torch::stable::parallel_for(0, arguments.chunks, 1, work);
  }
  kernel.collect(arguments);
}

}  // namespace stone
