// y = profile(min(u, limit)) / u * x with u the guarded, scaled norm of the row x:
//   n = max(sqrt(||x||^2 + square_offset), min_norm) + norm_offset,  u = max(sqrt(c) n, min_scaled).
// The gradients are those of autograd on this spelling: a clamp passes none outside its range, the norm has
// subgradient 0 at 0, and with no guard the map is smooth at the origin with derivative 1.
// Where the guards are separate, the argument of the profile is another such norm, with guards of its own.
#pragma once

#include "stone/scalar.h"
#include "stone/types.h"

namespace STONE_NAMESPACE {

// The profile of expmap0 or logmap0 at one point.
struct Profile {
  double value;
  double slope;
};

struct RadialNorms {
  double root;    // sqrt(c)
  double n0;      // before the guards
  double n;
  double scaled;  // before min_scaled
  double u;
  bool at_origin;
};

template <class Guards>
STONE_FUNCTION RadialNorms radial_norms(double squares, double c, const Guards& guards) {
  RadialNorms r;
  r.root = sqrt(c);
  r.n0 = sqrt(squares + guards.square_offset);
  r.n = (r.n0 < guards.min_norm ? guards.min_norm : r.n0) + guards.norm_offset;
  r.scaled = r.root * r.n;
  r.u = r.scaled < guards.min_scaled ? guards.min_scaled : r.scaled;
  r.at_origin = (r.u == 0.0) & (c > 0.0);
  return r;
}

// The factor of the row: y = factor * x.
template <class Map>
STONE_FUNCTION double radial_factor(double squares, double c, const RadialGuards& guards) {
  const RadialNorms r = radial_norms(squares, c, guards);
  const double w = r.u > guards.limit ? guards.limit : r.u;
  const double factor = Map::over(w, r.u);  // profile(w) / u
  const double origin = guards.nan_at_zero ? not_a_number() : 1.0;
  return r.at_origin ? origin : factor;
}

// The same with separate guards: at the origin it is what the quotient is.
template <class Map>
STONE_FUNCTION double radial_factor_separate(double squares, double c, const RadialGuards& guards) {
  const RadialNorms r = radial_norms(squares, c, guards);
  const RadialNorms a = radial_norms(squares, c, guards.argument);
  return Map::over(a.u > guards.limit ? guards.limit : a.u, r.u);
}

// grad_x = factor * grad + along * x, grad_c = curvature.
struct RadialGradient {
  double factor;
  double along;
  double curvature;
};

// `inner` is <grad, x>.
template <class Map>
STONE_FUNCTION RadialGradient radial_gradient(double squares, double inner, double c, const RadialGuards& guards) {
  const RadialNorms r = radial_norms(squares, c, guards);
  const bool within = !(r.u > guards.limit);
  const double w = within ? r.u : guards.limit;
  const Profile p = Map::both(w);
  const double factor = p.value / r.u;
  // d(factor)/du; near 0 the difference cancels, so its series is taken.
  const double difference = ((within ? p.slope : 0.0) - factor) / r.u;
  const double series = r.u * Map::derivative_series(r.u * r.u);
  double derivative = (within & (r.u < 0.25)) ? series : difference;
  derivative = r.scaled < guards.min_scaled ? 0.0 : derivative;
  const bool passes = (r.n0 >= guards.min_norm) & (r.n0 > 0.0);
  const double toward = derivative * r.root / r.n0 * inner;
  const double curvature = derivative * r.n / (2.0 * r.root) * inner;
  const double origin = guards.nan_at_zero ? not_a_number() : 1.0;
  RadialGradient g;
  g.factor = r.at_origin ? origin : factor;
  g.along = (passes & !r.at_origin) ? toward : 0.0;
  g.curvature = r.at_origin ? 0.0 : curvature;
  return g;
}

// What a guarded norm moves by when the row and the curvature do: in units of the row, and absolutely.
struct NormSlopes {
  double along;
  double curvature;
};

template <class Guards>
STONE_FUNCTION NormSlopes norm_slopes(const RadialNorms& r, const Guards& guards) {
  const bool free = !(r.scaled < guards.min_scaled);
  const bool passes = (r.n0 >= guards.min_norm) & (r.n0 > 0.0) & free;
  const double along = r.root / r.n0;
  const double curvature = r.n / (2.0 * r.root);
  return {passes ? along : 0.0, free ? curvature : 0.0};
}

template <class Map>
STONE_FUNCTION RadialGradient radial_gradient_separate(double squares, double inner, double c,
                                                       const RadialGuards& guards) {
  const RadialNorms r = radial_norms(squares, c, guards);
  const RadialNorms a = radial_norms(squares, c, guards.argument);
  const bool within = !(a.u > guards.limit);
  const Profile p = Map::both(within ? a.u : guards.limit);
  const NormSlopes of_argument = norm_slopes(a, guards.argument), of_divisor = norm_slopes(r, guards);
  const double inverse = 1.0 / r.u;
  const double factor = p.value * inverse;
  const double slope = within ? p.slope : 0.0;
  RadialGradient g;
  g.factor = factor;
  g.along = (slope * of_argument.along - factor * of_divisor.along) * inverse * inner;
  g.curvature = (slope * of_argument.curvature - factor * of_divisor.curvature) * inverse * inner;
  return g;
}

}  // namespace STONE_NAMESPACE
