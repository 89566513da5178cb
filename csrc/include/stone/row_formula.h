// What a row formula states about itself, and the few terms that formulas share.
//
// A formula is a struct with
//   Layout                               from stone/row_layout.h
//   kInfo                                its name, operands and guards, as the operator's schema has them
//   of(moments, scalars, guards)         its coefficients, for S = double and S = Dual
// and, where it reads the time components of x, or of x and y, themselves, kTimes = 1 or 2: they follow the moments.
//
// The moments of points far from the origin cancel. A formula that minds also has
//   reach(moments, scalars)              how far: the relative error of `of` grows with its square root
//   Far                                  its values and gradients where that is large, from the sums of far_rows.h
#pragma once

#include "stone/analytic.h"
#include "stone/row_layout.h"
#include "stone/types.h"

namespace STONE_NAMESPACE {

// The product of the times of two points, times c, up to which an element type has its digits from the moments alone.
template <class T>
constexpr double kNearTimes = 4194304.0;  // 2^22: errors up to 2^-27
template <>
inline constexpr double kNearTimes<double> = 4.0;

// The reach is the square of that product; and times a number that keeps it from overflowing.
constexpr double kReachScale = 1e-150;
constexpr double kLargestReach = 1e307;
STONE_FUNCTION double reach_of(double c, double xx, double yy) {
  return ((1.0 + c * xx) * kReachScale) * ((1.0 + c * yy) * kReachScale);
}

// Infinite and NaN entries are not far.
STONE_FUNCTION bool is_far(double reach, double near_times) {
  const double near = near_times * kReachScale;
  return (reach > near * near) & (reach <= kLargestReach);
}

// sqrt(c) times the time component of the point of the hyperboloid over x, from c ||x||^2.
template <class S>
STONE_FUNCTION S time_over(const S& scaled_square) {
  return root(1.0 + scaled_square);
}

// artanh(u) / u from u^2 / (1 - u^2).
template <class S>
STONE_FUNCTION S artanhc_of_odds(const S& odds) {
  return asinhc(odds) * root(1.0 + odds);
}

// limit / u where u exceeds it, u given as its square; else 1.
template <class S>
STONE_FUNCTION S shrink_to(double limit, const S& square_of_u) {
  const bool holds = value_of(square_of_u) > limit * limit;
  return choose(holds, limit / root(square_of_u), chain(square_of_u, 1.0, 0.0));
}

// u^2 / (1 - u^2) at u = limit.
STONE_FUNCTION double odds_at(double limit) {
  return limit < 1.0 ? limit * limit / ((1.0 - limit) * (1.0 + limit)) : infinity();
}

// Whether the argument u of artanh is held at `limit`, u given as its square.
STONE_FUNCTION bool held_below(double limit, double square_of_u) {
  return (limit < 1.0) & (square_of_u > limit * limit);
}

// sinh(t d) / sinh(d) for d^2 = `square`.
template <class S>
STONE_FUNCTION S share_of_arc(const S& t, const S& square_of_d) {
  const S part = at_most(t * t * square_of_d, 490000.0);
  return t * hyperbolic_pair(part, infinity()).odd / hyperbolic_pair(at_most(square_of_d, 490000.0), infinity()).odd;
}

}  // namespace STONE_NAMESPACE
