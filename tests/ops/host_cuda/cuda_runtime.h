// Stands in for the CUDA header, so that the kernels' own source runs on the host: the threads of a block take turns
// from barrier to barrier, blocks one after another. It shows whether indices, alignment, tails, barriers and
// reductions are right.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

using cudaStream_t = void*;

struct Index {
  unsigned x;
};
inline Index threadIdx{0};
inline Index blockIdx{0};
inline Index gridDim{1};

namespace stone::cuda {

inline constexpr int kMultiprocessors = 4;  // few, so that little work is much for them
inline constexpr unsigned kHostThreads = 256;
inline constexpr std::size_t kStackBytes = 256 * 1024;
inline double exchanged[kHostThreads];

// The threads of one block on one thread of the host: real ones would spend all their time in barriers.
class Block {
 public:
  Block() : stacks_(std::make_unique<char[]>(kHostThreads * kStackBytes)) {}

  void run(const std::function<void()>& body) {
    body_ = &body;
    for (unsigned t = 0; t < kHostThreads; ++t) {
      getcontext(&threads_[t]);
      threads_[t].uc_stack.ss_sp = stacks_.get() + t * kStackBytes;
      threads_[t].uc_stack.ss_size = kStackBytes;
      threads_[t].uc_link = &turns_;
      makecontext(&threads_[t], &Block::start, 0);
    }
    unsigned running = kHostThreads;
    // From one barrier to the next upwards and downwards in turn: a value that is read without a barrier after it
    // was written is then missing in one of the two directions, every time.
    for (unsigned turn = 0; running != 0; ++turn) {
      done_ = 0;
      for (unsigned i = 0; i < kHostThreads; ++i) {
        threadIdx.x = turn % 2 == 0 ? i : kHostThreads - 1 - i;
        swapcontext(&turns_, &threads_[threadIdx.x]);
      }
      if (done_ != 0 && done_ != kHostThreads) {
        std::fprintf(stderr, "%u of %u threads ended while others wait at a barrier\n", done_, kHostThreads);
        std::abort();
      }
      running -= done_;
    }
  }

  void wait() {
    const unsigned self = threadIdx.x;
    swapcontext(&threads_[self], &turns_);
  }

 private:
  static void start();

  std::unique_ptr<char[]> stacks_;
  ucontext_t threads_[kHostThreads];
  ucontext_t turns_;
  const std::function<void()>* body_ = nullptr;
  unsigned done_ = 0;
};

inline Block block;

inline void Block::start() {
  (*block.body_)();
  ++block.done_;
}

template <class... Arguments>
void launch(void (*kernel)(Arguments...), int blocks, cudaStream_t, Arguments... arguments) {
  gridDim.x = static_cast<unsigned>(blocks < 3 ? blocks : 3);  // so that blocks go through several rows
  for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) {
    block.run([=] { kernel(arguments...); });
  }
}

}  // namespace stone::cuda

inline void __syncthreads() { stone::cuda::block.wait(); }
inline void __syncwarp(unsigned = 0xffffffffu) { stone::cuda::block.wait(); }

inline double __shfl_xor_sync(unsigned, double value, int offset) {
  stone::cuda::exchanged[threadIdx.x] = value;
  __syncthreads();
  const double other = stone::cuda::exchanged[threadIdx.x ^ static_cast<unsigned>(offset)];
  __syncthreads();
  return other;
}

inline int __syncthreads_or(int predicate) {
  stone::cuda::exchanged[threadIdx.x] = predicate;
  __syncthreads();
  int any = 0;
  for (const double each : stone::cuda::exchanged) {
    any |= each != 0.0;
  }
  __syncthreads();
  return any;
}
