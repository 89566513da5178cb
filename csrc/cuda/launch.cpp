// The operators on CUDA: kernels on the current stream of the operands' device, without waiting for the host.
#include <torch/csrc/stable/accelerator.h>

#include "kernels.h"
#include "register.h"

namespace stone {

namespace {

template <class Kernel, class Arguments>
void on_device(Kernel kernel, const Arguments& arguments, int64_t rows, const launch::Tensor& x) {
  const int32_t device = x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  // The CUDA runtime is linked statically, so that its current device is not the one torch has just set.
  cudaError_t error = cudaSetDevice(device);
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  if (error == cudaSuccess) {
    kernel(arguments, rows, static_cast<cudaStream_t>(stream));
    error = cudaGetLastError();
  }
  if (error != cudaSuccess) {
    launch::fail(std::string("a kernel did not start on cuda:") + std::to_string(device) + ": " +
                 cudaGetErrorString(error) + "; `stonefx doctor` shows the architectures it was built for");
  }
}

struct RowKernelPair {
  void (*forward)(const RowArguments&, int64_t, cudaStream_t);
  void (*backward)(const RowArguments&, int64_t, cudaStream_t);
};

template <class... Formulas>
RowKernelPair row_kernels(int index, portable::FormulaList<Formulas...>) {
  static constexpr RowKernelPair pairs[] = {
      {cuda::RowKernels<Formulas>::forward, cuda::RowKernels<Formulas>::backward}...};
  return pairs[index];
}

struct Cuda {
  static void radial(launch::RadialMap which, launch::Direction direction, const RadialArguments& arguments,
                     int64_t rows, const launch::Tensor& x) {
    const bool forward = direction == launch::Direction::kForward;
    if (which == launch::RadialMap::kExpmap0) {
      on_device(forward ? cuda::expmap0 : cuda::expmap0_backward, arguments, rows, x);
    } else {
      on_device(forward ? cuda::logmap0 : cuda::logmap0_backward, arguments, rows, x);
    }
  }

  static void mobius(launch::Direction direction, const MobiusArguments& arguments, int64_t rows,
                     const launch::Tensor& x) {
    on_device(direction == launch::Direction::kForward ? cuda::mobius_add : cuda::mobius_add_backward, arguments,
              rows, x);
  }

  static void rows(int index, launch::Direction direction, const RowArguments& arguments, int64_t rows,
                   const launch::Tensor& x) {
    const RowKernelPair pair = row_kernels(index, portable::RowFormulas{});
    on_device(direction == launch::Direction::kForward ? pair.forward : pair.backward, arguments, rows, x);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stone, CUDA, m) { launch::register_operators<Cuda>(m); }

}  // namespace stone
