// The distance of a pair of points in the Poincare ball, and its derivatives:
//   d = 2 / sqrt(c) * min(asinh(z), artanh(limit)),  z = sqrt(c ||x - y||^2 / (alpha beta)),
// alpha = max(1 - c||x||^2, min_alpha), beta likewise: 2 / sqrt(c) * artanh(sqrt(c) ||-x + y||) without its
// cancellation. Where the denominator D = alpha beta + c ||x - y||^2 of Moebius addition has guards,
// W = max(D, min_denominator) + denominator_offset, it is sqrt(c) ||-x + y|| = sqrt(c ||x - y||^2 D) / W.
#pragma once

#include "stone/asinh.h"
#include "stone/ball_image.h"
#include "stone/types.h"

namespace STONE_NAMESPACE {

// What one side of a pair contributes, formed in float64. C is the type that pairs are computed in.
template <class C>
struct PairSide {
  C weight;   // sqrt(c) / alpha
  C excess;   // the derivative of -log(alpha) for log(c); see ball_image.h
  C passes;   // 1 where the gradient of alpha flows, else 0
};

template <class C>
STONE_FUNCTION PairSide<C> pair_side(const BallImage& image, double c) {
  return {static_cast<C>(sqrt(c) / image.alpha), static_cast<C>(image.excess), image.clamped ? C(0) : C(1)};
}

// What all pairs of one curvature share.
template <class C>
struct PairScale {
  C c;
  C length;      // 2 / sqrt(c)
  C inverse;     // 1 / sqrt(c)
  C largest;     // z beyond this counts as saturated
  C saturated;   // artanh(limit), or infinity
  C min_denominator;
  C denominator_offset;
};

template <class C>
struct Largest;
template <>
struct Largest<float> {
  static constexpr double z = 1e18;
};
template <>
struct Largest<double> {
  static constexpr double z = 1e150;
};

template <class C>
STONE_FUNCTION PairScale<C> pair_scale(double c, const CdistGuards& guards) {
  const double root = sqrt(c);
  const double limit = guards.atanh_limit;
  // sinh(artanh(u)) = u / sqrt(1 - u^2)
  const double largest = limit < 1.0 ? limit / sqrt((1.0 - limit) * (1.0 + limit)) : Largest<C>::z;
  return {static_cast<C>(c), static_cast<C>(2.0 / root), static_cast<C>(1.0 / root), static_cast<C>(largest),
          static_cast<C>(limit < 1.0 ? artanh(limit) : infinity()), static_cast<C>(guards.min_denominator),
          static_cast<C>(guards.denominator_offset)};
}

template <class C>
STONE_FUNCTION C half_distance(C z, const PairScale<C>& scale) {
  const C bounded = z > scale.largest ? C(1) : z;
  const C h = asinh_nonnegative(bounded);
  return z > scale.largest ? scale.saturated : h;
}

// z of the odds z^2, which are negative where one point is beyond the boundary: u is above 1 there, and so above a limit.
template <class C>
STONE_FUNCTION C root_of_odds(C q, const PairScale<C>& scale) {
  const C beyond = scale.saturated < infinity() ? C(4) * scale.largest * scale.largest : q;
  return square_root(q < C(0) ? beyond : q);
}

// Squared distances of float32 below this lose digits to underflow, and above its inverse may overflow.
constexpr float kSmallSquares = 1e-30f;

// Whether the denominator of Moebius addition is changed: few spellings do that, and it costs the others nothing.
STONE_FUNCTION bool changes_denominator(const CdistGuards& guards) {
  return guards.min_denominator > 0.0 || guards.denominator_offset > 0.0;
}

// The denominator of Moebius addition of a pair: before its guards `sum`, after them `sum + extra`.
template <class C>
struct Denominator {
  C apart;  // c ||x - y||^2
  C gaps;   // alpha beta
  C sum;
  C extra;
  bool clamped;
};

template <class C>
STONE_FUNCTION Denominator<C> denominator(C squares, C weights, const PairScale<C>& scale) {
  Denominator<C> d;
  d.apart = scale.c * squares;
  // Pairs that fill a tile up have no weights.
  d.gaps = weights == C(0) ? C(1) : scale.c / weights;
  d.sum = d.gaps + d.apart;
  d.clamped = d.sum < scale.min_denominator;
  d.extra = (d.clamped ? scale.min_denominator - d.sum : C(0)) + scale.denominator_offset;
  return d;
}

// z^2 of a guarded pair: u^2 / (1 - u^2) at u = sqrt(c) ||-x + y||.
template <class C>
STONE_FUNCTION C guarded_odds(const Denominator<C>& d) {
  return d.apart * d.sum / (d.sum * d.gaps + d.extra * (C(2) * d.sum + d.extra));
}

// ||x - y||^2 from the squares of either side and the inner product: right to a few roundings of the squares.
template <class C>
STONE_FUNCTION C squares_of_product(C x_squares, C y_squares, C product) {
  const C squares = (x_squares + y_squares) - C(2) * product;
  return squares < C(0) ? C(0) : squares;
}

// z^2; `weights` is the product of the weights of both sides.
template <bool guarded, class C>
STONE_FUNCTION C pair_odds(C squares, C weights, const PairScale<C>& scale) {
  return guarded ? guarded_odds(denominator(squares, weights, scale)) : squares * weights;
}

template <class C>
STONE_FUNCTION C distance_of_odds(C q, const PairScale<C>& scale) {
  return scale.length * half_distance(root_of_odds(q, scale), scale);
}

template <bool guarded, class C>
STONE_FUNCTION C pair_distance(C squares, C weights, const PairScale<C>& scale) {
  return distance_of_odds(pair_odds<guarded>(squares, weights, scale), scale);
}

// grad_x = sum over y of weight (x - y) + along x; `curvature` is the part of c at fixed points.
template <class C>
struct PairGradient {
  C weight;
  C along;
  C curvature;
};

// tanh(h) - h with h = asinh(z) and q = z^2: where the difference cancels, its series in q.
template <class C>
STONE_FUNCTION C tanh_less_argument(C z, C q, C tanh_h, C h) {
  C p = C(0.1678067161923363);
  p = p * q - C(0.17570897152549342);
  p = p * q + C(0.18482881433823528);
  p = p * q - C(0.1955078125);
  p = p * q + C(0.20823317307692307);
  p = p * q - C(0.2237215909090909);
  p = p * q + C(0.24305555555555555);
  p = p * q - C(0.26785714285714285);
  p = p * q + C(0.3);
  p = p * q - C(0.3333333333333333);
  return q < C(0.03125) ? z * q * p : tanh_h - h;
}

// The derivatives of the half distance by the logarithms of ||x - y||^2 and of 1 / alpha, times 2. With
// r = z sqrt(1 + z^2): of_squares = r (D gaps + extra (D + apart)) / (D W), of_gaps = r gaps (D - extra) / (D W), and
// where the denominator is clamped, so that W is a constant, r (D + apart) / D and -r gaps / D.
template <class C>
STONE_FUNCTION PairGradient<C> guarded_gradient(C grad, C squares, const PairSide<C>& x, const PairSide<C>& y,
                                                const PairScale<C>& scale) {
  const Denominator<C> d = denominator(squares, x.weight * y.weight, scale);
  const C q = guarded_odds(d);
  const C z = root_of_odds(q, scale);
  const bool within = !(z > scale.largest);
  const C r = within ? z * square_root(C(1) + (within ? q : C(1))) / d.sum : C(0);
  const C inverse = C(1) / (d.sum + d.extra);
  const C of_squares = d.clamped ? r * (d.sum + d.apart)
                                 : r * inverse * (d.sum * d.gaps + d.extra * (d.sum + d.apart));
  const C of_gaps = d.clamped ? -r * d.gaps : r * inverse * d.gaps * (d.sum - d.extra);
  PairGradient<C> g;
  const C weight = squares > C(0) ? C(2) * grad * scale.inverse * of_squares / squares : C(0);
  g.weight = squares == squares ? weight : squares;
  g.along = C(2) * grad * of_gaps * x.weight * x.passes;
  g.curvature =
      grad * scale.inverse * (of_gaps * (x.excess + y.excess) + of_squares - half_distance(z, scale));
  return g;
}

template <bool guarded, class C>
STONE_FUNCTION PairGradient<C> pair_gradient(C grad, C squares, const PairSide<C>& x, const PairSide<C>& y,
                                             const PairScale<C>& scale) {
  if constexpr (guarded) {
    return guarded_gradient(grad, squares, x, y, scale);
  }
  const C weights = x.weight * y.weight;
  const C q = squares * weights;
  const C z = root_of_odds(q, scale);
  const bool within = !(z > scale.largest);
  const C root = square_root(C(1) + (within ? q : C(1)));
  const C h = half_distance(z, scale);
  const C tanh_h = within ? quotient(z, root) : C(0);
  // Coincident points: the distance has a cusp, whose gradient is taken to be 0.
  const C inverse = (within & (squares > C(0))) ? quotient(C(2), z * root) : C(0);
  PairGradient<C> g;
  g.weight = squares == squares ? grad * scale.inverse * inverse * weights : squares;
  g.along = C(2) * grad * tanh_h * x.weight * x.passes;
  const C less = within ? tanh_less_argument(z, q, tanh_h, h) : -h;
  g.curvature = grad * scale.inverse * (tanh_h * (x.excess + y.excess) + less);
  return g;
}

}  // namespace STONE_NAMESPACE
