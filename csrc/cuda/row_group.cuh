// A group of lanes that works on one row: 1 to 32 lanes of a warp, or several whole warps of a block for long rows.
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

// Of a row that is not aligned a lane keeps single elements, so more of them.
constexpr int kKeptSingle = 8;

template <bool aligned>
constexpr int kKeptOf = aligned ? kKept : kKeptSingle;

template <class T, bool aligned>
constexpr int kPack = aligned ? 16 / static_cast<int>(sizeof(T)) : 1;

// Hides from the compiler that the elements are still those that were read: it would keep each of them converted to
// float64 too, in twice to four times the registers, where converting again costs less than the warps lost to that.
template <class P>
__device__ inline void forget_conversions(P& pack) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(P) == 2) {
    asm volatile("" : "+h"(reinterpret_cast<uint16_t&>(pack)));
  } else {
    uint32_t words[sizeof(P) / 4];
    memcpy(words, &pack, sizeof pack);
#pragma unroll
    for (uint32_t& word : words) {
      asm volatile("" : "+r"(word));
    }
    memcpy(&pack, words, sizeof pack);
  }
#else
  (void)pack;
#endif
}

// What a lane holds of one row vector: packs that lie `lanes` apart. All are asked for before one is used; beyond the
// row they are 0, which adds nothing to a sum.
template <class P, int K>
struct Stage {
  P at[K];

  // `first` is the lane's own first pack, of which on there are `left` (32 bits count faster).
  __device__ void read(const P* first, int left, int lanes) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      at[k] = k * lanes < left ? first[k * lanes] : P{};
    }
  }

  __device__ void forget() {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      forget_conversions(at[k]);
    }
  }
};

// Results of 16 bits may be combined in float32, whose rounding is far below theirs, where no term can overflow or lose
// digits below the smallest float32: with coefficients and squared norms in these ranges. NaN is in none.
__device__ inline bool single_holds(double coefficient) {
  const double size = fabs(coefficient);
  return size < 1e15 && (size > 1e-30 || size == 0.0);
}

__device__ inline bool single_holds_squares(double squares) { return fabs(squares) < 1e30; }

// One pack, read as a whole.
template <class P>
__device__ inline P read_pack(const P* at) {
  P pack = *at;
  forget_conversions(pack);
  return pack;
}

// Packs from `begin` to the end of a row, as far as a lane's stage of `kept` reaches.
__device__ inline int left_of(int64_t begin, int64_t count, int kept, int lanes) {
  const int64_t left = count - begin;
  const int64_t reach = static_cast<int64_t>(kept) * lanes;
  return static_cast<int>(left < reach ? left : reach);
}

struct RowGroup {
  int lanes;   // a power of two up to kThreads
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
    const int begin = group * (lanes / 32);
#pragma unroll
    for (int v = 0; v < N; ++v) {
      values[v] = 0.0;
      for (int w = begin; w < begin + lanes / 32; ++w) {
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
    const int begin = group * (lanes / 32);
    for (int w = begin; w < begin + lanes / 32; ++w) {
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

// Lanes for rows of this many packs, of which each lane keeps `kept`. Every lane of a group works out the coefficients
// of its row, some hundreds of float64 instructions: the fewer lanes, the less of that for each byte. Lanes that read
// `together` at once keep to whole sectors of memory.
inline int lanes_that_keep(int64_t packs, int kept, int together) {
  int lanes = 1;
  while (lanes < kThreads && lanes < packs && (lanes < together || static_cast<int64_t>(lanes) * kept < packs)) {
    lanes *= 2;
  }
  return lanes;
}

// The same for rows that are aligned, or not.
inline int lanes_for_rows(int64_t packs, bool aligned) {
  return aligned ? lanes_that_keep(packs, kKept, 2) : lanes_that_keep(packs, kKeptSingle, 4);
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

// Rows that a group works on before each lane works out the coefficients of one of them: as many as leave every
// multiprocessor several blocks, and `most` at most.
inline int turns_for(int64_t rows, int lanes, int most) {
  int turns = 1;
  while (turns < lanes && turns < most && rows >= int64_t{8} * turns * (kThreads / lanes) * kMultiprocessors) {
    turns *= 2;
  }
  return turns;
}

}  // namespace stone::cuda
