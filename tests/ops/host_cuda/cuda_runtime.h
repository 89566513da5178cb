// Stands in for the CUDA header, so that the kernels' own source runs on the host: a thread for each thread of a
// block, blocks one after another. It shows whether indices, alignment, tails and reductions are right.
#pragma once

#include <barrier>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <thread>
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
inline thread_local Index threadIdx{0};
inline Index blockIdx{0};
inline Index gridDim{1};

namespace stone::cuda {

inline constexpr int kHostThreads = 256;
inline std::barrier<> everyone(kHostThreads);
inline double exchanged[kHostThreads];

template <class... Arguments>
void launch(void (*kernel)(Arguments...), int blocks, cudaStream_t, Arguments... arguments) {
  gridDim.x = static_cast<unsigned>(blocks < 3 ? blocks : 3);  // so that blocks go through several rows
  for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) {
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < kHostThreads; ++t) {
      threads.emplace_back([=] {
        threadIdx.x = t;
        kernel(arguments...);
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
  }
}

}  // namespace stone::cuda

inline void __syncthreads() { stone::cuda::everyone.arrive_and_wait(); }

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
