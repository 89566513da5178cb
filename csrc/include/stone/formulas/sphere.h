// The sphere ||x||^2 = 1/c. Antipodes have no shortest path of their own; there the results are finite.
#pragma once

#include "stone/row_formula.h"

namespace STONE_NAMESPACE {

constexpr double kTiny = 1e-300;

// tan(sqrt(c) d / 2)^2 from ||x - y||^2 and ||x + y||^2, bounded where they are antipodes.
template <class S>
STONE_FUNCTION S squared_half_tangent(const S& apart, const S& together) {
  const bool opposite = value_of(together) * 1e30 < value_of(apart);
  return choose(opposite, chain(apart, 1e30, 0.0), apart / choose(opposite, chain(apart, 1.0, 0.0), together));
}

// cos(u) x + sin(u) / u v, u = sqrt(c) ||v||, v made tangent at x and x brought to length 1 / sqrt(c).
struct SphereExpmap {
  using Layout = Tangent;
  static constexpr RowFormulaInfo kInfo{.name = "sphere_expmap", .vectors = {"x", "v"}, .scalars = {"c"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* /*guard*/) {
    const S squares = at_least(m[Layout::kXX], kTiny);
    const S along = m[Layout::kXY] / squares;
    const S u2 = at_least(s[0] * (m[Layout::kYY] - along * m[Layout::kXY]), 0.0);
    const OddAndEven<S> t = circular_pair(u2);
    return {{t.even / root(s[0] * squares) - t.odd * along, t.odd}};
  }
};

// u / sin(u) (y - cos(u) x), u = sqrt(c) d(x, y).
struct SphereLogmap {
  using Layout = DifferenceAndSum;
  static constexpr RowFormulaInfo kInfo{.name = "sphere_logmap", .vectors = {"x", "y"}, .scalars = {"c"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* /*guard*/) {
    const S tangent = squared_half_tangent(m[Layout::kBB], m[Layout::kSS]);
    const S k = atanc(tangent) * (1.0 + tangent);
    return {{0.5 * s[0] * m[Layout::kBB] * k, k}};
  }
};

struct SphereDist {
  using Layout = DifferenceAndSum;
  static constexpr RowFormulaInfo kInfo{
      .name = "sphere_dist", .vectors = {"x", "y"}, .scalars = {"c"}, .gives_number = true};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* /*guard*/) {
    return {{2.0 * angle_of_squares(m[Layout::kBB], m[Layout::kSS]) / root(s[0])}};
  }
};

// (sin((1 - t) u) x + sin(t u) y) / sin(u), u = sqrt(c) d(x, y).
struct SphereGeodesic {
  using Layout = DifferenceAndSum;
  static constexpr RowFormulaInfo kInfo{.name = "sphere_geodesic", .vectors = {"x", "y"}, .scalars = {"c", "t"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* /*guard*/) {
    const S tangent = squared_half_tangent(m[Layout::kBB], m[Layout::kSS]);
    const S half = atanc(tangent);
    const S squared_length = 4.0 * tangent * square(half);
    const S k = half * (1.0 + tangent);
    const S rest = 1.0 - s[1];
    const S of_x = rest * circular_pair(square(rest) * squared_length).odd * k;
    const S of_y = s[1] * circular_pair(square(s[1]) * squared_length).odd * k;
    return {{of_x + of_y, of_y}};
  }
};

// x / (sqrt(c) ||x||); 0 stays 0, with gradient 0.
struct SphereProject {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{.name = "sphere_project", .vectors = {"x"}, .scalars = {"c"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* /*guard*/) {
    const S inverse = 1.0 / root(s[0] * at_least(m[Layout::kXX], kTiny));
    return {{choose(value_of(m[Layout::kXX]) < kTiny, chain(inverse, 0.0, 0.0), inverse)}};
  }
};

}  // namespace STONE_NAMESPACE
