// expmap0 and logmap0, forward and backward, over rows of any element type.
#pragma once

#include "kernels.h"
#include "rows/row_sums.h"
#include "rows/rows.h"
#include "stone/radial.h"

namespace STONE_NAMESPACE {

struct RadialBlock {
  double squares[kBlock];
  double inner[kBlock];
  double c[kBlock];
  double factor[kBlock];
  double along[kBlock];
  double curvature[kBlock];
};

// The rows of a block and, where they are read, those of the gradient.
template <class T>
struct RadialPointers {
  const T* x[kBlock];
  const T* grad[kBlock];
};

// Not part of the loops over rows, whose own variables would keep them from becoming vector code.
template <class Map, bool separate>
STONE_FUNCTION void radial_value(RadialBlock& block, const RadialGuards& guards, double c, int r) {
  block.factor[r] = separate ? radial_factor_separate<Map>(block.squares[r], c, guards)
                             : radial_factor<Map>(block.squares[r], c, guards);
}

template <class Map, bool separate>
STONE_FUNCTION void radial_row(RadialBlock& block, const RadialGuards& guards, double c, int r) {
  const RadialGradient g = separate ? radial_gradient_separate<Map>(block.squares[r], block.inner[r], c, guards)
                                    : radial_gradient<Map>(block.squares[r], block.inner[r], c, guards);
  block.factor[r] = g.factor;
  block.along[r] = g.along;
  block.curvature[r] = g.curvature;
}

// With `shared` all rows have the curvature of the first.
template <class Map, bool shared, bool separate>
inline void radial_values(RadialBlock& block, const RadialGuards& guards, int padded) {
  const double c = block.c[0];
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    radial_value<Map, separate>(block, guards, shared ? c : block.c[r], r);
  }
}

template <class Map, bool shared, bool separate>
inline void radial_gradients(RadialBlock& block, const RadialGuards& guards, int padded) {
  const double c = block.c[0];
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    radial_row<Map, separate>(block, guards, shared ? c : block.c[r], r);
  }
}

template <class Map, class T>
void radial_forward(const RadialArguments& arguments, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(arguments.x);
  T* y = static_cast<T*>(arguments.y);
  const int64_t dim = arguments.dim;
  const RadialGuards guards = arguments.guards;
  const int64_t step = block_rows(dim, sizeof(T), 2);
  const bool far = streams(end - begin, dim, sizeof(T));
  const bool shared = shares_number(arguments.map, 0);
  const auto values = guards.separate
                          ? (shared ? radial_values<Map, true, true> : radial_values<Map, false, true>)
                          : (shared ? radial_values<Map, true, false> : radial_values<Map, false, false>);
  RadialBlock block{};
  RadialPointers<T> rows;
  double* const to[] = {block.squares};
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    read_numbers(block.c, arguments.c, arguments.map, 0, first, count);
    for (int r = 0; r < count; ++r) {
      rows.x[r] = x + (first + r) * dim;
    }
    fill_up<1>(rows.x, count);
    sum_rows<1>(to, count, dim, far && first + step < end,
                [&](const auto& read, int r, Wide* sum) __attribute__((always_inline)) {
                  const Wide entries = read(rows.x[r], step * dim);
                  sum[0] += entries * entries;
                });
    values(block, guards, whole_vectors(count));
    for (int r = 0; r < count; ++r) {
      scale(y + (first + r) * dim, block.factor[r], rows.x[r], dim);
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
  const bool far = streams(end - begin, dim, sizeof(T));
  const bool shared = shares_number(arguments.map, 0);
  const auto gradients = guards.separate
                             ? (shared ? radial_gradients<Map, true, true> : radial_gradients<Map, false, true>)
                             : (shared ? radial_gradients<Map, true, false> : radial_gradients<Map, false, false>);
  RadialBlock block{};
  RadialPointers<T> rows;
  double* const to[] = {block.squares, block.inner};
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    read_numbers(block.c, arguments.c, arguments.map, 0, first, count);
    for (int r = 0; r < count; ++r) {
      rows.x[r] = x + (first + r) * dim;
      rows.grad[r] = grad + (first + r) * dim;
    }
    fill_up<2>(rows.x, count);
    fill_up<2>(rows.grad, count);
    sum_rows<2>(to, count, dim, far && first + step < end,
                [&](const auto& read, int r, Wide* sum) __attribute__((always_inline)) {
                  const Wide entries = read(rows.x[r], step * dim);
                  sum[0] += entries * entries;
                  sum[1] += entries * read(rows.grad[r], step * dim);
                });
    gradients(block, guards, whole_vectors(count));
    write_numbers(grad_c + first, block.curvature, count);
    for (int r = 0; r < count; ++r) {
      combine_two(grad_x + (first + r) * dim, block.factor[r], rows.grad[r], block.along[r], rows.x[r], dim);
    }
  }
}

}  // namespace STONE_NAMESPACE
