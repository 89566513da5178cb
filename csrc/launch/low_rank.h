// low_rank_linear as an operator: two products through aten, on whichever device the operands are.
#pragma once

#include <array>
#include <optional>
#include <tuple>

#include "operands.h"

namespace stone::launch {

inline Tensor linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(x), torch::stable::detail::from(weight),
                                    torch::stable::detail::from(bias)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::linear", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

inline void check_low_rank(const Tensor& x, const Tensor& a, const Tensor& b, const std::optional<Tensor>& bias) {
  const char* name = "low_rank_linear";
  check_rows(name, "x", x);
  check_same_dtype(name, "x and a", x, a);
  check_same_device(name, "x and a", x, a);
  check_same_dtype(name, "x and b", x, b);
  check_same_device(name, "x and b", x, b);
  bool fits = a.dim() == 2 && b.dim() == 2;
  if (bias.has_value()) {
    check_same_dtype(name, "x and bias", x, *bias);
    check_same_device(name, "x and bias", x, *bias);
    fits = fits && bias->dim() == 1 && bias->size(0) == b.size(0);
  }
  fits = fits && x.size(x.dim() - 1) == a.size(1) && b.size(1) == a.size(0);
  if (!fits) {
    fail("low_rank_linear: expected x [*batch, in], a [rank, in], b [out, rank] and bias [out], got " +
         show_shape(x) + ", " + show_shape(a) + ", " + show_shape(b) + " and " +
         (bias.has_value() ? show_shape(*bias) : "none") + "; a and b are laid out as nn.Linear.weight is");
  }
}

inline Tensor low_rank_linear(Tensor x, Tensor a, Tensor b, std::optional<Tensor> bias) {
  check_low_rank(x, a, b, bias);
  return dense(linear(linear(x, a, std::nullopt), b, bias));
}

inline Tensor flat(const Tensor& x) {
  const int64_t width = x.size(x.dim() - 1);
  int64_t rows = 1;
  for (int64_t d = 0; d + 1 < x.dim(); ++d) {
    rows *= x.size(d);
  }
  const std::array<int64_t, 2> shape{rows, width};
  return torch::stable::reshape(x, {shape.data(), shape.size()});
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> low_rank_linear_backward(Tensor grad, Tensor x, Tensor a, Tensor b,
                                                                           bool has_bias) {
  using torch::stable::matmul;
  using torch::stable::transpose;
  check_low_rank(x, a, b, std::nullopt);
  check_gradient("low_rank_linear_backward", "grad and x", grad, x, with_last(batch_of(x), b.size(0)));
  const Tensor rows = flat(x);
  const Tensor grad_rows = flat(grad);
  const Tensor hidden = linear(rows, a, std::nullopt);
  const Tensor grad_hidden = matmul(grad_rows, b);
  const Tensor grad_x = torch::stable::reshape(matmul(grad_hidden, a), x.sizes());
  const Tensor grad_a = matmul(transpose(grad_hidden, 0, 1), rows);
  const Tensor grad_b = matmul(transpose(grad_rows, 0, 1), hidden);
  Tensor grad_bias;
  if (has_bias) {
    const std::array<int64_t, 1> over_rows{0};
    grad_bias = torch::stable::sum(grad_rows, torch::headeronly::IntHeaderOnlyArrayRef(over_rows.data(), 1));
  } else {
    grad_bias = new_tensor({0}, x.scalar_type(), x);
  }
  return {dense(grad_x), dense(grad_a), dense(grad_b), grad_bias};
}

}  // namespace stone::launch
