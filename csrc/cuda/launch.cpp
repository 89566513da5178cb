// The operators on CUDA: kernels on the current stream of the operands' device, without waiting for the host.
#include <torch/csrc/stable/accelerator.h>

#include <optional>

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

// The columns of an operator that puts rows in another order. What `index` holds is not looked at, which would wait for
// the device: a kernel reads no column outside the row.
class CudaOrder {
 public:
  CudaOrder(const launch::Tensor& index, int64_t rank, const launch::Tensor& x)
      : index_(index),
        x_(x),
        count_(index.size(0)),
        rank_(rank),
        pack_(16 / static_cast<int64_t>(launch::element_size(x.scalar_type()))) {}

  static constexpr bool kInResult = false;

  // Products and their parts begin at multiples of 16 bytes, which their kernels are quicker with.
  int64_t second() const { return padded(rank_); }
  int64_t stride() const { return padded(rank_) + padded(count_ - rank_); }

  void join(const launch::Tensor& products, const launch::Tensor& result, const void* bias, int64_t rows) const {
    TakeArguments arguments =
        arguments_of(products.const_data_ptr(), stride(), result.mutable_data_ptr(), index_, 0, count_, rows);
    arguments.bias = bias;
    arguments.split = rank_;
    arguments.shift = second() - rank_;
    run(arguments);
  }

  void take_others(const void* rows_of_result, void* target, int64_t rows) {
    run(arguments_of(rows_of_result, count_, target, inverse(), rank_, count_ - rank_, rows));
  }
  void add_pivots(const void* rows_of_result, void* target, int64_t rows) {
    TakeArguments arguments = arguments_of(rows_of_result, count_, target, inverse(), 0, rank_, rows);
    arguments.adds = true;
    run(arguments);
  }

 private:
  int64_t padded(int64_t count) const { return (count + pack_ - 1) / pack_ * pack_; }

  const launch::Tensor& inverse() {
    if (!inverse_.has_value()) {
      inverse_ = launch::new_tensor({count_}, launch::ScalarType::Int, index_);
      torch::stable::zero_(*inverse_);
      on_stream(x_, [&](cudaStream_t stream) {
        cuda::invert(static_cast<const int32_t*>(index_.const_data_ptr()),
                     static_cast<int32_t*>(inverse_->mutable_data_ptr()), count_, stream);
      });
    }
    return *inverse_;
  }

  TakeArguments arguments_of(const void* source, int64_t source_stride, void* target, const launch::Tensor& columns,
                             int64_t from, int64_t count, int64_t rows) const {
    TakeArguments arguments{};
    arguments.element = launch::element(x_);
    arguments.rows = rows;
    arguments.count = count;
    arguments.source_stride = source_stride;
    arguments.target_stride = count;
    arguments.source = source;
    arguments.target = target;
    arguments.columns = static_cast<const int32_t*>(columns.const_data_ptr()) + from;
    arguments.split = count_;
    arguments.limit = count_;
    return arguments;
  }

  void run(const TakeArguments& arguments) const {
    on_stream(x_, [&](cudaStream_t stream) { cuda::take(arguments, stream); });
  }

  launch::Tensor index_;
  launch::Tensor x_;
  int64_t count_;
  int64_t rank_;
  int64_t pack_;
  std::optional<launch::Tensor> inverse_;
};

struct Cuda {
  using Order = CudaOrder;

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
  launch::register_pifa<Cuda>(m);
  launch::register_cdist<Cuda>(m);
  launch::register_hyperplanes<Cuda>(m);
}

}  // namespace stone
