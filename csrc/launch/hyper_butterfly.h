// hyper_butterfly as an operator: butterfly.h with the maps of the ball around it.
#pragma once

#include "butterfly.h"

namespace stone::launch {

struct HyperButterflyGuards {
  RadialGuards log;
  RadialGuards exp;
};

inline void check_hyper_butterfly(const Tensor& x, const Tensor& weight, const Tensor& c,
                                  const HyperButterflyGuards& guards) {
  const char* name = "hyper_butterfly";
  check_butterfly(name, x, weight);
  check_curvature(name, c, batch_of(x), x);
  check_options(name, {{"log_min_norm", guards.log.min_norm},
                       {"log_norm_offset", guards.log.norm_offset},
                       {"log_min_scaled", guards.log.min_scaled},
                       {"atanh_limit", guards.log.limit},
                       {"exp_min_norm", guards.exp.min_norm},
                       {"exp_norm_offset", guards.exp.norm_offset},
                       {"exp_min_scaled", guards.exp.min_scaled},
                       {"tanh_limit", guards.exp.limit}});
}

inline ButterflyArguments hyper_butterfly_arguments(const Tensor& x, const Tensor& weight, const Tensor& c,
                                                    const HyperButterflyGuards& guards) {
  ButterflyArguments arguments = butterfly_arguments(x, weight);
  arguments.hyperbolic = true;
  arguments.c = curvature(c, x);
  arguments.log = guards.log;
  arguments.exp = guards.exp;
  arguments.map = map_rows("hyper_butterfly", batch_of(x), {&c});
  return arguments;
}

template <class Device>
Tensor hyper_butterfly(Tensor x, Tensor weight, Tensor c, double log_min_norm, double log_norm_offset,
                       double log_min_scaled, double atanh_limit, double exp_min_norm, double exp_norm_offset,
                       double exp_min_scaled, double tanh_limit) {
  const HyperButterflyGuards guards{{0.0, log_min_norm, log_norm_offset, log_min_scaled, atanh_limit, false},
                                    {0.0, exp_min_norm, exp_norm_offset, exp_min_scaled, tanh_limit, false}};
  check_hyper_butterfly(x, weight, c, guards);
  x = dense(x);
  weight = dense(weight);
  c = dense(c);
  const Tensor y = new_tensor(with_last(batch_of(x), x.size(x.dim() - 1)), x.scalar_type(), x);
  ButterflyArguments arguments = hyper_butterfly_arguments(x, weight, c, guards);
  if (arguments.rows > 0) {
    arguments.y = y.mutable_data_ptr();
    Device::butterfly(Direction::kForward, arguments, x);
  }
  return y;
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> hyper_butterfly_backward(Tensor grad, Tensor x, Tensor weight, Tensor c,
                                                            double log_min_norm, double log_norm_offset,
                                                            double log_min_scaled, double atanh_limit,
                                                            double exp_min_norm, double exp_norm_offset,
                                                            double exp_min_scaled, double tanh_limit) {
  const HyperButterflyGuards guards{{0.0, log_min_norm, log_norm_offset, log_min_scaled, atanh_limit, false},
                                    {0.0, exp_min_norm, exp_norm_offset, exp_min_scaled, tanh_limit, false}};
  check_hyper_butterfly(x, weight, c, guards);
  check_gradient("hyper_butterfly_backward", "grad and x", grad, x, x.sizes());
  grad = dense(grad);
  x = dense(x);
  weight = dense(weight);
  c = dense(c);
  const Sizes batch = batch_of(x);
  const Tensor grad_x = new_tensor(with_last(batch, x.size(x.dim() - 1)), x.scalar_type(), x);
  const Tensor grad_weight = new_tensor({weight.size(0), weight.size(1), 2}, x.scalar_type(), x);
  const Tensor grad_c = new_tensor(with_last(batch, 1), compute_dtype(x), x);
  ButterflyArguments arguments = hyper_butterfly_arguments(x, weight, c, guards);
  arguments.grad = grad.const_data_ptr();
  arguments.y = grad_x.mutable_data_ptr();
  arguments.grad_weight = grad_weight.mutable_data_ptr();
  arguments.grad_c = grad_c.mutable_data_ptr();
  Device::butterfly(Direction::kBackward, arguments, x);
  return {grad_x, grad_weight, grad_c};
}

}  // namespace stone::launch
