// mobius_add, forward and backward, over rows of any element type.
#pragma once

#include "kernels.h"
#include "rows.h"
#include "stone/mobius_add.h"

namespace STONE_NAMESPACE {

struct SumSquares {
  double xx;
  double yy;
  double ss;
};

// Squared norms of x, y and x + y.
template <class T>
inline SumSquares sum_squares(const T* x, const T* y, int64_t dim) {
  Wide xx{}, yy{}, ss{};
  for_wide(dim, [&](const auto& read) __attribute__((always_inline)) {
    const Wide a = read(x), b = read(y), s = a + b;
    xx += a * a;
    yy += b * b;
    ss += s * s;
  });
  return {sum_of(xx), sum_of(yy), sum_of(ss)};
}

struct MobiusSums {
  SumSquares squares;
  double gx;
  double gy;
};

template <class T>
inline MobiusSums mobius_sums(const T* x, const T* y, const T* grad, int64_t dim) {
  Wide xx{}, yy{}, ss{}, gx{}, gy{};
  for_wide(dim, [&](const auto& read) __attribute__((always_inline)) {
    const Wide a = read(x), b = read(y), g = read(grad), s = a + b;
    xx += a * a;
    yy += b * b;
    ss += s * s;
    gx += g * a;
    gy += g * b;
  });
  return {{sum_of(xx), sum_of(yy), sum_of(ss)}, sum_of(gx), sum_of(gy)};
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
STONE_FUNCTION void mobius_row(MobiusBlock& b, const MobiusGuards& guards, int r) {
  const MobiusFactors f = mobius_inside(b.xx[r], b.yy[r], b.ss[r], b.c[r], guards);
  b.of_sum[r] = f.of_sum;
  b.of_x[r] = f.of_x;
}

STONE_FUNCTION void mobius_gradient_row(MobiusBlock& b, const MobiusGuards& guards, int r) {
  const MobiusInsideGradient g =
      mobius_inside_gradient(b.xx[r], b.yy[r], b.ss[r], b.gx[r], b.gy[r], b.c[r], guards);
  b.x_of_grad[r] = g.x_of_grad;
  b.y_of_grad[r] = g.y_of_grad;
  b.x_of_x[r] = g.x_of_x;
  b.x_of_y[r] = g.x_of_y;
  b.y_of_x[r] = g.y_of_x;
  b.y_of_y[r] = g.y_of_y;
  b.curvature[r] = g.curvature;
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
void mobius_forward(const MobiusArguments& arguments, int64_t begin, int64_t end) {
  const int64_t dim = arguments.dim;
  const MobiusGuards guards = arguments.guards;
  const int64_t step = block_rows(dim, sizeof(T), 3);
  const bool far = streams(end - begin, dim, sizeof(T));
  const T* x[kBlock];
  const T* y[kBlock];
  MobiusBlock block{};
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    read_numbers(block.c, arguments.c, arguments.map, 2, first, count);
    for (int r = 0; r < count; ++r) {
      x[r] = static_cast<const T*>(arguments.x) + source_row(arguments.map, 0, first + r) * dim;
      y[r] = static_cast<const T*>(arguments.y) + source_row(arguments.map, 1, first + r) * dim;
      if (far) {
        fetch_ahead(x[r], dim);
        fetch_ahead(y[r], dim);
      }
      const SumSquares squares = sum_squares(x[r], y[r], dim);
      block.xx[r] = squares.xx;
      block.yy[r] = squares.yy;
      block.ss[r] = squares.ss;
    }
    const int padded = whole_vectors(count);
#pragma omp simd
    for (int r = 0; r < padded; ++r) {
      mobius_row(block, guards, r);
    }
    for (int r = 0; r < count; ++r) {
      combine_sum(static_cast<T*>(arguments.z) + (first + r) * dim, block.of_sum[r], block.of_x[r], x[r], y[r], dim);
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
  MobiusBlock block{};
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    read_numbers(block.c, arguments.c, arguments.map, 2, first, count);
    for (int r = 0; r < count; ++r) {
      const T* grad = static_cast<const T*>(arguments.grad) + (first + r) * dim;
      x[r] = static_cast<const T*>(arguments.x) + source_row(arguments.map, 0, first + r) * dim;
      y[r] = static_cast<const T*>(arguments.y) + source_row(arguments.map, 1, first + r) * dim;
      const MobiusSums sums = mobius_sums(x[r], y[r], grad, dim);
      block.xx[r] = sums.squares.xx;
      block.yy[r] = sums.squares.yy;
      block.ss[r] = sums.squares.ss;
      block.gx[r] = sums.gx;
      block.gy[r] = sums.gy;
    }
    const int padded = whole_vectors(count);
#pragma omp simd
    for (int r = 0; r < padded; ++r) {
      mobius_gradient_row(block, guards, r);
    }
    write_numbers(grad_c + first, block.curvature, count);
    for (int r = 0; r < count; ++r) {
      const int64_t at = (first + r) * dim;
      combine_pair(static_cast<T*>(arguments.z) + at, static_cast<T*>(arguments.grad_y) + at, block, r,
                   static_cast<const T*>(arguments.grad) + at, x[r], y[r], dim);
    }
  }
}

}  // namespace STONE_NAMESPACE
