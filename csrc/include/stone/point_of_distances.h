// The point of the Poincare ball whose signed distances to the coordinate hyperplanes are v (Shimizu et al. 2021,
// Hyperbolic Neural Networks++, equation 7), shortened to sqrt(c) ||y|| <= max_radius:
//   y = w / (1 + sqrt(1 + c ||w||^2)),  w = sinh(sqrt(c) v) / sqrt(c).
// Long v do not overflow: all is divided by e^shift, since the point depends on the ratios of the sinh alone.
#pragma once

#include "stone/row_formula.h"

namespace STONE_NAMESPACE {

// Operands and guards alone: the row is no combination of its vectors, and the kernels are its own.
struct PointOfDistances {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "point_of_distances", .vectors = {"v"}, .scalars = {"c"}, .guards = {"max_radius"}};
};

// Arguments of sinh beyond this are shifted; its square is far from overflow.
constexpr double kUnshifted = 300.0;

// From the largest sqrt(c) |v| of the row.
STONE_FUNCTION double shift_of(double largest) { return largest > kUnshifted ? largest - kUnshifted : 0.0; }

// exp(-z), z >= 0.
STONE_FUNCTION double exp_of_negative(double z) { return 1.0 / (1.0 + expm1_positive(z > 690.0 ? 690.0 : z)); }

// sinh(t) e^-shift for a shift of at least |t| - kUnshifted.
template <bool shifted>
STONE_FUNCTION double shifted_sinh(double t, double shift) {
  const double u = t < 0.0 ? -t : t;
  const double low = u > kUnshifted ? kUnshifted : u;
  double size = sinh_and_cosh(low).sinh;
  if constexpr (shifted) {
    size *= exp_of_negative(shift - (u - low));
  }
  return t < 0.0 ? -size : size;
}

// a = sqrt(c) y = inverse * shifted sinh before it is shortened.
struct PointRow {
  double root;     // sqrt(c)
  double inverse;  // of e^-shift + sqrt(e^-2shift + the sum of squares)
  double whole;    // 1 / (1 + sqrt(1 + c ||w||^2))
  double squares;  // ||a||^2
  double shrink;
  bool holds;
};

// `sum`: of the squares of the shifted sinh.
STONE_FUNCTION PointRow point_row(double sum, double shift, double c, double max_radius) {
  PointRow p;
  const double one = exp_of_negative(shift);
  p.root = sqrt(c);
  p.inverse = 1.0 / (one + sqrt(one * one + sum));
  p.whole = one * p.inverse;
  p.squares = sum * p.inverse * p.inverse;
  const double radius = sqrt(p.squares);
  p.holds = radius > max_radius;
  p.shrink = p.holds ? max_radius / radius : 1.0;
  return p;
}

// grad_v = sqrt(whole^2 + a^2) (of_grad * grad + of_a * a), from <grad, a>.
struct PointGradient {
  double of_grad;
  double of_a;
  double through;  // <gradient before the radius, a>
};

STONE_FUNCTION PointGradient point_gradient(const PointRow& p, double inner) {
  const double radial = p.holds ? -p.shrink * inner / p.squares : 0.0;
  const double through = p.holds ? 0.0 : inner;
  return {p.shrink, radial - 2.0 * through / (1.0 + p.squares), through};
}

// `of_v` is <v, grad_v>.
STONE_FUNCTION double point_gradient_of_curvature(const PointRow& p, const PointGradient& g, double inner, double of_v,
                                                  double c) {
  const double of_radius = p.holds ? p.shrink * inner : 0.0;
  return (of_v - (g.through + of_radius) / p.root) / (2.0 * c);
}

}  // namespace STONE_NAMESPACE
