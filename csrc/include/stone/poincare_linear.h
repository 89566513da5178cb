// y = project(exp0(log0-factor(x) * m) + b) with m = W x: the Moebius product W (*) x = exp0(W log0(x)), to which the
// point b is added; `+` is Moebius addition. All of it is y = of_product * m + of_bias * b, by inner products alone.
#pragma once

#include "stone/expmap0.h"
#include "stone/linear_epilogue_arguments.h"
#include "stone/logmap0.h"
#include "stone/mobius_add.h"

namespace STONE_NAMESPACE {

struct PoincareLinearSums {
  double xx;  // ||x||^2
  double mm;  // ||m||^2
  double mb;  // <m, b>
  double bb;  // ||b||^2
};

struct PoincareLinearTerms {
  double log;        // of log0 at x
  double kappa;      // W (*) x = kappa * m
  double pp;         // its squared norm
  double ss;         // that of its plain sum with b
  double of_product;
  double of_bias;
  double zz;         // squared norm before the projection
  double shrink;     // by the projection
  bool projected;
};

// `adds` is guards.adds: known when compiled, so that a loop over rows becomes vector code.
template <bool adds>
STONE_FUNCTION PoincareLinearTerms poincare_linear_terms(const PoincareLinearSums& s, double c,
                                                         const PoincareLinearGuards& guards) {
  PoincareLinearTerms t;
  t.log = radial_factor<Logmap0>(s.xx, c, guards.log);
  t.kappa = t.log * radial_factor<Expmap0>(t.log * t.log * s.mm, c, guards.exp);
  t.pp = t.kappa * t.kappa * s.mm;
  const double sum = t.pp + 2.0 * t.kappa * s.mb + s.bb;
  t.ss = sum < 0.0 ? 0.0 : sum;
  const MobiusFactors f = mobius_factors(t.pp, s.bb, t.ss, c, guards.mobius);
  t.of_product = (adds ? f.of_sum + f.of_x : 1.0) * t.kappa;
  t.of_bias = adds ? f.of_sum : 0.0;
  t.zz = t.of_product * t.of_product * s.mm + 2.0 * t.of_product * t.of_bias * s.mb + t.of_bias * t.of_bias * s.bb;
  const double scaled = sqrt(c * t.zz);
  t.projected = scaled > guards.project_limit;
  t.shrink = t.projected ? guards.project_limit / scaled : 1.0;
  return t;
}

// y = of_product * m + of_bias * b.
struct PoincareLinearFactors {
  double of_product;
  double of_bias;
};

template <bool adds>
STONE_FUNCTION PoincareLinearFactors poincare_linear_factors(const PoincareLinearSums& s, double c,
                                                             const PoincareLinearGuards& guards) {
  const PoincareLinearTerms t = poincare_linear_terms<adds>(s, c, guards);
  return {t.shrink * t.of_product, t.shrink * t.of_bias};
}

// grad_m = m_of_grad * grad + m_of_m * m + m_of_b * b, grad_b likewise for one row, grad_x = along * x.
struct PoincareLinearGradient {
  double m_of_grad;
  double m_of_m;
  double m_of_b;
  double b_of_grad;
  double b_of_m;
  double b_of_b;
  double along;
  double curvature;
};

// gm and gb are <grad, m> and <grad, b>.
template <bool adds>
STONE_FUNCTION PoincareLinearGradient poincare_linear_gradient(const PoincareLinearSums& s, double gm, double gb,
                                                               double c, const PoincareLinearGuards& guards) {
  const PoincareLinearTerms t = poincare_linear_terms<adds>(s, c, guards);
  // Through the projection: z_of_grad * grad + z_of_m * m + z_of_b * b.
  const double gz = t.of_product * gm + t.of_bias * gb;
  const double radial = t.projected ? -t.shrink * gz / t.zz : 0.0;
  const double z_of_grad = t.shrink;
  const double z_of_m = radial * t.of_product;
  const double z_of_b = radial * t.of_bias;
  // Through the sum, to p = kappa * m.
  const double zm = z_of_grad * gm + z_of_m * s.mm + z_of_b * s.mb;
  const double zb = z_of_grad * gb + z_of_m * s.mb + z_of_b * s.bb;
  const MobiusGradient added = mobius_gradient(t.pp, s.bb, t.ss, t.kappa * zm, zb, c, guards.mobius);
  const MobiusGradient sum = adds ? added : MobiusGradient{1.0, 0.0, 0.0, 0.0, 0.0, 0.0};
  const double p_of_grad = sum.x_of_grad * z_of_grad;
  const double p_of_m = sum.x_of_grad * z_of_m + sum.x_of_x * t.kappa;
  const double p_of_b = sum.x_of_grad * z_of_b + sum.xy;
  // Through exp0 at v = log * m, and through the factor log(x).
  const double pm = p_of_grad * gm + p_of_m * s.mm + p_of_b * s.mb;
  const RadialGradient exp = radial_gradient<Expmap0>(t.log * t.log * s.mm, t.log * pm, c, guards.exp);
  const double vm = exp.factor * pm + exp.along * t.log * s.mm;
  const RadialGradient log = radial_gradient<Logmap0>(s.xx, vm, c, guards.log);
  PoincareLinearGradient g;
  g.m_of_grad = t.log * exp.factor * p_of_grad;
  g.m_of_m = t.log * (exp.factor * p_of_m + exp.along * t.log);
  g.m_of_b = t.log * exp.factor * p_of_b;
  g.b_of_grad = sum.y_of_grad * z_of_grad;
  g.b_of_m = sum.y_of_grad * z_of_m + sum.xy * t.kappa;
  g.b_of_b = sum.y_of_grad * z_of_b + sum.y_of_y;
  g.along = log.along;
  const double of_radius = t.projected ? -t.shrink * gz / (2.0 * c) : 0.0;
  g.curvature = of_radius + sum.curvature + exp.curvature + log.curvature;
  return g;
}

}  // namespace STONE_NAMESPACE
