// Functions of a squared length, smooth at 0: f(w) with w = u^2 where the textbook divides f(u) by u. Each gives its
// value for a double, and value and derivative for a Dual.
#pragma once

#include "stone/dual.h"
#include "stone/expmap0.h"
#include "stone/logmap0.h"
#include "stone/trigonometric.h"

namespace STONE_NAMESPACE {

// Below this the derivative (g(w) - f(w)) / (2 w) cancels and its series is taken.
constexpr double kSeries = 0.0625;

STONE_FUNCTION double over(double numerator, double u) { return u == 0.0 ? 1.0 : numerator / u; }

// tanh(u) / u.
template <class S>
STONE_FUNCTION S tanhc(const S& w) {
  const double u = sqrt(value_of(w));
  const TanhAndSlope t = tanh_over_and_slope(u);
  const double difference = (t.slope - t.value) / (2.0 * value_of(w));
  const double series = 0.5 * Expmap0::derivative_series(value_of(w));
  return chain(w, t.value, value_of(w) < kSeries ? series : difference);
}

// asinh(u) / u. artanh(v) / v is sqrt(1 + w) times this at w = v^2 / (1 - v^2).
template <class S>
STONE_FUNCTION S asinhc(const S& w) {
  const double x = value_of(w);
  const double u = sqrt(x);
  const double value = over(asinh_positive(u, x), u);
  double p = 0.07736652374267578125;
  p = p * x - 0.080437784609587296196;
  p = p * x + 0.083903358096168154762;
  p = p * x - 0.087854485762746710526;
  p = p * x + 0.092414407169117647059;
  p = p * x - 0.09775390625;
  p = p * x + 0.10411658653846153846;
  p = p * x - 0.11186079545454545455;
  p = p * x + 0.12152777777777777778;
  p = p * x - 0.13392857142857142857;
  p = p * x + 0.15;
  p = p * x - 0.16666666666666666667;
  const double difference = (1.0 / sqrt(1.0 + x) - value) / (2.0 * x);
  return chain(w, value, x < kSeries ? p : difference);
}

// asinh(u): its derivative in w is infinite at 0 and given as 0 there.
template <class S>
STONE_FUNCTION S asinh_of_square(const S& w) {
  const AsinhOfRoot a = asinh_of_root(value_of(w), 1.0);
  return chain(w, a.value, a.product == 0.0 ? 0.0 : 0.5 / a.product);
}

// asinh(u) of u^2 = n / d, the quotient kept at `limit` or less.
template <class S>
STONE_FUNCTION S asinh_of_quotient(const S& n, const S& d, double limit) {
  const double x = value_of(n);
  const double y = value_of(d);
  const bool held = x > (limit < infinity() ? limit * y : infinity());
  const AsinhOfRoot a = asinh_of_root(held ? limit : x, held ? 1.0 : y);
  const double slope = 0.5 / (a.product * y);
  const bool passes = !held & (a.product > 0.0);
  return chain(n, d, a.value, passes ? y * slope : 0.0, passes ? -x * slope : 0.0);
}

template <class S>
struct OddAndEven {
  S odd;   // sinh(u) / u, sin(u) / u
  S even;  // cosh(u), cos(u)
};

// sinh(b) / u and cosh(b) with b = min(u, limit), for b up to 700.
template <class S>
STONE_FUNCTION OddAndEven<S> hyperbolic_pair(const S& w, double limit) {
  const double x = value_of(w);
  const double u = sqrt(x);
  const bool held = u > limit;
  const SinhAndCosh h = sinh_over_and_cosh(held ? limit : u, u);
  const double odd = h.sinh;
  double p = 2.2491658034764166106e-14;
  p = p * x + 5.3530146122738715331e-12;
  p = p * x + 9.6354263020929687596e-10;
  p = p * x + 1.2526054192720859388e-7;
  p = p * x + 0.000011022927689594356261;
  p = p * x + 0.0005952380952380952381;
  p = p * x + 0.016666666666666666667;
  p = p * x + 0.16666666666666666667;
  const double difference = ((held ? 0.0 : h.cosh) - odd) / (2.0 * x);
  return {chain(w, odd, (x < 0.5) & !held ? p : difference), chain(w, h.cosh, held ? 0.0 : 0.5 * odd)};
}

// For u up to 1e5.
template <class S>
STONE_FUNCTION OddAndEven<S> circular_pair(const S& w) {
  const double x = value_of(w);
  const double u = sqrt(x);
  const SinAndCos t = sin_and_cos(u);
  const double odd = over(t.sin, u);
  double p = 2.2491658034764166106e-14;
  p = p * x - 5.3530146122738715331e-12;
  p = p * x + 9.6354263020929687596e-10;
  p = p * x - 1.2526054192720859388e-7;
  p = p * x + 0.000011022927689594356261;
  p = p * x - 0.0005952380952380952381;
  p = p * x + 0.016666666666666666667;
  p = p * x - 0.16666666666666666667;
  const double slope = x < 0.5 ? p : (t.cos - odd) / (2.0 * x);
  return {chain(w, odd, slope), chain(w, t.cos, -0.5 * odd)};
}

// atan(u) / u.
template <class S>
STONE_FUNCTION S atanc(const S& w) {
  const double x = value_of(w);
  const double u = sqrt(x);
  const double value = over(angle_of(u, 1.0), u);
  const double series = -0.5 * Logmap0::derivative_series(-x);
  return chain(w, value, x < kSeries ? series : (1.0 / (1.0 + x) - value) / (2.0 * x));
}

// 1 / (1 + exp(-t)), to a rounding of 1.
template <class S>
STONE_FUNCTION S sigmoid(const S& t) {
  const double x = value_of(t);
  const TanhAndSlope h = tanh_and_slope(0.5 * (x < 0.0 ? -x : x));
  return chain(t, 0.5 + 0.5 * (x < 0.0 ? -h.value : h.value), 0.25 * h.slope);
}

// The angle of (sqrt(x2), sqrt(y2)), squares at least 0; its derivative is given as 0 where one of them is 0.
template <class S>
STONE_FUNCTION S angle_of_squares(const S& y2, const S& x2) {
  const double y = sqrt(value_of(y2));
  const double x = sqrt(value_of(x2));
  const double scale = 0.5 / (value_of(x2) + value_of(y2));
  return chain(y2, x2, angle_of(y, x), y == 0.0 ? 0.0 : scale * x / y, x == 0.0 ? 0.0 : -scale * y / x);
}

}  // namespace STONE_NAMESPACE
