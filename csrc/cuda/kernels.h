// What the translation units of the CUDA library offer each other. Kernels go to `stream` of the current device.
#pragma once

#include <cuda_runtime.h>

#include "stone/arguments.h"
#include "stone/butterfly_arguments.h"
#include "stone/linear_epilogue_arguments.h"
#include "stone/take_arguments.h"

namespace stone::cuda {

void expmap0(const RadialArguments& arguments, int64_t rows, cudaStream_t stream);
void expmap0_backward(const RadialArguments& arguments, int64_t rows, cudaStream_t stream);
void logmap0(const RadialArguments& arguments, int64_t rows, cudaStream_t stream);
void logmap0_backward(const RadialArguments& arguments, int64_t rows, cudaStream_t stream);
void mobius_add(const MobiusArguments& arguments, int64_t rows, cudaStream_t stream);
void mobius_add_backward(const MobiusArguments& arguments, int64_t rows, cudaStream_t stream);
void point_of_distances(const RowArguments& arguments, int64_t rows, cudaStream_t stream);
void point_of_distances_backward(const RowArguments& arguments, int64_t rows, cudaStream_t stream);

void take(const TakeArguments& arguments, cudaStream_t stream);
// Fills `inverse`, which holds zeros, so that inverse[index[o]] = o; entries of `index` outside [0, count) do nothing.
void invert(const int32_t* index, int32_t* inverse, int64_t count, cudaStream_t stream);

// Operators over more than rows: `scratch` is memory of the device, of as many bytes as `*_scratch_bytes` says.
int64_t cdist_scratch_bytes(const CdistArguments& arguments, bool backward);
void cdist(const CdistArguments& arguments, bool backward, void* scratch, cudaStream_t stream);
int64_t hyperplane_scratch_bytes(const HyperplaneArguments& arguments, bool backward);
void hyperplanes(const HyperplaneArguments& arguments, bool backward, void* scratch, cudaStream_t stream);
int64_t poincare_linear_scratch_bytes(const PoincareLinearArguments& arguments, bool backward);
void poincare_linear(const PoincareLinearArguments& given, bool backward, void* scratch, cudaStream_t stream);
int64_t butterfly_scratch_bytes(const ButterflyArguments& arguments, bool backward);
void butterfly(const ButterflyArguments& arguments, bool backward, void* scratch, cudaStream_t stream);
void add_time(const AddTimeArguments& arguments, bool backward, int64_t rows, cudaStream_t stream);

// The kernels of a row formula, defined in the translation unit of its model.
template <class Formula>
struct RowKernels {
  static void forward(const RowArguments& arguments, int64_t rows, cudaStream_t stream);
  static void backward(const RowArguments& arguments, int64_t rows, cudaStream_t stream);
};

}  // namespace stone::cuda
