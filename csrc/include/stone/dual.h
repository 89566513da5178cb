// Numbers with their partial derivatives: a formula written once over `S` gives values for S = double, and exact
// gradients for S = Dual<N>, N the quantities that it depends on.
#pragma once

#include <cmath>

#include "stone/macros.h"

namespace STONE_NAMESPACE {

constexpr double kRounding = 1.1102230246251565e-16;  // of one operation, relative

template <int N>
struct Dual {
  double value;
  double slope[N];
};

STONE_FUNCTION double value_of(double a) { return a; }
template <int N>
STONE_FUNCTION double value_of(const Dual<N>& a) {
  return a.value;
}

// f(a) of value `value` and derivative `derivative`.
STONE_FUNCTION double chain(double /*a*/, double value, double /*derivative*/) { return value; }
template <int N>
STONE_FUNCTION Dual<N> chain(const Dual<N>& a, double value, double derivative) {
  Dual<N> r;
  r.value = value;
  STONE_UNROLL
  for (int i = 0; i < N; ++i) {
    r.slope[i] = derivative * a.slope[i];
  }
  return r;
}

// f(a, b) of value `value` and derivatives `of_a`, `of_b`.
STONE_FUNCTION double chain(double /*a*/, double /*b*/, double value, double /*of_a*/, double /*of_b*/) {
  return value;
}
template <int N>
STONE_FUNCTION Dual<N> chain(const Dual<N>& a, const Dual<N>& b, double value, double of_a, double of_b) {
  Dual<N> r;
  r.value = value;
  STONE_UNROLL
  for (int i = 0; i < N; ++i) {
    r.slope[i] = of_a * a.slope[i] + of_b * b.slope[i];
  }
  return r;
}

template <int N>
STONE_FUNCTION Dual<N> operator+(const Dual<N>& a, const Dual<N>& b) {
  return chain(a, b, a.value + b.value, 1.0, 1.0);
}
template <int N>
STONE_FUNCTION Dual<N> operator-(const Dual<N>& a, const Dual<N>& b) {
  return chain(a, b, a.value - b.value, 1.0, -1.0);
}
template <int N>
STONE_FUNCTION Dual<N> operator*(const Dual<N>& a, const Dual<N>& b) {
  return chain(a, b, a.value * b.value, b.value, a.value);
}
template <int N>
STONE_FUNCTION Dual<N> operator/(const Dual<N>& a, const Dual<N>& b) {
  const double inverse = 1.0 / b.value;
  const double quotient = a.value * inverse;
  return chain(a, b, quotient, inverse, -quotient * inverse);
}

template <int N>
STONE_FUNCTION Dual<N> operator+(const Dual<N>& a, double b) {
  return chain(a, a.value + b, 1.0);
}
template <int N>
STONE_FUNCTION Dual<N> operator+(double a, const Dual<N>& b) {
  return b + a;
}
template <int N>
STONE_FUNCTION Dual<N> operator-(const Dual<N>& a, double b) {
  return chain(a, a.value - b, 1.0);
}
template <int N>
STONE_FUNCTION Dual<N> operator-(double a, const Dual<N>& b) {
  return chain(b, a - b.value, -1.0);
}
template <int N>
STONE_FUNCTION Dual<N> operator-(const Dual<N>& a) {
  return chain(a, -a.value, -1.0);
}
template <int N>
STONE_FUNCTION Dual<N> operator*(const Dual<N>& a, double b) {
  return chain(a, a.value * b, b);
}
template <int N>
STONE_FUNCTION Dual<N> operator*(double a, const Dual<N>& b) {
  return b * a;
}
template <int N>
STONE_FUNCTION Dual<N> operator/(const Dual<N>& a, double b) {
  return a * (1.0 / b);
}
template <int N>
STONE_FUNCTION Dual<N> operator/(double a, const Dual<N>& b) {
  const double inverse = 1.0 / b.value;
  return chain(b, a * inverse, -a * inverse * inverse);
}

// The derivative at 0 is 0: where a square root of a square stands for a norm, its subgradient at the kink.
STONE_FUNCTION double root(double a) { return sqrt(a); }
template <int N>
STONE_FUNCTION Dual<N> root(const Dual<N>& a) {
  const double value = sqrt(a.value);
  return chain(a, value, value == 0.0 ? 0.0 : 0.5 / value);
}

STONE_FUNCTION double choose(bool first, double a, double b) { return first ? a : b; }
template <int N>
STONE_FUNCTION Dual<N> choose(bool first, const Dual<N>& a, const Dual<N>& b) {
  Dual<N> r;
  r.value = first ? a.value : b.value;
  STONE_UNROLL
  for (int i = 0; i < N; ++i) {
    r.slope[i] = first ? a.slope[i] : b.slope[i];
  }
  return r;
}

// A bound: no gradient passes where it holds, as autograd has it for clamp.
template <class S>
STONE_FUNCTION S at_least(const S& a, double bound) {
  const bool holds = value_of(a) < bound;
  return choose(holds, chain(a, bound, 0.0), a);
}
template <class S>
STONE_FUNCTION S at_most(const S& a, double bound) {
  const bool holds = value_of(a) > bound;
  return choose(holds, chain(a, bound, 0.0), a);
}

template <class S>
STONE_FUNCTION S square(const S& a) {
  return a * a;
}

}  // namespace STONE_NAMESPACE
