// The point of the hyperboloid -t^2 + ||s||^2 = -1 / c over the space part s: t = sqrt(||s||^2 + 1 / c).
#pragma once

#include <cmath>

#include "stone/macros.h"

namespace STONE_NAMESPACE {

STONE_FUNCTION double time_of(double squares, double c) { return sqrt(squares + 1.0 / c); }

// grad_s = grad_space + along * s, grad_c = curvature.
struct TimeGradient {
  double along;
  double curvature;
};

STONE_FUNCTION TimeGradient time_gradient(double squares, double grad_time, double c) {
  const double along = grad_time / time_of(squares, c);
  return {along, -0.5 * along / (c * c)};
}

}  // namespace STONE_NAMESPACE
