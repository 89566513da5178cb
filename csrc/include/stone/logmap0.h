// The logarithmic map of the Poincare ball at its origin: artanh(u) / u * y.
#pragma once

#include "stone/radial.h"

namespace STONE_NAMESPACE {

struct Logmap0 {
  static STONE_FUNCTION double over(double u, double v) { return artanh_over(u, v); }

  static STONE_FUNCTION Profile both(double u) { return {artanh(u), 1.0 / ((1.0 - u) * (1.0 + u))}; }

  // d/du (artanh(u) / u), divided by u, as a series in u^2: its coefficients are 2k / (2k + 1).
  static STONE_FUNCTION double derivative_series(double u2) {
    double p = 28.0 / 29.0;
    p = p * u2 + 26.0 / 27.0;
    p = p * u2 + 24.0 / 25.0;
    p = p * u2 + 22.0 / 23.0;
    p = p * u2 + 20.0 / 21.0;
    p = p * u2 + 18.0 / 19.0;
    p = p * u2 + 16.0 / 17.0;
    p = p * u2 + 14.0 / 15.0;
    p = p * u2 + 12.0 / 13.0;
    p = p * u2 + 10.0 / 11.0;
    p = p * u2 + 8.0 / 9.0;
    p = p * u2 + 6.0 / 7.0;
    p = p * u2 + 4.0 / 5.0;
    p = p * u2 + 2.0 / 3.0;
    return p;
  }
};

}  // namespace STONE_NAMESPACE
