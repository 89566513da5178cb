// sin, cos and the angle of two lengths in float64, without branches or calls.
#pragma once

#include "stone/scalar.h"

namespace STONE_NAMESPACE {

struct SinAndCos {
  double sin;
  double cos;
};

// For 0 <= u <= 1e5: u is reduced by multiples of pi / 2 that are exact in three parts.
STONE_FUNCTION SinAndCos sin_and_cos(double u) {
  const double shifted = u * 0.63661977236758134308 + kRound;
  const double k = shifted - kRound;
  double r = u - k * 1.57079632673412561417e+00;
  r = r - k * 6.07710050630396597660e-11;
  r = r - k * 2.02226624879595063154e-21;
  const double r2 = r * r;
  double s = 1.0 / 355687428096000.0;
  s = s * r2 - 1.0 / 1307674368000.0;
  s = s * r2 + 1.0 / 6227020800.0;
  s = s * r2 - 1.0 / 39916800.0;
  s = s * r2 + 1.0 / 362880.0;
  s = s * r2 - 1.0 / 5040.0;
  s = s * r2 + 1.0 / 120.0;
  s = s * r2 - 1.0 / 6.0;
  s = s * r2 * r + r;
  double c = 1.0 / 20922789888000.0;
  c = c * r2 - 1.0 / 87178291200.0;
  c = c * r2 + 1.0 / 479001600.0;
  c = c * r2 - 1.0 / 3628800.0;
  c = c * r2 + 1.0 / 40320.0;
  c = c * r2 - 1.0 / 720.0;
  c = c * r2 + 1.0 / 24.0;
  c = c * r2 * r2 + (1.0 - 0.5 * r2);
  const uint64_t quarter = to_bits(shifted);
  const bool odd = (quarter & 1u) != 0;
  const double sine = odd ? c : s;
  const double cosine = odd ? s : c;
  return {(quarter & 2u) != 0 ? -sine : sine, ((quarter + 1u) & 2u) != 0 ? -cosine : cosine};
}

// The angle in [0, pi / 2] of the point (x, y), both coordinates at least 0; 0 at the origin.
STONE_FUNCTION double angle_of(double y, double x) {
  const bool steep = y > x;
  const double low = steep ? x : y;
  const double high = steep ? y : x;
  // above tan(pi / 8) the angle from the diagonal is taken
  const bool wide = low > 0.41421356237309504880 * high;
  const double numerator = wide ? low - high : low;
  const double denominator = wide ? low + high : high;
  // At the origin both are 0; NaN is neither more than 0 nor 0.
  const double q = denominator == 0.0 ? numerator : numerator / denominator;
  const double q2 = q * q;
  double p = 1.0 / 41.0;
  p = 1.0 / 39.0 - p * q2;
  p = 1.0 / 37.0 - p * q2;
  p = 1.0 / 35.0 - p * q2;
  p = 1.0 / 33.0 - p * q2;
  p = 1.0 / 31.0 - p * q2;
  p = 1.0 / 29.0 - p * q2;
  p = 1.0 / 27.0 - p * q2;
  p = 1.0 / 25.0 - p * q2;
  p = 1.0 / 23.0 - p * q2;
  p = 1.0 / 21.0 - p * q2;
  p = 1.0 / 19.0 - p * q2;
  p = 1.0 / 17.0 - p * q2;
  p = 1.0 / 15.0 - p * q2;
  p = 1.0 / 13.0 - p * q2;
  p = 1.0 / 11.0 - p * q2;
  p = 1.0 / 9.0 - p * q2;
  p = 1.0 / 7.0 - p * q2;
  p = 1.0 / 5.0 - p * q2;
  p = 1.0 / 3.0 - p * q2;
  const double angle = (wide ? 0.78539816339744830962 : 0.0) + (q - q * q2 * p);
  return steep ? 1.57079632679489661923 - angle : angle;
}

}  // namespace STONE_NAMESPACE
