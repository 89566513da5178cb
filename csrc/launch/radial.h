// expmap0 and logmap0 as operators: arguments checked, results made, and the rows handed to `Device`.
// `Device` says where kernels run: `Device::radial(forward or backward, of which map, arguments, rows)`.
#pragma once

#include <tuple>

#include "operands.h"
#include "rows.h"

namespace stone::launch {

struct RadialNames {
  const char* operation;
  const char* backward;
  const char* operand;
  const char* limit;
  const char* grad_labels;
};

inline constexpr RadialNames kExpmap0{"expmap0", "expmap0_backward", "x", "tanh_limit", "grad and x"};
inline constexpr RadialNames kLogmap0{"logmap0", "logmap0_backward", "y", "atanh_limit", "grad and y"};

inline void check_radial(const RadialNames& names, const Tensor& x, const Tensor& c,
                         const Sizes& batch, const RadialGuards& guards) {
  check_curvature(names.operation, c, batch, x);
  check_options(names.operation, {{"square_offset", guards.square_offset},
                                  {"min_norm", guards.min_norm},
                                  {"norm_offset", guards.norm_offset},
                                  {"min_scaled", guards.min_scaled},
                                  {"argument_square_offset", guards.argument.square_offset},
                                  {"argument_min_norm", guards.argument.min_norm},
                                  {"argument_norm_offset", guards.argument.norm_offset},
                                  {"argument_min_scaled", guards.argument.min_scaled},
                                  {names.limit, guards.limit}});
}

template <class Device, const RadialNames& names, RadialMap which>
Tensor radial(Tensor x, Tensor c, double square_offset, double min_norm, double norm_offset, double min_scaled,
              double limit, bool nan_at_zero, bool separate, double argument_square_offset, double argument_min_norm,
              double argument_norm_offset, double argument_min_scaled) {
  const RadialGuards guards{
      square_offset, min_norm, norm_offset, min_scaled, limit, nan_at_zero, separate,
      {argument_square_offset, argument_min_norm, argument_norm_offset, argument_min_scaled}};
  check_rows(names.operation, names.operand, x);
  const Sizes batch = batch_of(x);
  check_radial(names, x, c, batch, guards);
  x = dense(x);
  c = dense(c);
  const int64_t dim = x.size(x.dim() - 1);
  const Tensor y = new_tensor(with_last(batch, dim), x.scalar_type(), x);
  const int64_t rows = product(batch);
  if (rows > 0 && dim > 0) {
    const RadialArguments arguments{element(x),         dim,     x.const_data_ptr(), nullptr,
                                    y.mutable_data_ptr(), nullptr, curvature(c, x),    guards,
                                    map_rows(names.operation, batch, {&c})};
    Device::radial(which, Direction::kForward, arguments, rows, x);
  }
  return y;
}

template <class Device, const RadialNames& names, RadialMap which>
std::tuple<Tensor, Tensor> radial_backward(Tensor grad, Tensor x, Tensor c, double square_offset, double min_norm,
                                           double norm_offset, double min_scaled, double limit, bool nan_at_zero,
                                           bool separate, double argument_square_offset, double argument_min_norm,
                                           double argument_norm_offset, double argument_min_scaled) {
  const RadialGuards guards{
      square_offset, min_norm, norm_offset, min_scaled, limit, nan_at_zero, separate,
      {argument_square_offset, argument_min_norm, argument_norm_offset, argument_min_scaled}};
  check_rows(names.operation, names.operand, x);
  const Sizes batch = batch_of(x);
  check_radial(names, x, c, batch, guards);
  check_gradient(names.backward, names.grad_labels, grad, x, x.sizes());
  grad = dense(grad);
  x = dense(x);
  c = dense(c);
  const int64_t dim = x.size(x.dim() - 1);
  const Tensor grad_x = new_tensor(with_last(batch, dim), x.scalar_type(), x);
  const Tensor grad_c = new_tensor(with_last(batch, 1), compute_dtype(x), x);
  const int64_t rows = product(batch);
  if (rows > 0) {
    const RadialArguments arguments{element(x),
                                    dim,
                                    x.const_data_ptr(),
                                    grad.const_data_ptr(),
                                    grad_x.mutable_data_ptr(),
                                    grad_c.mutable_data_ptr(),
                                    curvature(c, x),
                                    guards,
                                    map_rows(names.operation, batch, {&c})};
    Device::radial(which, Direction::kBackward, arguments, rows, x);
  }
  return {grad_x, grad_c};
}

}  // namespace stone::launch
