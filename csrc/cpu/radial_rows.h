// expmap0 and logmap0, forward and backward, over rows of any element type.
#pragma once

#include "kernels.h"
#include "rows.h"
#include "stone/broadcast.h"
#include "stone/curvature.h"
#include "stone/radial.h"

namespace STONE_NAMESPACE {

template <class Map, class T>
void radial_forward(const RadialArguments& arguments, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(arguments.x);
  T* y = static_cast<T*>(arguments.y);
  const int64_t dim = arguments.dim;
  const RadialGuards guards = arguments.guards;
  const int64_t step = block_rows(dim, sizeof(T), 2);
  double squares[kBlock] = {};
  double c[kBlock] = {};
  double factor[kBlock];
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    for (int r = 0; r < count; ++r) {
      squares[r] = dot(x + (first + r) * dim, x + (first + r) * dim, dim);
      c[r] = curvature_at(arguments.c, source_row(arguments.map, 0, first + r));
    }
#pragma omp simd
    for (int r = 0; r < count; ++r) {
      factor[r] = radial_factor<Map>(squares[r], c[r], guards);
    }
    for (int r = 0; r < count; ++r) {
      scale(y + (first + r) * dim, factor[r], x + (first + r) * dim, dim);
    }
  }
}

template <class Map, class T>
void radial_backward(const RadialArguments& arguments, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(arguments.x);
  const T* grad = static_cast<const T*>(arguments.grad);
  T* grad_x = static_cast<T*>(arguments.y);
  auto* grad_c = static_cast<typename Compute<T>::type*>(arguments.grad_c);
  const int64_t dim = arguments.dim;
  const RadialGuards guards = arguments.guards;
  const int64_t step = block_rows(dim, sizeof(T), 3);
  double squares[kBlock] = {};
  double inner[kBlock] = {};
  double c[kBlock] = {};
  double factor[kBlock];
  double along[kBlock];
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    for (int r = 0; r < count; ++r) {
      const PairOfDots dots = dot_two(x + (first + r) * dim, grad + (first + r) * dim, dim);
      squares[r] = dots.xx;
      inner[r] = dots.xy;
      c[r] = curvature_at(arguments.c, source_row(arguments.map, 0, first + r));
    }
#pragma omp simd
    for (int r = 0; r < count; ++r) {
      const RadialGradient g = radial_gradient<Map>(squares[r], inner[r], c[r], guards);
      factor[r] = g.factor;
      along[r] = g.along;
      grad_c[first + r] = static_cast<typename Compute<T>::type>(g.curvature);
    }
    for (int r = 0; r < count; ++r) {
      const int64_t at = (first + r) * dim;
      combine_two(grad_x + at, factor[r], grad + at, along[r], x + at, dim);
    }
  }
}

}  // namespace STONE_NAMESPACE
