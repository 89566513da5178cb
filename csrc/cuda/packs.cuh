// Packs of elements to and from the type that is computed in, two at a time where the device has an instruction for it.
#pragma once

#include <type_traits>

#include "row_group.cuh"

namespace stone::cuda {

// Starts `kernel` with `bytes` of shared memory beside its own, and says whether the device has that much.
#if defined(__CUDACC__)
template <class... Arguments>
bool launch_with_shared(void (*kernel)(Arguments...), int blocks, int bytes, cudaStream_t stream,
                        Arguments... arguments) {
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) != cudaSuccess) {
    cudaGetLastError();  // not to be found by what follows
    return false;
  }
  kernel<<<blocks, kThreads, bytes, stream>>>(arguments...);
  return true;
}
#else
template <class... Arguments>
bool launch_with_shared(void (*kernel)(Arguments...), int blocks, int, cudaStream_t stream, Arguments... arguments) {
  launch(kernel, blocks, stream, arguments...);
  return true;
}
#endif

template <class T>
using ComputeOf = typename portable::Compute<T>::type;

// Elements of 16 bytes.
template <class T>
constexpr int kWhole = kPack<T, true>;

template <class T, int N>
__device__ inline void unpack(ComputeOf<T> (&to)[N], const Pack<T, N>& from) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    to[i] = portable::load(from.at[i]);
  }
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
template <int N>
__device__ inline void unpack(float (&to)[N], const Pack<Half, N>& from) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    asm("cvt.f32.f16 %0, %1;" : "=f"(to[i]) : "h"(from.at[i].bits));
  }
}
#endif

template <class T, int N>
__device__ inline Pack<T, N> packed(const ComputeOf<T> (&from)[N]) {
  Pack<T, N> to;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {
    // Rounded to the nearest, ties to even, as `store` does; a NaN stays a NaN, with bits of its own.
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      uint32_t both;
      if constexpr (std::is_same_v<T, BFloat16>) {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(from[i + 1]), "f"(from[i]));
      } else {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(from[i + 1]), "f"(from[i]));
      }
      to.at[i].bits = static_cast<uint16_t>(both & 0xffffu);
      to.at[i + 1].bits = static_cast<uint16_t>(both >> 16);
    }
  } else
#endif
  {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      to.at[i] = portable::store<T>(from[i]);
    }
  }
  return to;
}

// 16 bytes of elements as they lie in memory, which take 4 registers until they are unpacked: elements of 2 bytes would
// take a register each.
struct alignas(16) Words {
  uint32_t at[4];
};

// The elements in float32, of types that it holds.
template <class T>
__device__ inline void widen(float (&to)[kWhole<T>], const Words& from) {
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    if constexpr (sizeof(T) == 2) {
      Pack<T, 2> pack;
      pack.at[0].bits = static_cast<uint16_t>(from.at[w] & 0xffffu);
      pack.at[1].bits = static_cast<uint16_t>(from.at[w] >> 16);
      float values[2];
      unpack(values, pack);
      to[2 * w] = values[0];
      to[2 * w + 1] = values[1];
    } else {
      to[w] = portable::float_from_bits(from.at[w]);
    }
  }
}

template <class T>
__device__ inline void widen(double (&to)[kWhole<T>], const Words& from) {
  if constexpr (sizeof(T) < sizeof(double)) {
    float values[kWhole<T>];
    widen<T>(values, from);
#pragma unroll
    for (int i = 0; i < kWhole<T>; ++i) {
      to[i] = static_cast<double>(values[i]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint64_t bits = static_cast<uint64_t>(from.at[2 * i + 1]) << 32 | from.at[2 * i];
      memcpy(&to[i], &bits, sizeof bits);
    }
  }
}

// Makes the compiler forget what it knows of the elements: it would rather keep them unpacked, in many registers.
__device__ inline void keep_packed(Words& words) {
#if defined(__CUDA_ARCH__)
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    asm volatile("" : "+r"(words.at[w]));
  }
#else
  static_cast<void>(words);
#endif
}

}  // namespace stone::cuda
