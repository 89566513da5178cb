// z = ((1 + 2c<x,y> + c||y||^2) x + (1 - c||x||^2) y) / (max(d, min_denominator) + denominator_offset), then shortened
// to sqrt(c) ||z|| <= max_radius,
// d = 1 + 2c<x,y> + c^2 ||x||^2 ||y||^2. With s = x + y, alpha = 1 - c||x||^2, beta = 1 - c||y||^2 and
// gamma = c||s||^2 this is (alpha s + gamma x) / d and d = alpha beta + gamma: sums of positive terms in the ball,
// which do not cancel for opposite or nearly opposite points as the printed form does.
#pragma once

#include "stone/dual.h"
#include "stone/scalar.h"
#include "stone/types.h"

namespace STONE_NAMESPACE {

struct MobiusTerms {
  double alpha;
  double gamma;
  double inverse;
  bool passes;  // the gradient of the denominator
};

// xx, yy, ss: squared norms of x, y and x + y.
STONE_FUNCTION MobiusTerms mobius_terms(double xx, double yy, double ss, double c, const MobiusGuards& guards) {
  MobiusTerms t;
  t.alpha = 1.0 - c * xx;
  t.gamma = c * ss;
  const double d = t.alpha * (1.0 - c * yy) + t.gamma;
  const bool clamps = guards.min_denominator > 0.0;
  const bool below = d < guards.min_denominator;
  t.passes = !(clamps & below);
  t.inverse = 1.0 / ((t.passes ? d : guards.min_denominator) + guards.denominator_offset);
  return t;
}

// z = of_sum * (x + y) + of_x * x, not shortened.
struct MobiusFactors {
  double of_sum;
  double of_x;
};

STONE_FUNCTION MobiusFactors mobius_factors(double xx, double yy, double ss, double c, const MobiusGuards& guards) {
  const MobiusTerms t = mobius_terms(xx, yy, ss, c, guards);
  return {t.alpha * t.inverse, t.gamma * t.inverse};
}

// grad_x = x_of_grad * grad + x_of_x * x + xy * y, grad_y = y_of_grad * grad + xy * x + y_of_y * y.
struct MobiusGradient {
  double x_of_grad;
  double y_of_grad;
  double x_of_x;
  double xy;
  double y_of_y;
  double curvature;
};

// gx and gy are <grad, x> and <grad, y>.
STONE_FUNCTION MobiusGradient mobius_gradient(double xx, double yy, double ss, double gx, double gy, double c,
                                              const MobiusGuards& guards) {
  const MobiusTerms t = mobius_terms(xx, yy, ss, c, guards);
  const double a = t.alpha + t.gamma;
  const double grad_a = gx * t.inverse;
  const double grad_b = gy * t.inverse;
  const double grad_d = t.passes ? -(a * grad_a + t.alpha * grad_b) * t.inverse : 0.0;
  MobiusGradient g;
  g.x_of_grad = a * t.inverse;
  g.y_of_grad = t.alpha * t.inverse;
  g.xy = 2.0 * c * (grad_a + grad_d);
  g.x_of_x = 2.0 * c * (c * yy * grad_d - grad_b);
  g.y_of_y = 2.0 * c * (grad_a + c * xx * grad_d);
  g.curvature = grad_a * (ss - xx) - grad_b * xx + grad_d * (ss - xx - yy + 2.0 * c * xx * yy);
  return g;
}

struct MobiusProjection {
  double xy;      // <x, y>
  double zz;      // ||z||^2 before
  double shrink;
  bool holds;
};

STONE_FUNCTION MobiusProjection mobius_projection(const MobiusFactors& f, double xx, double yy, double ss, double c,
                                                  double max_radius) {
  MobiusProjection p;
  p.xy = 0.5 * (ss - xx - yy);
  const double by_sum = f.of_sum * f.of_sum * ss, by_x = f.of_x * f.of_x * xx;
  // Of points outside the ball large terms cancel: what rounding may add to the length is counted in.
  p.zz = by_sum + f.of_x * f.of_sum * (ss + xx - yy) + by_x + 16.0 * kRounding * (by_sum + by_x);
  const double scaled = sqrt(c * p.zz);
  p.holds = scaled > max_radius;
  p.shrink = p.holds ? max_radius / scaled : 1.0;
  return p;
}

// The same for the shortened z.
STONE_FUNCTION MobiusFactors mobius_inside(double xx, double yy, double ss, double c, const MobiusGuards& guards) {
  const MobiusFactors f = mobius_factors(xx, yy, ss, c, guards);
  const double shrink = mobius_projection(f, xx, yy, ss, c, guards.max_radius).shrink;
  return {shrink * f.of_sum, shrink * f.of_x};
}

// grad_x = x_of_grad * grad + x_of_x * x + x_of_y * y, grad_y = y_of_grad * grad + y_of_x * x + y_of_y * y.
struct MobiusInsideGradient {
  double x_of_grad;
  double y_of_grad;
  double x_of_x;
  double x_of_y;
  double y_of_x;
  double y_of_y;
  double curvature;
};

STONE_FUNCTION MobiusInsideGradient mobius_inside_gradient(double xx, double yy, double ss, double gx, double gy,
                                                           double c, const MobiusGuards& guards) {
  const MobiusFactors f = mobius_factors(xx, yy, ss, c, guards);
  const MobiusProjection p = mobius_projection(f, xx, yy, ss, c, guards.max_radius);
  // Through the projection: shrink * grad + of_x * x + of_y * y.
  const double a = f.of_sum + f.of_x;
  const double gz = a * gx + f.of_sum * gy;
  const double radial = p.holds ? -p.shrink * gz / p.zz : 0.0;
  const double of_x = radial * a;
  const double of_y = radial * f.of_sum;
  const MobiusGradient g =
      mobius_gradient(xx, yy, ss, p.shrink * gx + of_x * xx + of_y * p.xy, p.shrink * gy + of_x * p.xy + of_y * yy, c, guards);
  const double of_radius = p.holds ? -p.shrink * gz / (2.0 * c) : 0.0;
  MobiusInsideGradient r;
  r.x_of_grad = g.x_of_grad * p.shrink;
  r.y_of_grad = g.y_of_grad * p.shrink;
  r.x_of_x = g.x_of_x + g.x_of_grad * of_x;
  r.x_of_y = g.xy + g.x_of_grad * of_y;
  r.y_of_x = g.xy + g.y_of_grad * of_x;
  r.y_of_y = g.y_of_y + g.y_of_grad * of_y;
  r.curvature = g.curvature + of_radius;
  return r;
}

}  // namespace STONE_NAMESPACE
