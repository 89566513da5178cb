// Sums over chunks of rows, in an order that depends on nothing but their number.
#pragma once

#include "row_group.cuh"

namespace stone::cuda {

inline int blocks_of_sums(int64_t size) {
  const int64_t blocks = (size + 31) / 32;
  return static_cast<int>(blocks < (1 << 20) ? blocks : (1 << 20));
}

// target[k] is the sum of partial[chunk, k] over the chunks. A warp's lanes take neighbouring entries, and the warps of a
// block the chunks in turn.
template <class T>
__device__ inline void sum_chunks(T* target, const double* partial, int64_t chunks, int64_t size) {
  constexpr int warps = kThreads / 32;
  __shared__ double of_warps[warps][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * 32; first < size;
       first += static_cast<int64_t>(gridDim.x) * 32) {
    const int64_t k = first + lane;
    double sum = 0.0;
#pragma unroll 4
    for (int64_t chunk = warp; k < size && chunk < chunks; chunk += warps) {
      sum += partial[chunk * size + k];
    }
    of_warps[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && k < size) {
      for (int w = 1; w < warps; ++w) {
        sum += of_warps[w][lane];
      }
      target[k] = portable::store<T>(static_cast<typename portable::Compute<T>::type>(sum));
    }
    __syncthreads();
  }
}

}  // namespace stone::cuda
