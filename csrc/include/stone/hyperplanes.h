// Signed distances of a point of the Poincare ball to hyperplanes, from the products of its coordinates with their
// normals: v_j = scale_j asinh((product_j - offset_j (1 + c||x||^2)) / alpha), alpha = max(1 - c||x||^2, min_alpha).
#pragma once

#include "stone/asinh.h"

namespace STONE_NAMESPACE {

// What all hyperplanes share for one point: u = product * inverse - offset * lift.
struct PointFactors {
  double inverse;
  double lift;
  bool clamped;
};

STONE_FUNCTION PointFactors point_factors(double squares, double c, double min_alpha) {
  const double alpha = 1.0 - c * squares;
  const bool clamped = (min_alpha > 0.0) & (alpha < min_alpha);
  const double inverse = 1.0 / (clamped ? min_alpha : alpha);
  return {inverse, (1.0 + c * squares) * inverse, clamped};
}

// asinh(u), and sqrt(1 + u^2) on the way.
template <class C>
struct AsinhAndRoot {
  C asinh;
  C root;
};

template <class C>
STONE_FUNCTION AsinhAndRoot<C> asinh_and_root(C u) {
  const C largest = sizeof(C) == 4 ? C(1e18) : C(1e150);
  const C z = u < C(0) ? -u : u;
  const C held = z > largest ? largest : z, q = held * held;
  const C root = square_root(C(1) + q);
  const C value = log1p_nonnegative(held + quotient(q, C(1) + root));
  return {u < C(0) ? -value : value, z > largest ? z : root};
}

template <class C>
STONE_FUNCTION C hyperplane_distance(C product, C offset, C scale, C inverse, C lift) {
  return scale * asinh_and_root(product * inverse - offset * lift).asinh;
}

// `of_argument` is the gradient of u, `of_scale` that of the scale.
template <class C>
struct HyperplaneGradient {
  C of_argument;
  C of_scale;
};

template <class C>
STONE_FUNCTION HyperplaneGradient<C> hyperplane_gradient(C grad, C product, C offset, C scale, C inverse, C lift) {
  const AsinhAndRoot<C> u = asinh_and_root(product * inverse - offset * lift);
  return {quotient(grad * scale, u.root), grad * u.asinh};
}

// The derivative for c||x||^2 of sum(of_argument * u), from the sums of of_argument with products and offsets.
STONE_FUNCTION double point_gradient(const PointFactors& f, double of_products, double of_offsets) {
  if (f.clamped) {
    return -of_offsets * f.inverse;
  }
  return (of_products - 2.0 * of_offsets) * f.inverse * f.inverse;
}

}  // namespace STONE_NAMESPACE
