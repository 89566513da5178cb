// The Klein ball c||x||^2 < 1, where geodesics are straight; alpha and beta as in the Poincare ball.
#pragma once

#include "stone/formulas/poincare.h"

namespace STONE_NAMESPACE {

// sinh(sqrt(c) d)^2 of two points, times alpha beta.
template <class S, class Layout>
STONE_FUNCTION S klein_odds(const S* m, const S& c, const S& alpha) {
  return c * (alpha * m[Layout::kBB] + c * square(m[Layout::kXB]));
}

// Einstein addition. With s = x + y it is (sqrt(alpha) s + c<x,s> x / (1 + sqrt(alpha))) / (1 + c<x,y>), and
// 1 + c<x,y> = (alpha + beta + c||s||^2) / 2: nothing cancels for nearly opposite points.
struct KleinAdd {
  using Layout = Sum;
  static constexpr RowFormulaInfo kInfo{
      .name = "klein_add", .vectors = {"x", "y"}, .scalars = {"c"}, .guards = {"min_gap", "max_radius"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* guard) {
    const S c = s[0];
    const S alpha = gap(c, m[Layout::kXX], guard[0]);
    const S beta = gap(c, m[Layout::kYY], guard[0]);
    const S d = 0.5 * (alpha + beta + c * m[Layout::kBB]);
    const S width = root(alpha);
    const S of_x = c * m[Layout::kXB] / ((1.0 + width) * d);
    const S of_b = width / d;
    const S squares = square(of_x) * m[Layout::kXX] + of_b * (2.0 * of_x * m[Layout::kXB] + of_b * m[Layout::kBB]);
    const S inward = shrink_to(guard[1], c * squares);
    return {{of_x * inward, of_b * inward}};
  }
};

struct KleinDist {
  using Layout = DifferenceAndInner;
  static constexpr RowFormulaInfo kInfo{
      .name = "klein_dist", .vectors = {"x", "y"}, .scalars = {"c"}, .gives_number = true, .guards = {"min_gap"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    const S alpha = gap(s[0], m[Layout::kXX], guard[0]);
    const S beta = gap(s[0], m[Layout::kYY], guard[0]);
    return {{asinh_of_quotient(klein_odds<S, Layout>(m, s[0], alpha), alpha * beta, infinity()) * (1.0 / root(s[0]))}};
  }
};

struct KleinGeodesic {
  using Layout = DifferenceAndInner;
  static constexpr RowFormulaInfo kInfo{
      .name = "klein_geodesic", .vectors = {"x", "y"}, .scalars = {"c", "t"}, .guards = {"min_gap", "max_radius"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* guard) {
    const S c = s[0];
    const S alpha = gap(c, m[Layout::kXX], guard[0]);
    const S beta = gap(c, m[Layout::kYY], guard[0]);
    const S odds = klein_odds<S, Layout>(m, c, alpha) / (alpha * beta);
    const S squared_length = odds * square(asinhc(odds));
    const S of_x = share_of_arc(1.0 - s[1], squared_length) * root(beta);
    const S of_y = share_of_arc(s[1], squared_length) * root(alpha);
    const S part = of_y / (of_x + of_y);
    const S squares = m[Layout::kXX] + part * (2.0 * m[Layout::kXB] + part * m[Layout::kBB]);
    const S inward = shrink_to(guard[1], c * at_least(squares, 0.0));
    return {{inward, part * inward}};
  }
};

}  // namespace STONE_NAMESPACE
