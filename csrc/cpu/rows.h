// Loops over one row. Sums are float64 for every element type.
#pragma once

#include "stone/storage.h"

namespace STONE_NAMESPACE {

// Scalars of this many rows are worked out together, so that their formulas become vector code.
constexpr int kBlock = 32;

// Rows in a block: few enough that a block stays in the first-level cache between its two readings.
inline int64_t block_rows(int64_t dim, int64_t element_bytes, int64_t operands) {
  const int64_t fitting = 24576 / (dim * element_bytes * operands + 1);
  return fitting < 1 ? 1 : (fitting > kBlock ? kBlock : fitting);
}

template <class T>
inline double dot(const T* x, const T* y, int64_t dim) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < dim; ++i) {
    sum += static_cast<double>(load(x[i])) * static_cast<double>(load(y[i]));
  }
  return sum;
}

struct PairOfDots {
  double xx;
  double xy;
};

template <class T>
inline PairOfDots dot_two(const T* x, const T* y, int64_t dim) {
  double xx = 0.0;
  double xy = 0.0;
#pragma omp simd reduction(+ : xx, xy)
  for (int64_t i = 0; i < dim; ++i) {
    const double a = static_cast<double>(load(x[i]));
    xx += a * a;
    xy += a * static_cast<double>(load(y[i]));
  }
  return {xx, xy};
}

struct SumSquares {
  double xx;
  double yy;
  double ss;
};

// Squared norms of x, y and x + y.
template <class T>
inline SumSquares sum_squares(const T* x, const T* y, int64_t dim) {
  double xx = 0.0;
  double yy = 0.0;
  double ss = 0.0;
#pragma omp simd reduction(+ : xx, yy, ss)
  for (int64_t i = 0; i < dim; ++i) {
    const double a = static_cast<double>(load(x[i]));
    const double b = static_cast<double>(load(y[i]));
    const double s = a + b;
    xx += a * a;
    yy += b * b;
    ss += s * s;
  }
  return {xx, yy, ss};
}

template <class T>
inline void scale(T* y, double factor, const T* x, int64_t dim) {
  using C = typename Compute<T>::type;
  const C f = static_cast<C>(factor);
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) {
    y[i] = store<T>(f * load(x[i]));
  }
}

template <class T>
inline void combine_two(T* z, double of_x, const T* x, double of_y, const T* y, int64_t dim) {
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) {
    const double value = of_x * static_cast<double>(load(x[i])) + of_y * static_cast<double>(load(y[i]));
    z[i] = store<T>(static_cast<typename Compute<T>::type>(value));
  }
}

template <class T, class U>
inline double dot_mixed(const T* x, const U* y, int64_t dim) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < dim; ++i) {
    sum += static_cast<double>(load(x[i])) * static_cast<double>(load(y[i]));
  }
  return sum;
}

// z += factor * x, z of the type that x is computed in.
template <class T>
inline void add_scaled(typename Compute<T>::type* z, double factor, const T* x, int64_t dim) {
  using C = typename Compute<T>::type;
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) {
    z[i] = static_cast<C>(static_cast<double>(z[i]) + factor * static_cast<double>(load(x[i])));
  }
}

// z = of_sum * (x + y) + of_x * x.
template <class T>
inline void combine_sum(T* z, double of_sum, double of_x, const T* x, const T* y, int64_t dim) {
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) {
    const double a = static_cast<double>(load(x[i]));
    const double value = of_sum * (a + static_cast<double>(load(y[i]))) + of_x * a;
    z[i] = store<T>(static_cast<typename Compute<T>::type>(value));
  }
}

}  // namespace STONE_NAMESPACE
