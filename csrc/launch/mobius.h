// mobius_add as an operator: arguments checked, results made, and the rows handed to `Device`.
#pragma once

#include <tuple>

#include "operands.h"
#include "rows.h"

namespace stone::launch {

inline Sizes check_mobius(const Tensor& x, const Tensor& y, const Tensor& c, const MobiusGuards& guards) {
  const char* name = "mobius_add";
  check_rows(name, "x", x);
  check_rows(name, "y", y);
  check_same_dtype(name, "x and y", x, y);
  check_same_device(name, "x and y", x, y);
  Sizes batch = broadcast_batch(name, x, y);
  check_curvature(name, c, batch, x);
  check_options(name, {{"min_denominator", guards.min_denominator},
                       {"denominator_offset", guards.denominator_offset},
                       {"max_radius", guards.max_radius}});
  return batch;
}

template <class Device>
Tensor mobius_add(Tensor x, Tensor y, Tensor c, double min_denominator, double denominator_offset, double max_radius) {
  const MobiusGuards guards{min_denominator, denominator_offset, max_radius};
  const Sizes batch = check_mobius(x, y, c, guards);
  x = dense(x);
  y = dense(y);
  c = dense(c);
  const int64_t dim = x.size(x.dim() - 1);
  const Tensor z = new_tensor(with_last(batch, dim), x.scalar_type(), x);
  const int64_t rows = product(batch);
  if (rows > 0 && dim > 0) {
    const MobiusArguments arguments{element(x),
                                    dim,
                                    x.const_data_ptr(),
                                    y.const_data_ptr(),
                                    nullptr,
                                    z.mutable_data_ptr(),
                                    nullptr,
                                    nullptr,
                                    curvature(c, x),
                                    guards,
                                    map_rows("mobius_add", batch, {&x, &y, &c})};
    Device::mobius(Direction::kForward, arguments, rows, x);
  }
  return z;
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> mobius_add_backward(Tensor grad, Tensor x, Tensor y, Tensor c,
                                                       double min_denominator, double denominator_offset,
                                                       double max_radius) {
  const MobiusGuards guards{min_denominator, denominator_offset, max_radius};
  const Sizes batch = check_mobius(x, y, c, guards);
  const int64_t dim = x.size(x.dim() - 1);
  const Sizes full = with_last(batch, dim);
  check_gradient("mobius_add_backward", "grad and x", grad, x, full);
  grad = dense(grad);
  x = dense(x);
  y = dense(y);
  c = dense(c);
  const Tensor grad_x = new_tensor(full, x.scalar_type(), x);
  const Tensor grad_y = new_tensor(full, x.scalar_type(), x);
  const Tensor grad_c = new_tensor(with_last(batch, 1), compute_dtype(x), x);
  const int64_t rows = product(batch);
  if (rows > 0) {
    const MobiusArguments arguments{element(x),
                                    dim,
                                    x.const_data_ptr(),
                                    y.const_data_ptr(),
                                    grad.const_data_ptr(),
                                    grad_x.mutable_data_ptr(),
                                    grad_y.mutable_data_ptr(),
                                    grad_c.mutable_data_ptr(),
                                    curvature(c, x),
                                    guards,
                                    map_rows("mobius_add", batch, {&x, &y, &c})};
    Device::mobius(Direction::kBackward, arguments, rows, x);
  }
  return {grad_x, grad_y, grad_c};
}

}  // namespace stone::launch
