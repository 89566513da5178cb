// expmap0 and logmap0, forward and backward, over rows of any element type.
#pragma once

#include "kernels.h"
#include "rows.h"
#include "stone/radial.h"

namespace STONE_NAMESPACE {

template <class Map, class T>
void radial_forward(const RadialArguments& arguments, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(arguments.x);
  T* y = static_cast<T*>(arguments.y);
  const int64_t dim = arguments.dim;
  const RadialGuards guards = arguments.guards;
  const int64_t step = block_rows(dim, sizeof(T), 2);
  const bool far = streams(end - begin, dim, sizeof(T));
  double squares[kBlock] = {};
  double c[kBlock] = {};
  double factor[kBlock];
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    read_numbers(c, arguments.c, arguments.map, 0, first, count);
    for (int r = 0; r < count; ++r) {
      if (far) {
        fetch_ahead(x + (first + r) * dim, dim);
      }
      squares[r] = dot(x + (first + r) * dim, x + (first + r) * dim, dim);
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

struct RadialBlock {
  double squares[kBlock];
  double inner[kBlock];
  double c[kBlock];
  double factor[kBlock];
  double along[kBlock];
  double curvature[kBlock];
};

// Not part of the loop over rows, whose own variables would keep it from becoming vector code.
template <class Map>
STONE_FUNCTION void radial_row(RadialBlock& block, const RadialGuards& guards, int r) {
  const RadialGradient g = radial_gradient<Map>(block.squares[r], block.inner[r], block.c[r], guards);
  block.factor[r] = g.factor;
  block.along[r] = g.along;
  block.curvature[r] = g.curvature;
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
  RadialBlock block{};
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    read_numbers(block.c, arguments.c, arguments.map, 0, first, count);
    for (int r = 0; r < count; ++r) {
      const PairOfDots dots = dot_two(x + (first + r) * dim, grad + (first + r) * dim, dim);
      block.squares[r] = dots.xx;
      block.inner[r] = dots.xy;
    }
    const int padded = whole_vectors(count);
#pragma omp simd
    for (int r = 0; r < padded; ++r) {
      radial_row<Map>(block, guards, r);
    }
    write_numbers(grad_c + first, block.curvature, count);
    for (int r = 0; r < count; ++r) {
      const int64_t at = (first + r) * dim;
      combine_two(grad_x + at, block.factor[r], grad + at, block.along[r], x + at, dim);
    }
  }
}

}  // namespace STONE_NAMESPACE
