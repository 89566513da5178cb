// mobius_add, forward and backward, over rows of any element type.
#pragma once

#include "kernels.h"
#include "rows/row_sums.h"
#include "rows/rows.h"
#include "stone/mobius_add.h"

namespace STONE_NAMESPACE {

// The rows of a block and, where they are read, those of the gradient.
template <class T>
struct MobiusPointers {
  const T* x[kBlock];
  const T* y[kBlock];
  const T* grad[kBlock];
};

// Adds the terms of the squared norms of x, y and x + y.
STONE_FUNCTION void add_squares(Wide* sum, Wide x, Wide y) {
  const Wide s = x + y;
  sum[0] += x * x;
  sum[1] += y * y;
  sum[2] += s * s;
}

// z = of_sum * (x + y) + of_x * x.
template <class T>
inline void combine_sum(T* z, double of_sum, double of_x, const T* x, const T* y, int64_t dim) {
  map_wide(dim, [&](const auto& read, const auto& write) __attribute__((always_inline)) {
    const Wide a = read(x);
    write(z, of_sum * (a + read(y)) + of_x * a);
  });
}

struct MobiusBlock {
  double xx[kBlock], yy[kBlock], ss[kBlock], c[kBlock];
  double gx[kBlock], gy[kBlock];
  double of_sum[kBlock], of_x[kBlock];
  double x_of_grad[kBlock], y_of_grad[kBlock];
  double x_of_x[kBlock], x_of_y[kBlock], y_of_x[kBlock], y_of_y[kBlock];
  double curvature[kBlock];
};

// Not part of the loops over rows, whose own variables would keep them from becoming vector code.
STONE_FUNCTION void mobius_row(MobiusBlock& b, const MobiusGuards& guards, double c, int r) {
  const MobiusFactors f = mobius_inside(b.xx[r], b.yy[r], b.ss[r], c, guards);
  b.of_sum[r] = f.of_sum;
  b.of_x[r] = f.of_x;
}

STONE_FUNCTION void mobius_gradient_row(MobiusBlock& b, const MobiusGuards& guards, double c, int r) {
  const MobiusInsideGradient g = mobius_inside_gradient(b.xx[r], b.yy[r], b.ss[r], b.gx[r], b.gy[r], c, guards);
  b.x_of_grad[r] = g.x_of_grad;
  b.y_of_grad[r] = g.y_of_grad;
  b.x_of_x[r] = g.x_of_x;
  b.x_of_y[r] = g.x_of_y;
  b.y_of_x[r] = g.y_of_x;
  b.y_of_y[r] = g.y_of_y;
  b.curvature[r] = g.curvature;
}

// With `shared` all rows have the curvature of the first.
template <bool shared>
inline void mobius_values(MobiusBlock& block, const MobiusGuards& guards, int padded) {
  const double c = block.c[0];
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    mobius_row(block, guards, shared ? c : block.c[r], r);
  }
}

template <bool shared>
inline void mobius_gradients(MobiusBlock& block, const MobiusGuards& guards, int padded) {
  const double c = block.c[0];
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    mobius_gradient_row(block, guards, shared ? c : block.c[r], r);
  }
}

template <class T>
inline void combine_pair(T* grad_x, T* grad_y, const MobiusBlock& b, int r, const T* grad, const T* x, const T* y,
                         int64_t dim) {
  using C = typename Compute<T>::type;
  const C x_of_grad = static_cast<C>(b.x_of_grad[r]), y_of_grad = static_cast<C>(b.y_of_grad[r]);
  const C x_of_x = static_cast<C>(b.x_of_x[r]), x_of_y = static_cast<C>(b.x_of_y[r]);
  const C y_of_x = static_cast<C>(b.y_of_x[r]), y_of_y = static_cast<C>(b.y_of_y[r]);
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) {
    const C p = load(x[i]), q = load(y[i]), g = load(grad[i]);
    grad_x[i] = store<T>(x_of_grad * g + x_of_x * p + x_of_y * q);
    grad_y[i] = store<T>(y_of_grad * g + y_of_x * p + y_of_y * q);
  }
}

