// point_of_distances, forward and backward, over rows of any element type. All is computed in float64.
#pragma once

#include "machine/by_element.h"
#include "rows/rows.h"
#include "stone/arguments.h"
#include "stone/point_of_distances.h"

namespace STONE_NAMESPACE {

// Entries of a row whose sinh is kept; beyond them it is computed again where it is needed.
constexpr int64_t kKeptEntries = 1024;

template <class T>
inline double largest_entry(const T* v, int64_t dim) {
  double largest = 0.0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < dim; ++i) {
    const double entry = static_cast<double>(load(v[i]));
    const double size = entry < 0.0 ? -entry : entry;
    largest = size > largest ? size : largest;
  }
  return largest;
}

// The shifted sinh of `count` entries.
template <class T>
inline void fill_sinh(double* sinh, const T* v, int64_t count, double root, double shift) {
  if (shift > 0.0) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      sinh[i] = shifted_sinh<true>(root * static_cast<double>(load(v[i])), shift);
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      sinh[i] = shifted_sinh<false>(root * static_cast<double>(load(v[i])), 0.0);
    }
  }
}

// Calls `work(sinh, first, count)` for the pieces of a row.
template <class T, class Work>
inline void over_sinh(double* kept, const T* v, int64_t dim, double root, double shift, bool filled, const Work& work) {
  for (int64_t first = 0; first < dim; first += kKeptEntries) {
    const int64_t count = dim - first < kKeptEntries ? dim - first : kKeptEntries;
    if (!filled || dim > kKeptEntries) {
      fill_sinh(kept, v + first, count, root, shift);
    }
    work(first, count);
  }
}

template <class T>
inline void point_forward(const RowArguments& a, int64_t begin, int64_t end) {
  const int64_t dim = a.width[0];
  double sinh[kKeptEntries];
  for (int64_t row = begin; row < end; ++row) {
    const T* v = static_cast<const T*>(a.vector[0]) + source_row(a.map, 0, row) * dim;
    T* y = static_cast<T*>(a.result) + row * dim;
    const double c = curvature_at(a.scalar[0], source_row(a.map, 1, row));
    const double root = sqrt(c), shift = shift_of(root * largest_entry(v, dim));
    double sum = 0.0;
    over_sinh(sinh, v, dim, root, shift, false, [&](int64_t, int64_t count) { sum += dot(sinh, sinh, count); });
    const PointRow p = point_row(sum, shift, c, a.guard[0]);
    const double factor = p.shrink * p.inverse / p.root;
    over_sinh(sinh, v, dim, root, shift, true, [&](int64_t first, int64_t count) {
      map_wide(count, [&](const auto& read, const auto& write) __attribute__((always_inline)) {
        write(y + first, factor * read(sinh));
      });
    });
  }
}

template <class T>
inline void point_backward(const RowArguments& a, int64_t begin, int64_t end) {
  using C = typename Compute<T>::type;
  const int64_t dim = a.width[0];
  double sinh[kKeptEntries];
  for (int64_t row = begin; row < end; ++row) {
    const T* v = static_cast<const T*>(a.vector[0]) + source_row(a.map, 0, row) * dim;
    const T* grad = static_cast<const T*>(a.grad) + row * dim;
    T* grad_v = static_cast<T*>(a.grad_vector[0]) + row * dim;
    const double c = curvature_at(a.scalar[0], source_row(a.map, 1, row));
    const double root = sqrt(c), shift = shift_of(root * largest_entry(v, dim));
    double sum = 0.0, inner = 0.0;
    over_sinh(sinh, v, dim, root, shift, false, [&](int64_t first, int64_t count) {
      sum += dot(sinh, sinh, count);
      inner += dot(sinh, grad + first, count);
    });
    const PointRow p = point_row(sum, shift, c, a.guard[0]);
    inner *= p.inverse;
    const PointGradient g = point_gradient(p, inner);
    double of_v = 0.0;
    over_sinh(sinh, v, dim, root, shift, true, [&](int64_t first, int64_t count) {
#pragma omp simd reduction(+ : of_v)
      for (int64_t i = 0; i < count; ++i) {
        const double entry = p.inverse * sinh[i];
        const double along = g.of_grad * static_cast<double>(load(grad[first + i])) + g.of_a * entry;
        const double value = sqrt(p.whole * p.whole + entry * entry) * along;
        of_v += value * static_cast<double>(load(v[first + i]));
        grad_v[first + i] = store<T>(static_cast<C>(value));
      }
    });
    static_cast<C*>(a.grad_scalar[0])[row] = static_cast<C>(point_gradient_of_curvature(p, g, inner, of_v, c));
  }
}

}  // namespace STONE_NAMESPACE
