// Moebius scalar multiplication, tanh(r artanh(u)) / u, with two square roots and two divisions a row: those are what
// its loop waits for. The composition of functions of analytic.h takes thirteen of them.
#pragma once

#include "stone/row_formula.h"

namespace STONE_NAMESPACE {

struct StretchLimits {
  double squares;  // u^2 is kept at this or more
  double atanh;    // u is kept at this or less, if it is below 1
  double tanh;     // of r artanh(u)
  double radius;   // of the result
};

// `length` is the square before it is kept at limits.squares, `squares` after. `gap` stands for 1 - u^2 and may be held
// above it: artanh(u) is then the asinh of sqrt(squares / gap), times sqrt(squares + gap).
template <class S>
STONE_FUNCTION S tanh_of_multiple_over(const S& r, const S& length, const S& squares, const S& gap,
                                       const StretchLimits& limits) {
  const double x = value_of(squares);
  const double g = value_of(gap);
  const double times = value_of(r);
  const double size = times < 0.0 ? -times : times;
  const bool held = held_below(limits.atanh, x);
  const double own = sqrt(value_of(length));
  const double least = sqrt(limits.squares);  // once for all rows that share a curvature
  const double u = value_of(length) < limits.squares ? least : own;
  const double whole = sqrt(x + g);
  const double first = held ? limits.atanh : u;
  const double second = held ? 1.0 : whole;
  const double between = held ? (1.0 - limits.atanh) * (1.0 + limits.atanh) : g;
  const double sum = first + second;
  const double angle = half_log(sum * sum, between, first, second) * second;
  const double product = size * angle;
  const double bounded = product > limits.tanh ? limits.tanh : product;
  const double e = expm1_positive(2.0 * (bounded > 20.0 ? 20.0 : bounded));
  const double over_tanh = (e + 2.0) * u;
  const bool exceeds = e * own > limits.radius * over_tanh;
  const double ratio = (exceeds ? limits.radius : e) / (exceeds ? own : over_tanh);
  const double value = u == 0.0 ? times : (times < 0.0 ? -ratio : ratio);

  // With a = artanh(u) / u, a function of the odds, and T(z) = tanh(sqrt(z)) / sqrt(z), this is r a T(r^2 a^2 u^2).
  const bool clamped = (product > limits.tanh) | exceeds;
  const double inverse = 1.0 / (e + 2.0);
  const double slope = (clamped | (product > 20.0)) ? 0.0 : 4.0 * (e + 1.0) * inverse * inverse;
  const double a = u == 0.0 ? 1.0 : angle / u;
  const double part = g / (x + g);  // 1 / (1 + odds)
  const double a_series = 0.5 * Logmap0::derivative_series(1.0 - part) * part * part;
  const double a_difference = (1.0 - a * part) * g / (2.0 * x);
  const double of_odds = x < kSeries * g ? a_series : a_difference;
  const double once = times * a;
  const double z = product * product;
  const double series = 0.5 * Expmap0::derivative_series(z) * once * once * once;
  const double difference = ((held ? 0.0 : slope * once) - value) / (2.0 * (exceeds ? value_of(length) : x));
  const double outer = (z < kSeries) & !clamped & !held ? series : difference;
  const double inner = slope * times * of_odds / g;
  const S square = choose(exceeds, length, squares);
  return chain(square, r, value, outer + (held ? 0.0 : inner), slope * a) +
         chain(gap, 0.0, held ? 0.0 : -inner * x / g);
}

}  // namespace STONE_NAMESPACE
