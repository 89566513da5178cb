// What the operators demand of their arguments; stonefx/ops/checks.py says the same in the same words.
#pragma once

#include <initializer_list>
#include <utility>

#include "text.h"

namespace stone::launch {

inline bool is_floating(ScalarType dtype) {
  return dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::BFloat16 ||
         dtype == ScalarType::Half;
}

inline void check_floating(const char* name, const std::string& label, const Tensor& x) {
  if (!is_floating(x.scalar_type())) {
    fail(std::string(name) + ": " + label + " must be float32, float64, bfloat16 or float16, got " +
         show(x.scalar_type()) + "; convert it, for instance with " + label + ".float()");
  }
}

inline void check_rows(const char* name, const std::string& label, const Tensor& x) {
  check_floating(name, label, x);
  if (x.dim() == 0) {
    fail(std::string(name) + ": " + label +
         " must be [*batch, dim] with at least one dimension, got a 0-dim tensor; use " + label + ".unsqueeze(-1)");
  }
}

inline void check_same_dtype(const char* name, const char* labels, const Tensor& x, const Tensor& y) {
  if (x.scalar_type() != y.scalar_type()) {
    fail(std::string(name) + ": " + labels + " must have one dtype, got " + show(x.scalar_type()) + " and " +
         show(y.scalar_type()) + "; convert one of them with .to()");
  }
}

inline bool same_device(const Tensor& x, const Tensor& y) {
  return x.is_cpu() ? y.is_cpu() : !y.is_cpu() && x.get_device_index() == y.get_device_index();
}

inline void check_same_device(const char* name, const char* labels, const Tensor& x, const Tensor& y) {
  if (!same_device(x, y)) {
    fail(std::string(name) + ": " + labels + " must be on one device, got " + show_device(x) + " and " +
         show_device(y) + "; move one of them with .to()");
  }
}

// A 0-dim curvature on the CPU goes with rows on any device, as 0-dim tensors do in torch.
// `label` is another number of the row that is given as a curvature is.
inline void check_curvature(const char* name, const Tensor& c, const Sizes& batch, const Tensor& x,
                            const std::string& label = "c", const std::string& rows = "x") {
  check_floating(name, label, c);
  const auto sizes = c.sizes();
  const size_t depth = sizes.size();
  bool fits = depth <= batch.size() + 1 && (depth == 0 || sizes[depth - 1] == 1);
  for (size_t d = 1; fits && d < depth; ++d) {
    const int64_t size = sizes[depth - 1 - d];
    fits = size == 1 || size == batch[batch.size() - d];
  }
  if (!fits) {
    Sizes expected = batch;
    expected.push_back(1);
    fail(std::string(name) + ": " + label + " must be 0-dim or broadcast to [*batch, 1] = " + show_sizes(expected) +
         ", got " + show_shape(c) + "; " + (label == "c" ? "a curvature" : "one") +
         " for each row needs a last dimension of 1: " + label + ".unsqueeze(-1)");
  }
  if (!(depth == 0 && c.is_cpu())) {
    check_same_device(name, (rows + " and " + label).c_str(), x, c);
  }
}

// The batch shape that `batch` (of x and the operands before y) and y, [*batch, dim], broadcast to.
inline Sizes broadcast_rows(const char* name, const std::string& labels, const Tensor& x,
                                           const Tensor& y, const Sizes& before, bool one_width) {
  const Sizes own(y.sizes().begin(), y.sizes().end() - 1);
  const Sizes& longer = before.size() >= own.size() ? before : own;
  const Sizes& shorter = before.size() >= own.size() ? own : before;
  const size_t padding = longer.size() - shorter.size();
  bool fits = !one_width || x.size(x.dim() - 1) == y.size(y.dim() - 1);
  Sizes batch;
  for (size_t d = 0; d < longer.size(); ++d) {
    const int64_t other = d >= padding ? shorter[d - padding] : 1;
    fits = fits && (longer[d] == other || longer[d] == 1 || other == 1);
    batch.push_back(longer[d] == 1 ? other : longer[d]);
  }
  if (!fits) {
    fail(std::string(name) + ": " + labels + " must have " + (one_width ? "one last dimension and " : "") +
         "batch dimensions that broadcast, got " + show_shape(x) + " and " + show_shape(y) +
         "; reshape or unsqueeze one of them");
  }
  return batch;
}

inline Sizes broadcast_batch(const char* name, const Tensor& x, const Tensor& y) {
  return broadcast_rows(name, "x and y", x, y, Sizes(x.sizes().begin(), x.sizes().end() - 1), true);
}

// The gradient of a result of the given shape.
template <class Shape>
void check_gradient(const char* name, const char* labels, const Tensor& grad, const Tensor& x, const Shape& shape) {
  check_same_dtype(name, labels, grad, x);
  check_same_device(name, labels, grad, x);
  const auto sizes = grad.sizes();
  bool fits = sizes.size() == shape.size();
  for (size_t d = 0; fits && d < sizes.size(); ++d) {
    fits = sizes[d] == shape[d];
  }
  if (!fits) {
    fail(std::string(name) + ": grad must have the shape of the result, " + show_sizes(shape) + ", got " +
         show_shape(grad) + "; expand it");
  }
}

inline void check_options(const char* name, std::initializer_list<std::pair<const char*, double>> options) {
  for (const auto& [label, value] : options) {
    if (!(value >= 0.0)) {
      fail(std::string(name) + ": " + label + " must be at least 0, got " + show_number(value) +
           "; leave it out for none");
    }
  }
}

}  // namespace stone::launch
