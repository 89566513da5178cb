// Distance matrices as operators: arguments checked, results made, and the pairs handed to `Device`.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "operands.h"
#include "rows.h"

namespace stone::launch {

inline void check_points(const char* name, const char* label, const Tensor& x) {
  check_floating(name, label, x);
  if (x.dim() < 2) {
    fail(std::string(name) + ": " + label + " must be [*batch, points, dim] with at least two dimensions, got " +
         show_shape(x) + "; use " + label + ".unsqueeze(0)");
  }
}

// The batch shape that x [*batch, n, dim] and y [*batch, m, dim] broadcast to.
inline Sizes pair_batch(const char* name, const Tensor& x, const Tensor& y) {
  const auto xs = x.sizes();
  const auto ys = y.sizes();
  const auto& longer = xs.size() >= ys.size() ? xs : ys;
  const auto& shorter = xs.size() >= ys.size() ? ys : xs;
  const size_t padding = longer.size() - shorter.size();
  bool fits = xs[xs.size() - 1] == ys[ys.size() - 1];
  Sizes batch;
  for (size_t d = 0; d + 2 < longer.size(); ++d) {
    const int64_t other = d >= padding ? shorter[d - padding] : 1;
    fits = fits && (longer[d] == other || longer[d] == 1 || other == 1);
    batch.push_back(longer[d] == 1 ? other : longer[d]);
  }
  if (!fits) {
    fail(std::string(name) + ": x [*batch, n, dim] and y [*batch, m, dim] must have one last dimension and batch "
         "dimensions that broadcast, got " + show_shape(x) + " and " + show_shape(y) +
         "; reshape or unsqueeze one of them");
  }
  return batch;
}

struct CdistNames {
  const char* operation;
  const char* backward;
};

inline constexpr CdistNames kPoincareCdist{"poincare_cdist", "poincare_cdist_backward"};
inline constexpr CdistNames kPoincareCdistEpilogue{"poincare_cdist_epilogue", "poincare_cdist_epilogue_backward"};
inline constexpr CdistNames kLorentzCdist{"lorentz_cdist", "lorentz_cdist_backward"};
inline constexpr CdistNames kKleinCdist{"klein_cdist", "klein_cdist_backward"};

// Points of the hyperboloid have a time component.
inline void check_time(const char* name, const Tensor& x) {
  check_points(name, "x", x);
  if (x.size(x.dim() - 1) == 0) {
    fail(std::string(name) + ": points of the hyperboloid are [*batch, points, 1 + dim], time first, got x " +
         show_shape(x) + "; prepend sqrt(1/c + ||x||^2)");
  }
}

inline Sizes check_cdist(const char* name, const Tensor& x, const Tensor& y, const Tensor& c,
                                        const CdistGuards& guards) {
  check_points(name, "x", x);
  check_points(name, "y", y);
  check_same_dtype(name, "x and y", x, y);
  check_same_device(name, "x and y", x, y);
  const Sizes batch = pair_batch(name, x, y);
  check_curvature(name, c, with_last(batch, 1), x);
  check_options(name, {{"min_alpha", guards.min_alpha},
                       {"atanh_limit", guards.atanh_limit},
                       {"min_denominator", guards.min_denominator},
                       {"denominator_offset", guards.denominator_offset}});
  return batch;
}

inline CdistArguments cdist_arguments(const char* name, Model model, const Sizes& batch,
                                      const Tensor& x, const Tensor& y, const Tensor& c, const CdistGuards& guards) {
  return {element(x),
          model,
          product(batch),
          x.size(x.dim() - 2),
          y.size(y.dim() - 2),
          x.size(x.dim() - 1),
          x.const_data_ptr(),
          y.const_data_ptr(),
          nullptr,
          nullptr,
          nullptr,
          nullptr,
          nullptr,
          nullptr,
          curvature(c, x),
          guards,
          map_rows(name, batch, {&x, &y, &c}, 2)};
}

inline void check_products(const char* name, const Tensor& product, const Tensor& x, const Tensor& y,
                           const Sizes& batch) {
  const Sizes expected = with_last(with_last(batch, x.size(x.dim() - 2)), y.size(y.dim() - 2));
  const auto sizes = product.sizes();
  if (product.scalar_type() != compute_dtype(x) || Sizes(sizes.begin(), sizes.end()) != expected) {
    fail(std::string(name) + ": product must be " + show(compute_dtype(x)) + " " + show_sizes(expected) + ", got " +
         show(product.scalar_type()) + " " + show_shape(product) + "; it is x @ y.mT in the dtype that x computes in");
  }
  check_same_device(name, "product and x", product, x);
}

// With the inner products of the points, or None where differences are to be formed.
template <class Device>
Tensor cdist(const char* name, Model model, std::optional<Tensor> product, Tensor x, Tensor y, Tensor c,
             const CdistGuards& guards) {
  const Sizes batch = check_cdist(name, x, y, c, guards);
  if (product.has_value()) {
    check_products(name, *product, x, y, batch);
    product = dense(*product);
  }
  x = dense(x);
  y = dense(y);
  c = dense(c);
  const Tensor result = new_tensor(with_last(with_last(batch, x.size(x.dim() - 2)), y.size(y.dim() - 2)),
                                   x.scalar_type(), x);
  CdistArguments arguments = cdist_arguments(name, model, batch, x, y, c, guards);
  if (arguments.batch * arguments.rows * arguments.columns > 0) {
    arguments.product = product.has_value() ? product->const_data_ptr() : nullptr;
    arguments.result = result.mutable_data_ptr();
    Device::cdist(Direction::kForward, arguments, x);
  }
  return result;
}

// The sum of `terms` [*batch, rows + columns] over its last dimension, kept, in the dtype of a gradient of c.
inline Tensor sum_terms(const Tensor& terms, ScalarType dtype) {
  const std::array<int64_t, 1> last{terms.dim() - 1};
  std::array<StableIValue, 4> stack{torch::stable::detail::from(terms),
                                    torch::stable::detail::from(std::optional(std::vector<int64_t>{last[0]})),
                                    torch::stable::detail::from(true),
                                    torch::stable::detail::from(std::optional<ScalarType>(dtype))};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::sum", "dim_IntList", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// Gradients of the products, [0] where there are none, of the points and of the curvature of each matrix.
template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> cdist_backward(const CdistNames& names, Model model, Tensor grad,
                                                          std::optional<Tensor> product, Tensor x, Tensor y, Tensor c,
                                                          const CdistGuards& guards) {
  const Sizes batch = check_cdist(names.operation, x, y, c, guards);
  if (product.has_value()) {
    check_products(names.operation, *product, x, y, batch);
    product = dense(*product);
  }
  const int64_t rows = x.size(x.dim() - 2), columns = y.size(y.dim() - 2), dim = x.size(x.dim() - 1);
  check_gradient(names.backward, "grad and x", grad, x, with_last(with_last(batch, rows), columns));
  grad = dense(grad);
  x = dense(x);
  y = dense(y);
  c = dense(c);
  const Tensor grad_x = new_tensor(with_last(with_last(batch, rows), dim), x.scalar_type(), x);
  const Tensor grad_y = new_tensor(with_last(with_last(batch, columns), dim), x.scalar_type(), x);
  const Tensor grad_product = new_tensor(product.has_value() ? Sizes(grad.sizes().begin(), grad.sizes().end()) : Sizes{0},
                                         compute_dtype(x), x);
  const Tensor terms = new_tensor(with_last(with_last(batch, 1), rows + columns), ScalarType::Double, x);
  CdistArguments arguments = cdist_arguments(names.operation, model, batch, x, y, c, guards);
  if (arguments.batch * (rows + columns) > 0) {
    arguments.grad = grad.const_data_ptr();
    arguments.product = product.has_value() ? product->const_data_ptr() : nullptr;
    arguments.grad_product = grad_product.mutable_data_ptr();
    arguments.result = grad_x.mutable_data_ptr();
    arguments.grad_y = grad_y.mutable_data_ptr();
    arguments.grad_c = static_cast<double*>(terms.mutable_data_ptr());
    Device::cdist(Direction::kBackward, arguments, x);
  }
  return {grad_product, grad_x, grad_y, sum_terms(terms, compute_dtype(x))};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> cdist_gradients(const CdistNames& names, Model model, Tensor grad, Tensor x, Tensor y,
                                                   Tensor c, const CdistGuards& guards) {
  const auto [product, of_x, of_y, of_c] = cdist_backward<Device>(names, model, grad, std::nullopt, x, y, c, guards);
  return {of_x, of_y, of_c};
}

template <class Device>
Tensor poincare_cdist(Tensor x, Tensor y, Tensor c, double min_alpha, double atanh_limit, double min_denominator,
                      double denominator_offset) {
  return cdist<Device>("poincare_cdist", Model::kPoincare, std::nullopt, x, y, c,
                       {min_alpha, atanh_limit, min_denominator, denominator_offset});
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> poincare_cdist_backward(Tensor grad, Tensor x, Tensor y, Tensor c,
                                                           double min_alpha, double atanh_limit,
                                                           double min_denominator, double denominator_offset) {
  return cdist_gradients<Device>(kPoincareCdist, Model::kPoincare, grad, x, y, c,
                                 {min_alpha, atanh_limit, min_denominator, denominator_offset});
}

template <class Device>
Tensor poincare_cdist_epilogue(Tensor product, Tensor x, Tensor y, Tensor c, double min_alpha, double atanh_limit,
                               double min_denominator, double denominator_offset) {
  return cdist<Device>("poincare_cdist_epilogue", Model::kPoincare, product, x, y, c,
                       {min_alpha, atanh_limit, min_denominator, denominator_offset});
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> poincare_cdist_epilogue_backward(
    Tensor grad, Tensor product, Tensor x, Tensor y, Tensor c, double min_alpha, double atanh_limit,
    double min_denominator, double denominator_offset) {
  return cdist_backward<Device>(kPoincareCdistEpilogue, Model::kPoincare, grad, product, x, y, c,
                                {min_alpha, atanh_limit, min_denominator, denominator_offset});
}

inline constexpr CdistGuards kNoGuards{0.0, 1e308, 0.0, 0.0};

template <class Device>
Tensor lorentz_cdist(Tensor x, Tensor y, Tensor c) {
  check_time("lorentz_cdist", x);
  return cdist<Device>("lorentz_cdist", Model::kLorentz, std::nullopt, x, y, c, kNoGuards);
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> lorentz_cdist_backward(Tensor grad, Tensor x, Tensor y, Tensor c) {
  check_time("lorentz_cdist", x);
  return cdist_gradients<Device>(kLorentzCdist, Model::kLorentz, grad, x, y, c, kNoGuards);
}

template <class Device>
Tensor klein_cdist(Tensor x, Tensor y, Tensor c, double min_alpha) {
  return cdist<Device>("klein_cdist", Model::kKlein, std::nullopt, x, y, c, {min_alpha, 1e308, 0.0, 0.0});
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> klein_cdist_backward(Tensor grad, Tensor x, Tensor y, Tensor c, double min_alpha) {
  return cdist_gradients<Device>(kKleinCdist, Model::kKlein, grad, x, y, c, {min_alpha, 1e308, 0.0, 0.0});
}

template <class Device>
void register_cdist(torch::stable::detail::StableLibrary& m) {
  m.impl("poincare_cdist", TORCH_BOX((&poincare_cdist<Device>)));
  m.impl("poincare_cdist_forward", TORCH_BOX((&poincare_cdist<Device>)));
  m.impl("poincare_cdist_backward", TORCH_BOX((&poincare_cdist_backward<Device>)));
  m.impl("poincare_cdist_epilogue", TORCH_BOX((&poincare_cdist_epilogue<Device>)));
  m.impl("poincare_cdist_epilogue_forward", TORCH_BOX((&poincare_cdist_epilogue<Device>)));
  m.impl("poincare_cdist_epilogue_backward", TORCH_BOX((&poincare_cdist_epilogue_backward<Device>)));
  m.impl("lorentz_cdist", TORCH_BOX((&lorentz_cdist<Device>)));
  m.impl("lorentz_cdist_forward", TORCH_BOX((&lorentz_cdist<Device>)));
  m.impl("lorentz_cdist_backward", TORCH_BOX((&lorentz_cdist_backward<Device>)));
  m.impl("klein_cdist", TORCH_BOX((&klein_cdist<Device>)));
  m.impl("klein_cdist_forward", TORCH_BOX((&klein_cdist<Device>)));
  m.impl("klein_cdist_backward", TORCH_BOX((&klein_cdist_backward<Device>)));
}

}  // namespace stone::launch
