// mobius_add, forward and backward, over rows of any element type.
#pragma once

#include "kernels.h"
#include "rows.h"
#include "stone/broadcast.h"
#include "stone/curvature.h"
#include "stone/mobius_add.h"

namespace STONE_NAMESPACE {

template <class T>
inline void combine_pair(T* grad_x, T* grad_y, const MobiusGradient& g, const T* grad, const T* x, const T* y,
                         int64_t dim) {
  using C = typename Compute<T>::type;
  const C x_of_grad = static_cast<C>(g.x_of_grad), y_of_grad = static_cast<C>(g.y_of_grad);
  const C x_of_x = static_cast<C>(g.x_of_x), xy = static_cast<C>(g.xy), y_of_y = static_cast<C>(g.y_of_y);
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) {
    const C a = load(x[i]), b = load(y[i]), d = load(grad[i]);
    grad_x[i] = store<T>(x_of_grad * d + x_of_x * a + xy * b);
    grad_y[i] = store<T>(y_of_grad * d + xy * a + y_of_y * b);
  }
}

template <class T>
void mobius_forward(const MobiusArguments& arguments, int64_t begin, int64_t end) {
  const int64_t dim = arguments.dim;
  const MobiusGuards guards = arguments.guards;
  const int64_t step = block_rows(dim, sizeof(T), 3);
  const T* x[kBlock];
  const T* y[kBlock];
  double xx[kBlock] = {}, yy[kBlock] = {}, ss[kBlock] = {}, c[kBlock] = {};
  double of_sum[kBlock], of_x[kBlock];
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    for (int r = 0; r < count; ++r) {
      x[r] = static_cast<const T*>(arguments.x) + source_row(arguments.map, 0, first + r) * dim;
      y[r] = static_cast<const T*>(arguments.y) + source_row(arguments.map, 1, first + r) * dim;
      c[r] = curvature_at(arguments.c, source_row(arguments.map, 2, first + r));
      const SumSquares squares = sum_squares(x[r], y[r], dim);
      xx[r] = squares.xx;
      yy[r] = squares.yy;
      ss[r] = squares.ss;
    }
#pragma omp simd
    for (int r = 0; r < count; ++r) {
      const MobiusFactors f = mobius_factors(xx[r], yy[r], ss[r], c[r], guards);
      of_sum[r] = f.of_sum;
      of_x[r] = f.of_x;
    }
    for (int r = 0; r < count; ++r) {
      combine_sum(static_cast<T*>(arguments.z) + (first + r) * dim, of_sum[r], of_x[r], x[r], y[r], dim);
    }
  }
}

template <class T>
void mobius_backward(const MobiusArguments& arguments, int64_t begin, int64_t end) {
  const int64_t dim = arguments.dim;
  const MobiusGuards guards = arguments.guards;
  const int64_t step = block_rows(dim, sizeof(T), 5);
  auto* grad_c = static_cast<typename Compute<T>::type*>(arguments.grad_c);
  const T* x[kBlock];
  const T* y[kBlock];
  double xx[kBlock] = {}, yy[kBlock] = {}, ss[kBlock] = {}, c[kBlock] = {};
  double gx[kBlock] = {}, gy[kBlock] = {};
  MobiusGradient gradient[kBlock];
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    for (int r = 0; r < count; ++r) {
      const T* grad = static_cast<const T*>(arguments.grad) + (first + r) * dim;
      x[r] = static_cast<const T*>(arguments.x) + source_row(arguments.map, 0, first + r) * dim;
      y[r] = static_cast<const T*>(arguments.y) + source_row(arguments.map, 1, first + r) * dim;
      c[r] = curvature_at(arguments.c, source_row(arguments.map, 2, first + r));
      const SumSquares squares = sum_squares(x[r], y[r], dim);
      xx[r] = squares.xx;
      yy[r] = squares.yy;
      ss[r] = squares.ss;
      gx[r] = dot(x[r], grad, dim);
      gy[r] = dot(y[r], grad, dim);
    }
    for (int r = 0; r < count; ++r) {
      gradient[r] = mobius_gradient(xx[r], yy[r], ss[r], gx[r], gy[r], c[r], guards);
      grad_c[first + r] = static_cast<typename Compute<T>::type>(gradient[r].curvature);
    }
    for (int r = 0; r < count; ++r) {
      const int64_t at = (first + r) * dim;
      const T* grad = static_cast<const T*>(arguments.grad) + at;
      const MobiusGradient g = gradient[r];
      combine_pair(static_cast<T*>(arguments.z) + at, static_cast<T*>(arguments.grad_y) + at, g, grad, x[r], y[r],
                   dim);
    }
  }
}

}  // namespace STONE_NAMESPACE
