// What follows the product in hyperbolic linear layers, as operators: arguments checked, results made.
#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <tuple>

#include "operands.h"
#include "rows.h"
#include "stone/linear_epilogue_arguments.h"

namespace stone::launch {

struct PoincareLinearOptions {
  double min_norm;
  double atanh_limit;
  double tanh_limit;
  double matvec_limit;
  double min_denominator;
  double denominator_offset;
  double project_limit;
};

// min(tanh(w), limit) = tanh(min(w, artanh(limit))).
inline PoincareLinearGuards guards_of(const PoincareLinearOptions& o, bool adds) {
  const double radius = o.matvec_limit < 1.0 ? std::atanh(o.matvec_limit) : 1e308;
  return {{0.0, o.min_norm, 0.0, 0.0, o.atanh_limit, false},
          {0.0, o.min_norm, 0.0, 0.0, o.tanh_limit < radius ? o.tanh_limit : radius, false},
          {o.min_denominator, o.denominator_offset, 1e308},
          o.project_limit,
          adds};
}

inline Sizes check_poincare_linear(const Tensor& x, const Tensor& product,
                                                  const std::optional<Tensor>& bias, const Tensor& c,
                                                  const PoincareLinearOptions& o) {
  const char* name = "poincare_linear_epilogue";
  check_rows(name, "x", x);
  check_same_dtype(name, "x and product", x, product);
  check_same_device(name, "x and product", x, product);
  const Sizes batch = batch_of(x);
  bool fits = product.dim() == x.dim();
  for (size_t d = 0; fits && d < batch.size(); ++d) {
    fits = product.size(static_cast<int64_t>(d)) == batch[d];
  }
  if (bias.has_value()) {
    check_same_dtype(name, "x and bias", x, *bias);
    check_same_device(name, "x and bias", x, *bias);
    fits = fits && bias->dim() == 1 && bias->size(0) == product.size(product.dim() - 1);
  }
  if (!fits) {
    fail(std::string(name) + ": expected x [*batch, in], product [*batch, out] and bias [out], got " + show_shape(x) +
         ", " + show_shape(product) + " and " + (bias.has_value() ? show_shape(*bias) : "none") +
         "; product is torch.nn.functional.linear(x, weight)");
  }
  check_curvature(name, c, batch, x);
  check_options(name, {{"min_norm", o.min_norm},
                       {"atanh_limit", o.atanh_limit},
                       {"tanh_limit", o.tanh_limit},
                       {"matvec_limit", o.matvec_limit},
                       {"min_denominator", o.min_denominator},
                       {"denominator_offset", o.denominator_offset},
                       {"project_limit", o.project_limit}});
  return batch;
}

inline PoincareLinearArguments poincare_linear_arguments(const Tensor& x, const Tensor& product,
                                                         const std::optional<Tensor>& bias, const Tensor& c,
                                                         const Sizes& batch,
                                                         const PoincareLinearOptions& options) {
  PoincareLinearArguments arguments{};
  arguments.element = element(x);
  arguments.in = x.size(x.dim() - 1);
  arguments.out = product.size(product.dim() - 1);
  arguments.rows = launch::product(batch);
  arguments.x = x.const_data_ptr();
  arguments.product = product.const_data_ptr();
  arguments.bias = bias.has_value() ? bias->const_data_ptr() : nullptr;
  arguments.c = curvature(c, x);
  arguments.guards = guards_of(options, bias.has_value());
  arguments.map = map_rows("poincare_linear_epilogue", batch, {&c});
  return arguments;
}

template <class Device>
Tensor poincare_linear_epilogue(Tensor x, Tensor product, std::optional<Tensor> bias, Tensor c, double min_norm,
                                double atanh_limit, double tanh_limit, double matvec_limit, double min_denominator,
                                double denominator_offset, double project_limit) {
  const PoincareLinearOptions options{min_norm,        atanh_limit,        tanh_limit,   matvec_limit,
                                      min_denominator, denominator_offset, project_limit};
  const Sizes batch = check_poincare_linear(x, product, bias, c, options);
  x = dense(x);
  product = dense(product);
  c = dense(c);
  if (bias.has_value()) {
    bias = dense(*bias);
  }
  PoincareLinearArguments arguments = poincare_linear_arguments(x, product, bias, c, batch, options);
  const Tensor y = new_tensor(with_last(batch, arguments.out), x.scalar_type(), x);
  if (arguments.rows > 0 && arguments.out > 0) {
    arguments.y = y.mutable_data_ptr();
    Device::poincare_linear(Direction::kForward, arguments, x);
  }
  return y;
}

// Gradients of x (through its norm alone), of the product, of the bias ([0] where there is none) and, for each row,
// of the curvature.
template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> poincare_linear_epilogue_backward(
    Tensor grad, Tensor x, Tensor product, std::optional<Tensor> bias, Tensor c, double min_norm, double atanh_limit,
    double tanh_limit, double matvec_limit, double min_denominator, double denominator_offset, double project_limit) {
  const PoincareLinearOptions options{min_norm,        atanh_limit,        tanh_limit,   matvec_limit,
                                      min_denominator, denominator_offset, project_limit};
  const Sizes batch = check_poincare_linear(x, product, bias, c, options);
  check_gradient("poincare_linear_epilogue_backward", "grad and x", grad, x, product.sizes());
  grad = dense(grad);
  x = dense(x);
  product = dense(product);
  c = dense(c);
  if (bias.has_value()) {
    bias = dense(*bias);
  }
  PoincareLinearArguments arguments = poincare_linear_arguments(x, product, bias, c, batch, options);
  const Tensor grad_x = new_tensor(with_last(batch, arguments.in), x.scalar_type(), x);
  const Tensor grad_product = new_tensor(with_last(batch, arguments.out), x.scalar_type(), x);
  const Tensor grad_bias = new_tensor({bias.has_value() ? arguments.out : 0}, x.scalar_type(), x);
  const Tensor grad_c = new_tensor(with_last(batch, 1), compute_dtype(x), x);
  arguments.grad = grad.const_data_ptr();
  arguments.y = grad_product.mutable_data_ptr();
  arguments.grad_x = grad_x.mutable_data_ptr();
  arguments.grad_bias = grad_bias.mutable_data_ptr();
  arguments.grad_c = grad_c.mutable_data_ptr();
  Device::poincare_linear(Direction::kBackward, arguments, x);
  return {grad_x, grad_product, grad_bias, grad_c};
}

template <class Device>
Tensor add_time(Tensor space, Tensor c) {
  check_rows("add_time", "space", space);
  const Sizes batch = batch_of(space);
  check_curvature("add_time", c, batch, space);
  space = dense(space);
  c = dense(c);
  const int64_t dim = space.size(space.dim() - 1);
  const Tensor y = new_tensor(with_last(batch, dim + 1), space.scalar_type(), space);
  const int64_t rows = product(batch);
  if (rows > 0) {
    const AddTimeArguments arguments{element(space),       dim,     space.const_data_ptr(), nullptr,
                                     y.mutable_data_ptr(), nullptr, curvature(c, space),
                                     map_rows("add_time", batch, {&c})};
    Device::add_time(Direction::kForward, arguments, rows, space);
  }
  return y;
}

template <class Device>
std::tuple<Tensor, Tensor> add_time_backward(Tensor grad, Tensor space, Tensor c) {
  check_rows("add_time", "space", space);
  const Sizes batch = batch_of(space);
  check_curvature("add_time", c, batch, space);
  const int64_t dim = space.size(space.dim() - 1);
  check_gradient("add_time_backward", "grad and space", grad, space, with_last(batch, dim + 1));
  grad = dense(grad);
  space = dense(space);
  c = dense(c);
  const Tensor grad_space = new_tensor(with_last(batch, dim), space.scalar_type(), space);
  const Tensor grad_c = new_tensor(with_last(batch, 1), compute_dtype(space), space);
  const int64_t rows = product(batch);
  if (rows > 0) {
    const AddTimeArguments arguments{element(space),
                                     dim,
                                     space.const_data_ptr(),
                                     grad.const_data_ptr(),
                                     grad_space.mutable_data_ptr(),
                                     grad_c.mutable_data_ptr(),
                                     curvature(c, space),
                                     map_rows("add_time", batch, {&c})};
    Device::add_time(Direction::kBackward, arguments, rows, space);
  }
  return {grad_space, grad_c};
}

}  // namespace stone::launch
