// Pairs of points of the hyperboloid far from the origin, in distance matrices: where their images in the ball lie so
// near each other that nothing is left of their difference, the points themselves are taken apart.
#pragma once

#include "pairs/cdist_panel.h"
#include "rows/far_rows.h"
#include "stone/formulas/lorentz.h"

namespace STONE_NAMESPACE {

template <class T, class C>
inline bool any_far_pair(const C* squares, const Panel<C>& x, int i, const Panel<C>& y, double c) {
  int far = 0;
#pragma omp simd reduction(+ : far)
  for (int j = 0; j < kTile; ++j) {
    far += is_far_pair<T>(squares[j], x.weight[i] * y.weight[j], c);
  }
  return far > 0;
}

template <class T>
using FarPoints = FarRow<DifferenceAndInner, T, false>;

template <class T>
inline FarPoints<T> far_points(const T* x, const T* y, int64_t dim) {
  Wide sum[DifferenceAndInner::kMoments] = {};
  const RowPointers<T> pair{{x, y, nullptr}, nullptr};
  for_wide(dim, [&](const auto& read) __attribute__((always_inline)) {
    add_terms<DifferenceAndInner, false>(sum, read_entries<DifferenceAndInner, false>(pair, read));
  });
  double moments[DifferenceAndInner::kMoments];
  for (int m = 0; m < DifferenceAndInner::kMoments; ++m) {
    moments[m] = sum_of(sum[m]);
  }
  return FarPoints<T>(pair, moments, dim);
}

// The distances of point i of `x` to those of `y` that are far pairs, in place of what their images gave.
template <class T, class C>
[[gnu::noinline]] void far_distances(T* result, const C* squares, const Panel<C>& x, int i, const Panel<C>& y,
                                     int64_t dim, double c) {
  const double guard = 0.0;
  for (int j = 0; j < y.count; ++j) {
    if (is_far_pair<T>(squares[j], x.weight[i] * y.weight[j], c)) {
      const FarPoints<T> pair = far_points(x.template row<T>(i), y.template row<T>(j), dim);
      const FarValues values = FarDist::values(pair.sums, &c, &guard);
      result[j] = store<T>(static_cast<typename Compute<T>::type>(values.of[0]));
    }
  }
}

// Adds their gradients for point i to `sums`, takes `grad` of these pairs as 0 from here on, and returns their gradient
// for the curvature.
template <class T, class C>
[[gnu::noinline]] double far_gradients(double* sums, C* grad, const C* squares, const Panel<C>& x, int i,
                                       const Panel<C>& y, int64_t dim, double c) {
  const double guard = 0.0;
  double of_c = 0.0;
  for (int j = 0; j < y.count; ++j) {
    if (!is_far_pair<T>(squares[j], x.weight[i] * y.weight[j], c)) {
      continue;
    }
    const FarPoints<T> pair = far_points(x.template row<T>(i), y.template row<T>(j), dim);
    const double upstream = static_cast<double>(grad[j]);
    const FarGradients g = FarDist::gradients(pair.sums, upstream, &c, &guard);
    map_wide(dim, [&](const auto& read, const auto& write) __attribute__((always_inline)) {
      const Wide f = read(pair.far);
      write(sums, read(sums) + g.of[0][0] * f + g.of[0][1] * pair.across(0, read(pair.other[0]), f));
    });
    of_c += g.scalar[0];
    grad[j] = C(0);
  }
  return of_c;
}

}  // namespace STONE_NAMESPACE
