// A group of lanes that works on one row: 1 to 32 lanes of a warp, or a whole block for long rows.
#pragma once

#include <cuda_runtime.h>

#include "stone/storage.h"

namespace stone::cuda {

constexpr int kThreads = 256;
// Packs of a row that a lane keeps in registers between its two passes; a longer row is read again.
constexpr int kKept = 4;
// The same where two operands are read: more would not leave registers enough.
constexpr int kKeptPairs = 2;

// Elements that are loaded and stored at once: 16 bytes, or 1 element where the row is not aligned to that.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T at[N];
};

template <class T, bool aligned>
constexpr int kPack = aligned ? 16 / static_cast<int>(sizeof(T)) : 1;

struct RowGroup {
  int lanes;   // a power of two, or kThreads
  int lane;
  int group;   // which row of the block
  int groups;  // rows a block works on at once

  __device__ explicit RowGroup(int lanes_)
      : lanes(lanes_), lane(threadIdx.x % lanes_), group(threadIdx.x / lanes_), groups(kThreads / lanes_) {}

  // Every lane gets the sum over its group. Every thread of the block must call it.
  template <int N>
  __device__ void sum(double (&values)[N]) const {
    const int width = lanes < 32 ? lanes : 32;
    for (int offset = width / 2; offset > 0; offset /= 2) {
#pragma unroll
      for (int v = 0; v < N; ++v) {
        values[v] += __shfl_xor_sync(0xffffffffu, values[v], offset);
      }
    }
    if (lanes <= 32) {
      return;
    }
    __shared__ double partial[N][kThreads / 32];
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0) {
#pragma unroll
      for (int v = 0; v < N; ++v) {
        partial[v][warp] = values[v];
      }
    }
    __syncthreads();
#pragma unroll
    for (int v = 0; v < N; ++v) {
      values[v] = 0.0;
      for (int w = 0; w < kThreads / 32; ++w) {
        values[v] += partial[v][w];
      }
    }
    __syncthreads();
  }

  // Every lane gets the largest of its group; no value is below 0. Every thread of the block must call it.
  __device__ double largest(double value) const {
    const int width = lanes < 32 ? lanes : 32;
    for (int offset = width / 2; offset > 0; offset /= 2) {
      const double other = __shfl_xor_sync(0xffffffffu, value, offset);
      value = other > value ? other : value;
    }
    if (lanes <= 32) {
      return value;
    }
    __shared__ double partial[kThreads / 32];
    if (threadIdx.x % 32 == 0) {
      partial[threadIdx.x / 32] = value;
    }
    __syncthreads();
    for (int w = 0; w < kThreads / 32; ++w) {
      value = partial[w] > value ? partial[w] : value;
    }
    __syncthreads();
    return value;
  }
};

// Lanes for rows of this many packs: few enough that all are busy.
inline int lanes_for(int64_t packs) {
  if (packs > 32 * 2 * kKept) {
    return kThreads;
  }
  int lanes = 1;
  while (lanes < 32 && lanes < packs) {
    lanes *= 2;
  }
  return lanes;
}

inline int blocks_for(int64_t rows, int lanes) {
  const int64_t groups = kThreads / lanes;
  const int64_t blocks = (rows + groups - 1) / groups;
  return static_cast<int>(blocks < (1 << 20) ? blocks : (1 << 20));
}

#if defined(__CUDACC__)  // the tests run the kernels on threads of the host, and launch them in their own way
// What a device has, nearly: 108 on A100, 132 on H100. How work is divided among so many depends on it, no result does.
constexpr int kMultiprocessors = 132;

template <class... Arguments>
void launch(void (*kernel)(Arguments...), int blocks, cudaStream_t stream, Arguments... arguments) {
  kernel<<<blocks, kThreads, 0, stream>>>(arguments...);
}
#endif

inline bool aligned_to_16(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace stone::cuda
