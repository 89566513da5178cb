// butterfly and hyper_butterfly as operators: arguments checked, results made, and the rows handed to `Device`.
#pragma once

#include <tuple>

#include "operands.h"
#include "rows.h"
#include "stone/butterfly_arguments.h"

namespace stone::launch {

inline void check_butterfly(const char* name, const Tensor& x, const Tensor& weight) {
  check_rows(name, "x", x);
  check_same_dtype(name, "x and weight", x, weight);
  check_same_device(name, "x and weight", x, weight);
  const int64_t dim = x.size(x.dim() - 1);
  if (dim < 2 || (dim & (dim - 1)) != 0) {
    fail(std::string(name) + ": the last dimension of x must be a power of two, 2 or more, got " + show_shape(x) +
         "; pad it, for instance with torch.nn.functional.pad");
  }
  const auto sizes = weight.sizes();
  if (sizes.size() != 3 || sizes[1] != dim / 2 || sizes[2] != 2) {
    fail(std::string(name) + ": weight must be [stages, dim / 2, 2] = [stages, " + std::to_string(dim / 2) +
         ", 2] for x of shape " + show_shape(x) + ", got " + show_shape(weight) +
         "; its last dimension holds (a, b) of each block");
  }
}

inline ButterflyArguments butterfly_arguments(const Tensor& x, const Tensor& weight) {
  const int64_t dim = x.size(x.dim() - 1);
  ButterflyArguments arguments{};
  arguments.element = element(x);
  arguments.dim = dim;
  arguments.stages = weight.size(0);
  arguments.rows = product(batch_of(x));
  arguments.x = x.const_data_ptr();
  arguments.weight = weight.const_data_ptr();
  return arguments;
}

template <class Device>
Tensor butterfly(Tensor x, Tensor weight) {
  check_butterfly("butterfly", x, weight);
  x = dense(x);
  weight = dense(weight);
  const Tensor y = new_tensor(with_last(batch_of(x), x.size(x.dim() - 1)), x.scalar_type(), x);
  ButterflyArguments arguments = butterfly_arguments(x, weight);
  if (arguments.rows > 0) {
    arguments.y = y.mutable_data_ptr();
    Device::butterfly(Direction::kForward, arguments, x);
  }
  return y;
}

template <class Device>
std::tuple<Tensor, Tensor> butterfly_backward(Tensor grad, Tensor x, Tensor weight) {
  check_butterfly("butterfly", x, weight);
  check_gradient("butterfly_backward", "grad and x", grad, x, x.sizes());
  grad = dense(grad);
  x = dense(x);
  weight = dense(weight);
  const Tensor grad_x = new_tensor(with_last(batch_of(x), x.size(x.dim() - 1)), x.scalar_type(), x);
  const Tensor grad_weight = new_tensor({weight.size(0), weight.size(1), 2}, x.scalar_type(), x);
  ButterflyArguments arguments = butterfly_arguments(x, weight);
  arguments.grad = grad.const_data_ptr();
  arguments.y = grad_x.mutable_data_ptr();
  arguments.grad_weight = grad_weight.mutable_data_ptr();
  Device::butterfly(Direction::kBackward, arguments, x);
  return {grad_x, grad_weight};
}

}  // namespace stone::launch