template <class T>
inline void find_pair(MobiusPointers<T>& rows, const MobiusArguments& arguments, int64_t first, int count) {
  const int64_t dim = arguments.dim;
  find_operand(rows.x, static_cast<const T*>(arguments.x), arguments.map, 0, dim, first, count);
  find_operand(rows.y, static_cast<const T*>(arguments.y), arguments.map, 1, dim, first, count);
}

template <class T>
void mobius_forward(const MobiusArguments& arguments, int64_t begin, int64_t end) {
  const int64_t dim = arguments.dim;
  const MobiusGuards guards = arguments.guards;
  const int64_t step = block_rows(dim, sizeof(T), 3);
  const bool far = streams(end - begin, dim, sizeof(T));
  const int64_t x_ahead = next_block(arguments.map, 0, dim, step);
  const int64_t y_ahead = next_block(arguments.map, 1, dim, step);
  const auto values = shares_number(arguments.map, 2) ? mobius_values<true> : mobius_values<false>;
  MobiusPointers<T> rows;
  MobiusBlock block{};
  double* const to[] = {block.xx, block.yy, block.ss};
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    read_numbers(block.c, arguments.c, arguments.map, 2, first, count);
    find_pair(rows, arguments, first, count);
    fill_up<3>(rows.x, count);
    fill_up<3>(rows.y, count);
    sum_rows<3>(to, count, dim, far && first + step < end,
                [&](const auto& read, int r, Wide* sum) __attribute__((always_inline)) {
                  add_squares(sum, read(rows.x[r], x_ahead), read(rows.y[r], y_ahead));
                });
    values(block, guards, whole_vectors(count));
    for (int r = 0; r < count; ++r) {
      combine_sum(static_cast<T*>(arguments.z) + (first + r) * dim, block.of_sum[r], block.of_x[r], rows.x[r],
                  rows.y[r], dim);
    }
  }
}

template <class T>
void mobius_backward(const MobiusArguments& arguments, int64_t begin, int64_t end) {
  const int64_t dim = arguments.dim;
  const MobiusGuards guards = arguments.guards;
  const int64_t step = block_rows(dim, sizeof(T), 5);
  const bool far = streams(end - begin, dim, sizeof(T));
  const int64_t x_ahead = next_block(arguments.map, 0, dim, step);
  const int64_t y_ahead = next_block(arguments.map, 1, dim, step);
  auto* grad_c = static_cast<typename Compute<T>::type*>(arguments.grad_c);
  const auto gradients = shares_number(arguments.map, 2) ? mobius_gradients<true> : mobius_gradients<false>;
  MobiusPointers<T> rows;
  MobiusBlock block{};
  double* const to[] = {block.xx, block.yy, block.ss, block.gx, block.gy};
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    read_numbers(block.c, arguments.c, arguments.map, 2, first, count);
    find_pair(rows, arguments, first, count);
    for (int r = 0; r < count; ++r) {
      rows.grad[r] = static_cast<const T*>(arguments.grad) + (first + r) * dim;
    }
    fill_up<5>(rows.x, count);
    fill_up<5>(rows.y, count);
    fill_up<5>(rows.grad, count);
    sum_rows<5>(to, count, dim, far && first + step < end,
                [&](const auto& read, int r, Wide* sum) __attribute__((always_inline)) {
                  const Wide x = read(rows.x[r], x_ahead), y = read(rows.y[r], y_ahead);
                  const Wide grad = read(rows.grad[r], step * dim);
                  add_squares(sum, x, y);
                  sum[3] += grad * x;
                  sum[4] += grad * y;
                });
    gradients(block, guards, whole_vectors(count));
    write_numbers(grad_c + first, block.curvature, count);
    for (int r = 0; r < count; ++r) {
      const int64_t at = (first + r) * dim;
      combine_pair(static_cast<T*>(arguments.z) + at, static_cast<T*>(arguments.grad_y) + at, block, r, rows.grad[r],
                   rows.x[r], rows.y[r], dim);
    }
  }
}

}  // namespace STONE_NAMESPACE
