// pifa_linear as an operator: two products through aten, and rows put in order by a kernel.
#pragma once

#include <array>
#include <optional>
#include <tuple>

#include "low_rank.h"

namespace stone::launch {

inline void check_pifa(const Tensor& x, const Tensor& pivot, const Tensor& interpolation, const Tensor& index,
                       const std::optional<Tensor>& bias) {
  const char* name = "pifa_linear";
  check_rows(name, "x", x);
  check_same_dtype(name, "x and pivot", x, pivot);
  check_same_device(name, "x and pivot", x, pivot);
  check_same_dtype(name, "x and interpolation", x, interpolation);
  check_same_device(name, "x and interpolation", x, interpolation);
  check_same_device(name, "x and index", x, index);
  if (index.scalar_type() != ScalarType::Int) {
    fail(std::string(name) + ": index must be int32, got " + show(index.scalar_type()) +
         "; convert it with index.int()");
  }
  bool fits = pivot.dim() == 2 && interpolation.dim() == 2 && index.dim() == 1;
  if (bias.has_value()) {
    check_same_dtype(name, "x and bias", x, *bias);
    check_same_device(name, "x and bias", x, *bias);
    fits = fits && bias->dim() == 1 && bias->size(0) == index.size(0);
  }
  fits = fits && x.size(x.dim() - 1) == pivot.size(1) && interpolation.size(1) == pivot.size(0) &&
         interpolation.size(0) + pivot.size(0) == index.size(0);
  if (!fits) {
    fail(std::string(name) +
         ": expected x [*batch, in], pivot [rank, in], interpolation [out - rank, rank], index [out] and bias [out], "
         "got " +
         show_shape(x) + ", " + show_shape(pivot) + ", " + show_shape(interpolation) + ", " + show_shape(index) +
         " and " + (bias.has_value() ? show_shape(*bias) : "none") +
         "; stonefx.nn.PifaLinear.from_factors makes them of a factored weight");
  }
}

[[noreturn]] inline void refuse_index(int64_t count, int64_t at, int64_t value) {
  fail("pifa_linear: index must hold each of 0 to " + std::to_string(count - 1) + " once, got " +
       std::to_string(value) + " at " + std::to_string(at) +
       (value < 0 || value >= count ? "" : ", which came before") +
       "; entry o says which of the pivot rows, then the others, is output o");
}

// A matrix within the memory of `of`, of which autograd knows nothing.
inline Tensor matrix(const Tensor& of, std::array<int64_t, 2> sizes, std::array<int64_t, 2> strides,
                     int64_t offset = 0) {
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch__reinterpret_tensor(of.get(), 2, sizes.data(), strides.data(), offset, &handle));
  return Tensor(handle);
}

inline Tensor matrix(const Tensor& of) {
  return matrix(of, {of.size(0), of.size(1)}, {of.stride(0), of.stride(1)});
}

inline Tensor transposed(const Tensor& of) {
  return matrix(of, {of.size(1), of.size(0)}, {of.stride(1), of.stride(0)});
}

inline void matrix_product(const Tensor& a, const Tensor& b, const Tensor& result) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(b),
                                    torch::stable::detail::from(result)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);  // the result once more, to be released
}

inline Tensor matrix_product(const Tensor& a, const Tensor& b) {
  const Tensor result = new_tensor({a.size(0), b.size(1)}, a.scalar_type(), a);
  matrix_product(a, b, result);
  return result;
}

template <class Device>
Tensor pifa_linear(Tensor x, Tensor pivot, Tensor interpolation, Tensor index, std::optional<Tensor> bias) {
  check_pifa(x, pivot, interpolation, index, bias);
  index = dense(index);
  if (bias.has_value()) {
    bias = dense(*bias);
  }
  const int64_t rank = pivot.size(0), out = index.size(0), others = out - rank;
  using Order = typename Device::Order;
  Order order(index, rank, x);
  const Tensor y = new_tensor(with_last(batch_of(x), out), x.scalar_type(), x);
  const Tensor given = flat(x);
  const int64_t rows = given.size(0);
  if (rows == 0 || out == 0) {
    return y;
  }
  // On the CPU the products lie in the result: a scratch memory of its size would be read from memory and cost more than
  // the order. Blocks of rows that stay in cache cost more too: each product arranges its weight anew.
  const Tensor products = Order::kInResult ? y : new_tensor({rows, order.stride()}, x.scalar_type(), x);
  const int64_t stride = Order::kInResult ? out : order.stride();
  const Tensor hidden = matrix(products, {rows, rank}, {stride, 1});
  matrix_product(matrix(given), transposed(pivot), hidden);
  if (others > 0) {
    matrix_product(hidden, transposed(interpolation), matrix(products, {rows, others}, {stride, 1}, order.second()));
  }
  order.join(products, y, bias.has_value() ? bias->const_data_ptr() : nullptr, rows);
  return y;
}

// Gradients of x, pivot, interpolation and the bias ([0] where there is none).
template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> pifa_linear_backward(Tensor grad, Tensor x, Tensor pivot,
                                                                Tensor interpolation, Tensor index, bool has_bias) {
  check_pifa(x, pivot, interpolation, index, std::nullopt);
  check_gradient("pifa_linear_backward", "grad and x", grad, x, with_last(batch_of(x), index.size(0)));
  index = dense(index);
  typename Device::Order order(index, pivot.size(0), x);
  const Tensor given = matrix(flat(x)), of_rows = dense(flat(grad));
  const int64_t rows = given.size(0);
  const Tensor of_others = new_tensor({rows, interpolation.size(0)}, x.scalar_type(), x);
  if (rows > 0 && of_others.size(1) > 0) {
    order.take_others(of_rows.const_data_ptr(), of_others.mutable_data_ptr(), rows);
  }
  const Tensor grad_hidden = matrix_product(of_others, matrix(interpolation));
  if (rows > 0 && pivot.size(0) > 0) {
    order.add_pivots(of_rows.const_data_ptr(), grad_hidden.mutable_data_ptr(), rows);
  }
  const Tensor hidden = matrix_product(given, transposed(pivot));
  const Tensor grad_x = new_tensor(Sizes(x.sizes().begin(), x.sizes().end()), x.scalar_type(), x);
  matrix_product(grad_hidden, matrix(pivot), matrix(grad_x, {rows, pivot.size(1)}, {pivot.size(1), 1}));
  const Tensor grad_pivot = matrix_product(transposed(grad_hidden), given);
  const Tensor grad_interpolation = matrix_product(transposed(of_others), hidden);
  Tensor grad_bias = new_tensor({0}, x.scalar_type(), x);
  if (has_bias) {
    const std::array<int64_t, 1> over_rows{0};
    grad_bias = torch::stable::sum(matrix(of_rows), torch::headeronly::IntHeaderOnlyArrayRef(over_rows.data(), 1));
  }
  return {grad_x, grad_pivot, grad_interpolation, grad_bias};
}

}  // namespace stone::launch
