// Entries of rows in another order, on the GPU: a lane writes 16 bytes at once, and reads from a row that is in cache.
#include "kernels.h"
#include "row_group.cuh"

namespace stone::cuda {

namespace {

using portable::load;
using portable::store;

template <class T>
__device__ inline T taken(const TakeArguments& a, const T* source, int64_t column) {
  using C = typename portable::Compute<T>::type;
  // Compared without a sign, so that a column below 0 is one beyond the limit.
  if (static_cast<uint64_t>(column) >= static_cast<uint64_t>(a.limit)) {
    return store<T>(static_cast<C>(NAN));
  }
  return source[column < a.split ? column : column + a.shift];
}

template <class T>
__device__ inline T added(T value, T other) {
  return store<T>(load(value) + load(other));
}

template <class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 1) take_rows(const TakeArguments a, const int lanes) {
  constexpr int width = kPack<T, aligned>;
  using Packed = Pack<T, width>;
  const RowGroup group(lanes);
  const T* bias = static_cast<const T*>(a.bias);
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * group.groups + group.group; row < a.rows;
       row += static_cast<int64_t>(gridDim.x) * group.groups) {
    const T* source = static_cast<const T*>(a.source) + row * a.source_stride;
    T* target = static_cast<T*>(a.target) + row * a.target_stride;
    for (int64_t k = static_cast<int64_t>(group.lane) * width; k < a.count;
         k += static_cast<int64_t>(group.lanes) * width) {
      // Rows are whole packs where they are aligned.
      Packed pack;
#pragma unroll
      for (int i = 0; i < width; ++i) {
        pack.at[i] = taken(a, source, a.columns[k + i]);
      }
      if (bias != nullptr || a.adds) {
        const Packed other = *reinterpret_cast<const Packed*>(a.adds ? target + k : bias + k);
#pragma unroll
        for (int i = 0; i < width; ++i) {
          pack.at[i] = added(pack.at[i], other.at[i]);
        }
      }
      *reinterpret_cast<Packed*>(target + k) = pack;
    }
  }
}

__global__ void __launch_bounds__(kThreads, 1)
    invert_index(const int32_t* index, int32_t* inverse, const int64_t count) {
  for (int64_t o = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; o < count;
       o += static_cast<int64_t>(gridDim.x) * kThreads) {
    if (index[o] >= 0 && index[o] < count) {
      inverse[index[o]] = static_cast<int32_t>(o);
    }
  }
}

template <class T>
void run(const TakeArguments& a, cudaStream_t stream) {
  constexpr int width = kPack<T, true>;
  const bool aligned = a.count % width == 0 && a.target_stride % width == 0 && aligned_to_16(a.target) &&
                       (a.bias == nullptr || aligned_to_16(a.bias));
  const int lanes = lanes_for(aligned ? a.count / width : a.count);
  launch(aligned ? take_rows<T, true> : take_rows<T, false>, blocks_for(a.rows, lanes), stream, a, lanes);
}

}  // namespace

void take(const TakeArguments& arguments, cudaStream_t stream) {
  switch (arguments.element) {
    case Element::kFloat32:
      return run<float>(arguments, stream);
    case Element::kFloat64:
      return run<double>(arguments, stream);
    case Element::kBFloat16:
      return run<BFloat16>(arguments, stream);
    case Element::kFloat16:
      return run<Half>(arguments, stream);
  }
}

void invert(const int32_t* index, int32_t* inverse, int64_t count, cudaStream_t stream) {
  launch(invert_index, blocks_for(count, 1), stream, index, inverse, count);
}

}  // namespace stone::cuda
