// What the translation units of the CUDA library offer each other. Kernels go to `stream` of the current device.
#pragma once

#include <cuda_runtime.h>

#include "stone/arguments.h"

namespace stone::cuda {

void expmap0(const RadialArguments& arguments, int64_t rows, cudaStream_t stream);
void expmap0_backward(const RadialArguments& arguments, int64_t rows, cudaStream_t stream);
void logmap0(const RadialArguments& arguments, int64_t rows, cudaStream_t stream);
void logmap0_backward(const RadialArguments& arguments, int64_t rows, cudaStream_t stream);
void mobius_add(const MobiusArguments& arguments, int64_t rows, cudaStream_t stream);
void mobius_add_backward(const MobiusArguments& arguments, int64_t rows, cudaStream_t stream);

// The kernels of a row formula, defined in the translation unit of its model.
template <class Formula>
struct RowKernels {
  static void forward(const RowArguments& arguments, int64_t rows, cudaStream_t stream);
  static void backward(const RowArguments& arguments, int64_t rows, cudaStream_t stream);
};

}  // namespace stone::cuda
