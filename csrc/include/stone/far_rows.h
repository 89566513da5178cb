// Rows of the hyperboloid far from the origin, where inner products of points hold nothing of their distance.
//
// All rows are taken apart along the farther point f of two and across it: a = <f, a> / ||f||^2 f + a_across. The part
// across is formed entry by entry from the products a_i f_m - a_m f_i, m the largest entry of f, without the rounding
// of the products: it keeps its digits however nearly a and f are of one direction. In the plane of time and f, a point
// has the coordinates
//   ahead = time + along,  behind = time - along,  ahead * behind = 1 + ||across||^2,
// and moving the origin to another point of the ray multiplies the first and divides the second by one number. So
// everything is a sum of few such products, of one sign wherever its value is not itself a small difference.
//
// Lengths, times and coordinates are meant times sqrt(c) here.
#pragma once

#include "stone/row_formula.h"

namespace STONE_NAMESPACE {

// The rows beside f: the nearer point or the tangent vector of an exponential map, a vector to carry, a gradient.
constexpr int kMaxOthers = 3;

// What is summed over the entries; not yet times c.
struct FarSums {
  bool second;                // whether f is y, and not x
  double far_squares;         // ||f||^2
  double near_squares;        // ||n||^2 of the nearer point n
  double excess;              // the first less the second, from the differences of entries
  double along[kMaxOthers];   // <f, a> of the others
  double across[kMaxOthers];  // <a_0, a> of their parts across f
};

// Layouts of two points have their difference; the others a point and a tangent vector there.
template <class Layout>
constexpr bool kTwoPoints = requires { Layout::kXB; } && Layout::kOfX < 0.0;

// What the moments of a row tell of its points.
template <class Layout>
STONE_FUNCTION FarSums begin_far(const double* moment) {
  FarSums sums{};
  sums.far_squares = moment[Layout::kXX];
  if constexpr (kTwoPoints<Layout>) {
    const double excess = 2.0 * moment[Layout::kXB] + moment[Layout::kBB];
    sums.second = excess > 0.0;
    sums.far_squares = moment[sums.second ? Layout::kYY : Layout::kXX];
    sums.near_squares = moment[sums.second ? Layout::kXX : Layout::kYY];
    sums.excess = sums.second ? excess : -excess;
  }
  return sums;
}

// The result along f and along the parts across f of the others, then its time; or the number, of[0].
struct FarValues {
  double of[kMaxVectors];
  double time;
};

// The gradients of the vectors along f and along the parts across f of the others, of which the gradient is the last;
// and those of the numbers of the row.
struct FarGradients {
  double of[kMaxVectors][1 + kMaxOthers];
  double scalar[kMaxScalars];
};

// Squared distances of images down to which they have the digits of an element type: their entries are rounded in
// float64, and errors are up to 2^-29 of a distance, or 2^-44.
template <class T>
constexpr double kApart = 0x1p-46;
template <>
inline constexpr double kApart<double> = 0x1p-16;

template <class T, class C>
STONE_FUNCTION bool is_far_pair(C squares, C weights, double c) {
  // The product of the times is up to 4 / (alpha beta).
  return static_cast<double>(squares) < kApart<T> && 4.0 * static_cast<double>(weights) > c * kNearTimes<T>;
}

// a d - b c, right to two roundings of the result (Kahan).
template <class V, class Fused>
STONE_FUNCTION V minor_of(const V& a, const V& b, const V& c, const V& d, const Fused& fused) {
  const V product = b * c;
  return fused(a, d, -product) + fused(-b, c, product);
}

// The larger, and NaN where `a` is: comparisons are spelled so that NaN takes the side that holds it.
STONE_FUNCTION double longer(double a, double b) { return a < b ? b : a; }

// sqrt(a^2 + b^2) for a, b >= 0, the squares of which may overflow.
STONE_FUNCTION double length_of(double a, double b) {
  const double large = longer(a, b), small = a < b ? a : b;
  const double quotient = small / longer(large, 0x1p-1022);
  return large * sqrt(1.0 + quotient * quotient);
}

// A point of the plane of time and f, or a row in it.
struct InPlane {
  double ahead;
  double behind;

  STONE_FUNCTION double time() const { return 0.5 * (ahead + behind); }
  STONE_FUNCTION double along() const { return 0.5 * (ahead - behind); }
};

// The point f alone.
struct FarPoint {
  double root;  // sqrt(c)
  double length;
  double time;
  InPlane at;

