// poincare_hyperplanes as an operator: the elementwise end of a multinomial logistic regression in the ball.
#pragma once

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "operands.h"
#include "rows.h"

namespace stone::launch {

inline void check_hyperplanes(const Tensor& product, const Tensor& x, const Tensor& offset, const Tensor& scale,
                              const Tensor& c, double min_alpha) {
  const char* name = "poincare_hyperplanes";
  check_rows(name, "product", product);
  check_rows(name, "x", x);
  check_same_dtype(name, "product and x", product, x);
  check_same_dtype(name, "product and offset", product, offset);
  check_same_dtype(name, "product and scale", product, scale);
  check_same_device(name, "product and x", product, x);
  check_same_device(name, "product and offset", product, offset);
  check_same_device(name, "product and scale", product, scale);
  const int64_t planes = product.size(product.dim() - 1);
  const bool fits = batch_of(product) == batch_of(x) && offset.dim() == 1 && offset.size(0) == planes &&
                    scale.dim() == 1 && scale.size(0) == planes;
  if (!fits) {
    fail(std::string(name) + ": expected product [*batch, planes], x [*batch, dim], offset [planes] and scale "
         "[planes], got " + show_shape(product) + ", " + show_shape(x) + ", " + show_shape(offset) + " and " +
         show_shape(scale) + "; all points share the hyperplanes");
  }
  check_curvature(name, c, {}, x);
  check_options(name, {{"min_alpha", min_alpha}});
}

inline HyperplaneArguments hyperplane_arguments(const Tensor& product, const Tensor& x, const Tensor& offset,
                                                const Tensor& scale, const Tensor& c, double min_alpha) {
  return {element(x),
          launch::product(batch_of(x)),
          product.size(product.dim() - 1),
          x.size(x.dim() - 1),
          product.const_data_ptr(),
          x.const_data_ptr(),
          offset.const_data_ptr(),
          scale.const_data_ptr(),
          nullptr,
          nullptr,
          nullptr,
          nullptr,
          nullptr,
          curvature(c, x),
          min_alpha};
}

template <class Device>
Tensor poincare_hyperplanes(Tensor product, Tensor x, Tensor offset, Tensor scale, Tensor c, double min_alpha) {
  check_hyperplanes(product, x, offset, scale, c, min_alpha);
  product = dense(product);
  x = dense(x);
  offset = dense(offset);
  scale = dense(scale);
  const Tensor result = new_tensor(with_last(batch_of(x), offset.size(0)), x.scalar_type(), x);
  HyperplaneArguments arguments = hyperplane_arguments(product, x, offset, scale, c, min_alpha);
  if (arguments.rows * arguments.planes > 0) {
    arguments.result = result.mutable_data_ptr();
    Device::hyperplanes(Direction::kForward, arguments, x);
  }
  return result;
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> poincare_hyperplanes_backward(Tensor grad, Tensor product, Tensor x,
                                                                                 Tensor offset, Tensor scale, Tensor c,
                                                                                 double min_alpha) {
  check_hyperplanes(product, x, offset, scale, c, min_alpha);
  check_gradient("poincare_hyperplanes_backward", "grad and product", grad, product, product.sizes());
  grad = dense(grad);
  product = dense(product);
  x = dense(x);
  offset = dense(offset);
  scale = dense(scale);
  const Sizes batch = batch_of(x);
  const int64_t planes = offset.size(0);
  const Tensor grad_product = new_tensor(with_last(batch, planes), x.scalar_type(), x);
  const Tensor grad_x = new_tensor(with_last(batch, x.size(x.dim() - 1)), x.scalar_type(), x);
  const Tensor grad_c = new_tensor(with_last(batch, 1), compute_dtype(x), x);
  HyperplaneArguments arguments = hyperplane_arguments(product, x, offset, scale, c, min_alpha);
  const int64_t blocks = (arguments.rows + kHyperplaneBlock - 1) / kHyperplaneBlock;
  const Tensor partial = new_tensor({blocks, 2, planes}, compute_dtype(x), x);
  if (arguments.rows > 0) {
    arguments.grad = grad.const_data_ptr();
    arguments.result = grad_product.mutable_data_ptr();
    arguments.grad_x = grad_x.mutable_data_ptr();
    arguments.grad_planes = partial.mutable_data_ptr();
    arguments.grad_c = grad_c.mutable_data_ptr();
    Device::hyperplanes(Direction::kBackward, arguments, x);
  }
  const int64_t over_blocks = 0;
  const Tensor sums = torch::stable::sum(partial, torch::headeronly::IntHeaderOnlyArrayRef(&over_blocks, 1));
  const Tensor of_offset = torch::stable::contiguous(torch::stable::select(sums, 0, 0));
  const Tensor of_scale = torch::stable::clone(torch::stable::select(sums, 0, 1));
  return {grad_product, grad_x, torch::stable::clone(of_offset), of_scale, grad_c};
}

template <class Device>
void register_hyperplanes(torch::stable::detail::StableLibrary& m) {
  m.impl("poincare_hyperplanes", TORCH_BOX((&poincare_hyperplanes<Device>)));
  m.impl("poincare_hyperplanes_forward", TORCH_BOX((&poincare_hyperplanes<Device>)));
  m.impl("poincare_hyperplanes_backward", TORCH_BOX((&poincare_hyperplanes_backward<Device>)));
}

}  // namespace stone::launch
