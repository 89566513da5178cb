// z = ((1 + 2c<x,y> + c||y||^2) x + (1 - c||x||^2) y) / (max(d, min_denominator) + denominator_offset),
// d = 1 + 2c<x,y> + c^2 ||x||^2 ||y||^2, from the inner products of the row.
#pragma once

#include "stone/scalar.h"
#include "stone/types.h"

namespace STONE_NAMESPACE {

// z = of_x * x + of_y * y.
struct MobiusFactors {
  double of_x;
  double of_y;
};

struct MobiusTerms {
  double a;
  double b;
  double inverse;
  bool passes;  // the gradient of the denominator
};

STONE_FUNCTION MobiusTerms mobius_terms(double xx, double xy, double yy, double c, const MobiusGuards& guards) {
  MobiusTerms t;
  t.a = 1.0 + (2.0 * c * xy + c * yy);
  t.b = 1.0 - c * xx;
  const double d = 1.0 + (2.0 * c * xy + (c * xx) * (c * yy));
  const bool clamps = guards.min_denominator > 0.0;
  const bool below = d < guards.min_denominator;
  t.passes = !(clamps & below);
  t.inverse = 1.0 / ((t.passes ? d : guards.min_denominator) + guards.denominator_offset);
  return t;
}

STONE_FUNCTION MobiusFactors mobius_factors(double xx, double xy, double yy, double c, const MobiusGuards& guards) {
  const MobiusTerms t = mobius_terms(xx, xy, yy, c, guards);
  return {t.a * t.inverse, t.b * t.inverse};
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
STONE_FUNCTION MobiusGradient mobius_gradient(double xx, double xy, double yy, double gx, double gy, double c,
                                              const MobiusGuards& guards) {
  const MobiusTerms t = mobius_terms(xx, xy, yy, c, guards);
  const double grad_a = gx * t.inverse;
  const double grad_b = gy * t.inverse;
  const double grad_d = t.passes ? -(t.a * grad_a + t.b * grad_b) * t.inverse : 0.0;
  MobiusGradient g;
  g.x_of_grad = t.a * t.inverse;
  g.y_of_grad = t.b * t.inverse;
  g.xy = 2.0 * c * (grad_a + grad_d);
  g.x_of_x = 2.0 * c * (c * yy * grad_d - grad_b);
  g.y_of_y = 2.0 * c * (grad_a + c * xx * grad_d);
  g.curvature = grad_a * (2.0 * xy + yy) - grad_b * xx + grad_d * 2.0 * (xy + c * xx * yy);
  return g;
}

}  // namespace STONE_NAMESPACE