  STONE_FUNCTION FarPoint(const FarSums& q, double c) {
    root = sqrt(c);
    // Never 0, by which lengths along f are divided; both points may be the origin.
    length = longer(sqrt(c * q.far_squares), 0x1p-900);
    time = sqrt(1.0 + c * q.far_squares);
    at.ahead = time + length;
    at.behind = 1.0 / at.ahead;
  }
};

// Two points, f the farther and n the nearer.
struct FarPair {
  FarPoint f;
  InPlane n;
  double time;       // of n
  double along;      // of n
  double across;     // the square of what n is across f
  double slant;      // time_n length_f - time_f along_n: sinh(d) times the cosine of the angle at f; at least 0
  double sinh;       // of the distance
  double cosh_and_1;
  double distance;
  // Over sinh(d), and 0 where the points coincide.
  double slant_share;
  double across_share;
  double inverse;

  STONE_FUNCTION FarPair(const FarSums& q, double c) : f(q, c) {
    const double length = sqrt(c * q.near_squares);
    time = sqrt(1.0 + c * q.near_squares);
    along = c * q.along[0] / f.length;
    across = c * q.across[0];
    const bool forward = along > 0.0;
    n.ahead = time + along;
    n.behind = time - along;
    n.behind = forward ? (1.0 + across) / n.ahead : n.behind;
    n.ahead = forward ? n.ahead : (1.0 + across) / n.behind;
    // What n is longer than its part along f.
    const double bent = forward ? across / (length + along) : length - along;
    slant = c * longer(q.excess, 0.0) / (f.length * time + f.time * length) + f.time * bent;
    sinh = length_of(slant, sqrt(across));
    const double cosh = length_of(sinh, 1.0);
    cosh_and_1 = 1.0 + cosh;
    distance = log1p(sinh + sinh * (sinh / cosh_and_1));
    inverse = sinh == 0.0 ? 0.0 : 1.0 / sinh;
    slant_share = sinh == 0.0 ? 0.0 : slant / sinh;
    across_share = sinh == 0.0 ? 0.0 : across / sinh;
  }

  // sinh(d / 2)^2.
  STONE_FUNCTION double half() const { return 0.5 * sinh * (sinh / cosh_and_1); }
  STONE_FUNCTION double cosh() const { return cosh_and_1 - 1.0; }
  // d / sinh(d).
  STONE_FUNCTION double over_sinh() const { return sinh == 0.0 ? 1.0 : distance / sinh; }
  // d / tanh(d).
  STONE_FUNCTION double over_tanh() const { return sinh == 0.0 ? 1.0 : distance * (cosh() / sinh); }
};

// The gradient of a result, as a linear form on rows: ahead * row.ahead + behind * row.behind + across.
struct FarForm {
  InPlane of;
  double time;
  double across;   // on the part of n, or of the tangent vector, across f
  double at_far;   // the derivative where f moves along itself on the hyperboloid
  double on_far;   // on f

  STONE_FUNCTION FarForm(const FarPoint& f, double of_along, double of_time, double of_across) {
    of.ahead = 0.5 * (of_time + of_along);
    of.behind = 0.5 * (of_time - of_along);
    time = of_time;
    across = of_across;
    at_far = (of.ahead * f.at.ahead - of.behind * f.at.behind) / f.time;
    on_far = on(f.at);
  }

  STONE_FUNCTION double on(const InPlane& row) const { return of.ahead * row.ahead + of.behind * row.behind; }
};

STONE_FUNCTION FarForm form_of(const FarPoint& f, const FarSums& q, int gradient, double of_time) {
  return FarForm(f, f.root * q.along[gradient] / f.length, of_time, f.root * q.across[gradient]);
}

// Gradients of of_far f + of_near n, whose coefficients change with sinh(d / 2)^2 so that `slope` is the derivative of
// the loss for it; `value` is the form on the result. Without a result the coefficients are 0.
STONE_FUNCTION FarGradients gradients_of_pair(const FarPair& p, const FarForm& g, bool second, double of_far,
                                              double of_near, double slope, double value) {
  const double half = 0.5 * slope;
  const double far_along = of_far * g.at_far + half * p.slant / p.f.time;
  const double near_along =
      of_near * (g.of.ahead * p.n.ahead - g.of.behind * p.n.behind) / p.time - half * p.slant / p.time;
  const double near_across = (of_near * g.time + half * p.f.time) / p.time;
  const double scale = p.f.root / p.f.length;
  FarGradients r{};
  const int far = second ? 1 : 0;
  r.of[far][0] = far_along * scale;
  r.of[far][1] = -half * p.f.root;
  r.of[far][2] = of_far;
  r.of[1 - far][0] = near_along * scale;
  r.of[1 - far][1] = near_across * p.f.root;
  r.of[1 - far][2] = of_near;
  // By a curvature all rows are scaled, and the result back.
  const double moved =
      p.f.length * far_along + p.along * near_along + p.across * near_across + of_near * g.across - value;
  r.scalar[0] = 0.5 * moved / (p.f.root * p.f.root * p.f.root);
  return r;
}

}  // namespace STONE_NAMESPACE
