// z = ((1 + 2c<x,y> + c||y||^2) x + (1 - c||x||^2) y) / (max(d, min_denominator) + denominator_offset),
// d = 1 + 2c<x,y> + c^2 ||x||^2 ||y||^2. With s = x + y, alpha = 1 - c||x||^2, beta = 1 - c||y||^2 and
// gamma = c||s||^2 this is (alpha s + gamma x) / d and d = alpha beta + gamma: sums of positive terms in the ball,
// which do not cancel for opposite or nearly opposite points as the printed form does.
#pragma once

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

// z = of_sum * (x + y) + of_x * x.
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

}  // namespace STONE_NAMESPACE
