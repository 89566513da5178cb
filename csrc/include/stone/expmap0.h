// The exponential map of the Poincare ball at its origin: tanh(u) / u * x.
#pragma once

#include "stone/radial.h"

namespace STONE_NAMESPACE {

struct Expmap0 {
  static STONE_FUNCTION double over(double u, double v) { return tanh_over(u, v); }

  static STONE_FUNCTION Profile both(double u) {
    const TanhAndSlope t = tanh_and_slope(u);
    return {t.value, t.slope};
  }

  // d/du (tanh(u) / u), divided by u, as a series in u^2: its coefficients are 2k t_k, with t_k those of tanh.
  static STONE_FUNCTION double derivative_series(double u2) {
    double p = 0.00038205372166389513;
    p = p * u2 - 0.0008641231254329704;
    p = p * u2 + 0.0019383075913858901;
    p = p * u2 - 0.004304324056383944;
    p = p * u2 + 0.009440439055129375;
    p = p * u2 - 0.020381681418718454;
    p = p * u2 + 0.043105536438869774;
    p = p * u2 - 0.08863235529902197;
    p = p * u2 + 0.17495590828924162;
    p = p * u2 - 0.3238095238095238;
    p = p * u2 + 0.5333333333333333;
    p = p * u2 - 0.6666666666666666;
    return p;
  }
};

}  // namespace STONE_NAMESPACE
