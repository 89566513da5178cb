// tanh and artanh in float64 without branches or calls, so that a loop over rows becomes vector code.
#pragma once

#include <cmath>

#include "stone/macros.h"

namespace STONE_NAMESPACE {

STONE_FUNCTION double from_bits(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

STONE_FUNCTION uint64_t to_bits(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

STONE_FUNCTION double not_a_number() { return from_bits(0x7ff8000000000000ULL); }
STONE_FUNCTION double infinity() { return from_bits(0x7ff0000000000000ULL); }

// 1.5 * 2^52: adding it rounds to an integer, which is then found in the low bits.
constexpr double kRound = 6755399441055744.0;
constexpr double kLog2 = 0.693147180559945309417;
constexpr double kLog2High = 6.93147180369123816490e-01;
constexpr double kLog2Low = 1.90821492927058770002e-10;

// exp(z) - 1 for 0 <= z <= 700, to 2 units in the last place.
STONE_FUNCTION double expm1_positive(double z) {
  const double shifted = z * 1.44269504088896340736 + kRound;
  const double k = shifted - kRound;
  const double r = (z - k * kLog2High) - k * kLog2Low;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r * r + r;
  const double power = from_bits((to_bits(shifted) + 1023) << 52);
  return power * p + (power - 1.0);
}

struct TanhAndSlope {
  double value;
  double slope;
};

// tanh(u) and 1 / cosh(u)^2 for u >= 0, the latter to full relative accuracy while tanh(u) < 1.
STONE_FUNCTION TanhAndSlope tanh_and_slope(double u) {
  const double bounded = u > 20.0 ? 20.0 : u;
  const double e = expm1_positive(2.0 * bounded);
  const double inverse = 1.0 / (e + 2.0);
  const double slope = 4.0 * (e + 1.0) * inverse * inverse;
  return {e * inverse, u > 20.0 ? 0.0 : slope};
}

// tanh(u) / u, or 1 at 0, and 1 / cosh(u)^2, for u >= 0 by one division.
STONE_FUNCTION TanhAndSlope tanh_over_and_slope(double u) {
  const double bounded = u > 20.0 ? 20.0 : u;
  const double e = expm1_positive(2.0 * bounded);
  const double shared = 1.0 / ((e + 2.0) * u);
  const double inverse = shared * u;
  const double slope = 4.0 * (e + 1.0) * inverse * inverse;
  return {u == 0.0 ? 1.0 : e * shared, u > 20.0 ? 0.0 : slope};
}

// tanh(u) / v for u >= 0 by one division: those and square roots are what formulas of rows wait for.
STONE_FUNCTION double tanh_over(double u, double v) {
  const double e = expm1_positive(2.0 * (u > 20.0 ? 20.0 : u));
  return e / ((e + 2.0) * v);
}

// Half a logarithm before its one division: half_log_of(whole number, w) with w = part / whole.
struct HalfLog {
  double exponent;
  double part;
  double whole;
};

// Of numerator / denominator, a quotient of at least 1; near 1 it is artanh(part / whole), where that is
// (numerator - denominator) / (numerator + denominator) before rounding.
STONE_FUNCTION HalfLog reduced_half_log(double numerator, double denominator, double part, double whole) {
  // The quotient is 2^k m with m in [2/3, 3/2]: half its log is k log(2) / 2 + artanh((m - 1) / (m + 1)). The
  // difference of two numbers' bits is that of their binary logarithms, to a tenth.
  const uint64_t k = (to_bits(numerator) - to_bits(denominator) + 0x0008000000000000ULL) >> 52;
  const double exponent = from_bits(k | 0x4330000000000000ULL) - 4503599627370496.0;
  const double scaled = denominator * from_bits((k + 1023) << 52);
  return {exponent, k == 0 ? part : numerator - scaled, k == 0 ? whole : numerator + scaled};
}

// exponent log(2) / 2 + artanh(w), |w| <= 1/5.
STONE_FUNCTION double half_log_of(double exponent, double w) {
  const double w2 = w * w;
  double p = 1.0 / 25.0;
  p = p * w2 + 1.0 / 23.0;
  p = p * w2 + 1.0 / 21.0;
  p = p * w2 + 1.0 / 19.0;
  p = p * w2 + 1.0 / 17.0;
  p = p * w2 + 1.0 / 15.0;
  p = p * w2 + 1.0 / 13.0;
  p = p * w2 + 1.0 / 11.0;
  p = p * w2 + 1.0 / 9.0;
  p = p * w2 + 1.0 / 7.0;
  p = p * w2 + 1.0 / 5.0;
  p = p * w2 + 1.0 / 3.0;
  return exponent * (0.5 * kLog2) + (w + w * w2 * p);
}

STONE_FUNCTION double half_log(double numerator, double denominator, double part, double whole) {
  const HalfLog h = reduced_half_log(numerator, denominator, part, whole);
  return half_log_of(h.exponent, h.part / h.whole);
}

// artanh(u) for u >= 0: infinite at 1, NaN beyond.
STONE_FUNCTION double artanh(double u) {
  const double value = half_log(1.0 + u, 1.0 - u, u, 1.0);
  return u < 1.0 ? value : (u == 1.0 ? infinity() : not_a_number());
}

// artanh(u) / v by one division, for u >= 0 and v > 0.
STONE_FUNCTION double artanh_over(double u, double v) {
  const HalfLog h = reduced_half_log(1.0 + u, 1.0 - u, u, 1.0);
  const double shared = 1.0 / (h.whole * v);
  const double value = half_log_of(h.exponent, h.part * (v * shared)) * (h.whole * shared);
  return u < 1.0 ? (v == infinity() ? 0.0 : value) : (u == 1.0 ? infinity() : not_a_number());
}

struct AsinhOfRoot {
  double value;
  double product;  // sqrt(n (n + d)): the derivatives are 1 / (2 product) for n and -n / (2 product d) for d
};

// asinh(sqrt(n / d)) for n >= 0, by one square root and one division: it is half the logarithm of
// (sqrt(n) + sqrt(n + d))^2 / d, and that square is d + 2 (n + sqrt(n (n + d))). Infinite where n / d is or is beyond
// 1e307; NaN for 0 / 0 and where d < 0.
STONE_FUNCTION AsinhOfRoot asinh_of_root(double n, double d) {
  const double root = sqrt(n * 0x1p400 * (n + d));  // n (n + d) alone might underflow
  const double product = n > 1e90 ? n + 0.5 * d : root * 0x1p-200;
  const double part = 2.0 * (n + product);
  const double value = half_log(d + part, d, part, 2.0 * d + part);
  return {d >= 0.0 ? (n > 1e307 * d ? infinity() : value) : not_a_number(), product};
}

// asinh(u) for u >= 0, square = u^2: log1p(t) with t = u + u^2 / (1 + sqrt(1 + u^2)), which does not cancel for small
// u. The square must not overflow.
STONE_FUNCTION double asinh_positive(double u, double square) {
  const double whole = 1.0 + sqrt(1.0 + square);
  const double part = u * (whole + u);
  return 2.0 * half_log(whole + part, whole, part, 2.0 * whole + part);
}

struct SinhAndCosh {
  double sinh;
  double cosh;
};

// For 0 <= u <= 700.
STONE_FUNCTION SinhAndCosh sinh_and_cosh(double u) {
  const double e = expm1_positive(u);
  const double small = e / (e + 1.0);
  return {0.5 * (e + small), 1.0 + 0.5 * e * small};
}

// sinh(u) / v, or 1 where v is 0, and cosh(u), by one division, for 0 <= u <= 700 and v >= u.
STONE_FUNCTION SinhAndCosh sinh_over_and_cosh(double u, double v) {
  const double e = expm1_positive(u);
  const double held = e < 1e17 ? e : 1e17;  // e / (e + 1) is 1 from there on, and (e + 1) v might overflow
  const double whole = held + 1.0;
  const double bounded = v < 1e280 ? v : 1e280;
  const double shared = 1.0 / (whole * bounded);
  const double part = held * (bounded * shared);
  const double small = v == 0.0 ? e : part;
  return {v == 0.0 ? 1.0 : 0.5 * (e + small) * (whole * shared), 1.0 + 0.5 * e * small};
}

}  // namespace STONE_NAMESPACE
