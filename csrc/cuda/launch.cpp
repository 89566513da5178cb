// The operators on CUDA: kernels on the current stream of the operands' device, without waiting for the host.
#include <torch/csrc/stable/accelerator.h>

#include "cdist.h"
#include "hyperplanes.h"
#include "kernels.h"
#include "register.h"

namespace stone {

namespace {

// Calls `run` with the current stream of the device of `x`.
template <class Run>
void on_stream(const launch::Tensor& x, Run run) {
  const int32_t device = x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  // The CUDA runtime is linked statically, so that its current device is not the one torch has just set.
  cudaError_t error = cudaSetDevice(device);
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  if (error == cudaSuccess) {
    run(static_cast<cudaStream_t>(stream));
    error = cudaGetLastError();
  }
  if (error != cudaSuccess) {
    launch::fail(std::string("a kernel did not start on cuda:") + std::to_string(device) + ": " +
                 cudaGetErrorString(error) + "; `stonefx doctor` shows the architectures it was built for");
  }
}

template <class Kernel, class Arguments>
void on_device(Kernel kernel, const Arguments& arguments, int64_t rows, const launch::Tensor& x) {
  on_stream(x, [&](cudaStream_t stream) { kernel(arguments, rows, stream); });
}

// The same for kernels that need scratch memory, which torch may hand to others once the kernels have run.
template <class Kernel, class Arguments>
void with_scratch(int64_t (*bytes_of)(const Arguments&, bool), Kernel kernel, const Arguments& arguments,
                  launch::Direction direction, const launch::Tensor& x) {
  const bool backward = direction == launch::Direction::kBackward;
  const int64_t doubles = (bytes_of(arguments, backward) + 7) / 8;
  const launch::Tensor scratch = launch::new_tensor({doubles}, launch::ScalarType::Double, x);
  void* memory = doubles > 0 ? scratch.mutable_data_ptr() : nullptr;
  on_stream(x, [&](cudaStream_t stream) { kernel(arguments, backward, memory, stream); });
}

struct RowKernelPair {
  void (*forward)(const RowArguments&, int64_t, cudaStream_t);
  void (*backward)(const RowArguments&, int64_t, cudaStream_t);
};

template <class... Formulas>
RowKernelPair row_kernels(int index, portable::FormulaList<Formulas...>) {
  static constexpr RowKernelPair pairs[] = {
      {cuda::RowKernels<Formulas>::forward, cuda::RowKernels<Formulas>::backward}...,
      {cuda::point_of_distances, cuda::point_of_distances_backward}};
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

  static void cdist(launch::Direction direction, const CdistArguments& arguments, const launch::Tensor& x) {
    with_scratch(cuda::cdist_scratch_bytes, cuda::cdist, arguments, direction, x);
  }

  static void hyperplanes(launch::Direction direction, const HyperplaneArguments& arguments,
                          const launch::Tensor& x) {
    with_scratch(cuda::hyperplane_scratch_bytes, cuda::hyperplanes, arguments, direction, x);
  }

  static void butterfly(launch::Direction direction, const ButterflyArguments& arguments, const launch::Tensor& x) {
    with_scratch(cuda::butterfly_scratch_bytes, cuda::butterfly, arguments, direction, x);
  }

  static void poincare_linear(launch::Direction direction, const PoincareLinearArguments& arguments,
                              const launch::Tensor& x) {
    with_scratch(cuda::poincare_linear_scratch_bytes, cuda::poincare_linear, arguments, direction, x);
  }

  static void add_time(launch::Direction direction, const AddTimeArguments& arguments, int64_t rows,
                       const launch::Tensor& x) {
    const bool backward = direction == launch::Direction::kBackward;
    on_stream(x, [&](cudaStream_t stream) { cuda::add_time(arguments, backward, rows, stream); });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stone, CUDA, m) {
  launch::register_operators<Cuda>(m);
  launch::register_linear_layers<Cuda>(m);
  launch::register_cdist<Cuda>(m);
  launch::register_hyperplanes<Cuda>(m);
}

}  // namespace stone
