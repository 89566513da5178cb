// The Poincare ball c||x||^2 < 1, but for the three maps that have kernels of their own (expmap0, logmap0,
// mobius_add). alpha = 1 - c||x||^2 and beta = 1 - c||y||^2 are kept at `min_gap` or more.
// Ganea et al. 2018; the arguments of artanh are given as odds u^2 / (1 - u^2), which do not lose digits near 1.
#pragma once

#include "stone/mobius_scalar_mul.h"

namespace STONE_NAMESPACE {

template <class S>
STONE_FUNCTION S gap(const S& c, const S& square, double min_gap) {
  return at_least(1.0 - c * square, min_gap);
}

// alpha with its sign where `min_gap` is 0: beyond the boundary it is negative, and the product of two such is not.
template <class S>
STONE_FUNCTION S signed_gap(const S& c, const S& square, double min_gap) {
  const S alpha = 1.0 - c * square;
  const bool held = (min_gap > 0.0) & (value_of(alpha) < min_gap);
  return choose(held, chain(alpha, min_gap, 0.0), alpha);
}

// Moebius addition's denominator after its guards is d + extra.
template <class S>
STONE_FUNCTION S denominator_extra(const S& d, double min_denominator, double offset) {
  const bool clamps = (min_denominator > 0.0) & (value_of(d) < min_denominator);
  return choose(clamps, min_denominator - d, chain(d, 0.0, 0.0)) + offset;
}

// x (+) tanh(sqrt(c) lambda_x ||v|| / 2) v / (sqrt(c) ||v||).
struct Expmap {
  using Layout = Tangent;
  static constexpr RowFormulaInfo kInfo{
      .name = "expmap", .vectors = {"x", "v"}, .scalars = {"c"},
      .guards = {"min_gap", "min_norm", "tanh_limit", "min_denominator", "denominator_offset", "max_radius"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* guard) {
    const S c = s[0];
    const S alpha = gap(c, m[Layout::kXX], guard[0]);
    const S squares = at_least(m[Layout::kYY], guard[1] * guard[1]);
    const S half = c * squares / square(alpha);
    const S bounded = at_most(half, guard[2] * guard[2]);
    const S k = tanhc(bounded) * shrink_to(guard[2], half) / alpha;
    const S sum = at_least(m[Layout::kXX] + 2.0 * k * m[Layout::kXY] + square(k) * m[Layout::kYY], 0.0);
    const S d = alpha * (1.0 - c * square(k) * m[Layout::kYY]) + c * sum;
    const S whole = d + denominator_extra(d, guard[3], guard[4]);
    const S of_x = (alpha + c * sum) / whole;
    const S of_v = alpha * k / whole;
    const S length = square(of_x) * m[Layout::kXX] + of_v * (2.0 * of_x * m[Layout::kXY] + of_v * m[Layout::kYY]);
    // From one side of the ball to the other large terms cancel: what rounding may add to the length is counted in.
    const double terms = value_of(square(of_x) * m[Layout::kXX] + square(of_v) * m[Layout::kYY]);
    const S longest = chain(length, value_of(length) + 16.0 * kRounding * terms, 1.0);
    const S inward = shrink_to(guard[5], c * longest);
    return {{of_x * inward, of_v * inward}};
  }
};

// 2 / (sqrt(c) lambda_x) artanh(sqrt(c) ||w||) w / ||w||, w = -x (+) y.
struct Logmap {
  using Layout = Difference;
  static constexpr RowFormulaInfo kInfo{
      .name = "logmap", .vectors = {"x", "y"}, .scalars = {"c"},
      .guards = {"min_gap", "min_denominator", "denominator_offset", "atanh_limit"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* guard) {
    const S c = s[0];
    const S alpha = gap(c, m[Layout::kXX], guard[0]);
    const S beta = gap(c, m[Layout::kYY], guard[0]);
    const S apart = c * m[Layout::kBB];
    const S d = alpha * beta + apart;
    const S extra = denominator_extra(d, guard[1], guard[2]);
    const S whole = d + extra;
    const S odds = apart * d / (d * alpha * beta + extra * (2.0 * d + extra));
    const S bounded = at_most(odds, odds_at(guard[3]));
    const S k = alpha * artanhc_of_odds(bounded) * shrink_to(guard[3], apart * d / square(whole)) / whole;
    return {{-apart * k, alpha * k}};
  }
};

// 2 / sqrt(c) artanh(sqrt(c) ||-x (+) y||) = 2 / sqrt(c) asinh(sqrt(c ||x - y||^2 / (alpha beta))).
struct PoincareDist {
  using Layout = Difference;
  static constexpr RowFormulaInfo kInfo{
      .name = "poincare_dist", .vectors = {"x", "y"}, .scalars = {"c"}, .gives_number = true,
      .guards = {"min_gap", "min_denominator", "denominator_offset", "atanh_limit"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    const S c = s[0];
    const S both = signed_gap(c, m[Layout::kXX], guard[0]) * signed_gap(c, m[Layout::kYY], guard[0]);
    const S apart = c * m[Layout::kBB];
    const S d = both + apart;
    const S extra = denominator_extra(d, guard[1], guard[2]);
    const S rest = at_least(d * both + extra * (2.0 * d + extra), 0.0);
    return {{asinh_of_quotient(apart * d, rest, odds_at(guard[3])) * (2.0 / root(c))}};
  }
};

// 2 / sqrt(c) artanh(sqrt(c) ||x||).
struct PoincareDist0 {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "poincare_dist0", .vectors = {"x"}, .scalars = {"c"}, .gives_number = true,
      .guards = {"min_gap", "min_norm", "atanh_limit"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    const S c = s[0];
    const S squares = at_least(m[Layout::kXX], guard[1] * guard[1]);
    return {{asinh_of_quotient(c * squares, gap(c, squares, guard[0]), odds_at(guard[2])) * (2.0 / root(c))}};
  }
};

// tanh(r artanh(sqrt(c) ||x||)) x / (sqrt(c) ||x||).
struct MobiusScalarMul {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "mobius_scalar_mul", .vectors = {"x"}, .scalars = {"c", "r"},
      .guards = {"min_gap", "min_norm", "atanh_limit", "tanh_limit", "max_radius"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    const S c = s[0];
    const double least = guard[1] * guard[1];
    const S squares = c * at_least(m[Layout::kXX], least);
    const S gap = at_least(1.0 - squares, guard[0]);
    const StretchLimits limits{value_of(c) * least, guard[2], guard[3], guard[4]};
    return {{tanh_of_multiple_over(s[1], c * m[Layout::kXX], squares, gap, limits)}};
  }
};

// What follows the product of mobius_matvec: x is M p, y is p,
// tanh(||x|| / ||y|| artanh(sqrt(c) ||y||)) x / (sqrt(c) ||x||).
struct MobiusMatvec {
  using Layout = Separate;
  static constexpr RowFormulaInfo kInfo{
      .name = "mobius_matvec", .vectors = {"mx", "x"}, .scalars = {"c"},
      .guards = {"min_gap", "min_norm", "atanh_limit", "tanh_limit", "max_radius"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    const S c = s[0];
    const S squares = c * at_least(m[Layout::kYY], guard[1] * guard[1]);
    const bool held = held_below(guard[2], value_of(squares));
    const S odds = squares / at_least(1.0 - squares, guard[0]);
    const S stretch = artanhc_of_odds(choose(held, chain(squares, odds_at(guard[2]), 0.0), odds)) *
                      shrink_to(guard[2] < 1.0 ? guard[2] : infinity(), squares);
    const S argument = square(stretch) * c * at_least(m[Layout::kXX], guard[1] * guard[1]);
    const S limited = at_most(argument, guard[3] * guard[3]);
    const S k = stretch * tanhc(limited) * shrink_to(guard[3], argument);
    return {{k * shrink_to(guard[4], c * square(k) * m[Layout::kXX])}};
  }
};

// Rows longer than (1 - eps) / sqrt(c + curvature_offset) are shortened to that.
struct Project {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "project", .vectors = {"x"}, .scalars = {"c"}, .guards = {"eps", "curvature_offset", "min_norm"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    const S squares = at_least(m[Layout::kXX], guard[2] * guard[2]);
    return {{shrink_to(1.0 - guard[0], squares * (s[0] + guard[1]))}};
  }
};

// lambda_x = 2 / (1 - c||x||^2).
struct ConformalFactor {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "conformal_factor", .vectors = {"x"}, .scalars = {"c"}, .gives_number = true, .guards = {"min_gap"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    return {{2.0 / signed_gap(s[0], m[Layout::kXX], guard[0])}};
  }
};

// x (+) t (x) (-x (+) y), through the hyperboloid: both shares of the arc are positive for t in [0, 1].
struct PoincareGeodesic {
  using Layout = Difference;
  static constexpr RowFormulaInfo kInfo{
      .name = "poincare_geodesic", .vectors = {"x", "y"}, .scalars = {"c", "t"}, .guards = {"min_gap", "max_radius"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* guard) {
    const S c = s[0];
    const S alpha = gap(c, m[Layout::kXX], guard[0]);
    const S beta = gap(c, m[Layout::kYY], guard[0]);
    const S odds = c * m[Layout::kBB] / (alpha * beta);
    const S squared_length = 4.0 * odds * square(asinhc(odds));
    const S of_x = share_of_arc(1.0 - s[1], squared_length) * beta;
    const S of_y = share_of_arc(s[1], squared_length) * alpha;
    const S time = of_x * (2.0 - alpha) + of_y * (2.0 - beta);
    const S k = 2.0 / (alpha * beta + time);
    const S p = of_x * k;
    const S q = of_y * k;
    const S squares = (p + q) * (p * m[Layout::kXX] + q * m[Layout::kYY]) - p * q * m[Layout::kBB];
    const S inward = shrink_to(guard[1], c * squares);
    return {{(p + q) * inward, q * inward}};
  }
};

// (lambda_x / lambda_y) gyr[y, -x] v.
struct PoincareTransport {
  using Layout = Transport;
  static constexpr RowFormulaInfo kInfo{
      .name = "poincare_transport", .vectors = {"x", "y", "v"}, .scalars = {"c"}, .guards = {"min_gap"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 3> of(const S* m, const S* s, const double* guard) {
    const S c = s[0];
    const S alpha = gap(c, m[Layout::kXX], guard[0]);
    const S beta = gap(c, m[Layout::kYY], guard[0]);
    const S cv = c * m[Layout::kXV];
    const S of_y = cv * (2.0 * c * m[Layout::kXB] - alpha) - square(c) * m[Layout::kXX] * m[Layout::kBV];
    const S of_x = c * (alpha * m[Layout::kBV] - cv * m[Layout::kBB]);
    const S ratio = beta / alpha;
    const S k = 2.0 * ratio / (alpha * beta + c * m[Layout::kBB]);
    return {{k * of_x, k * of_y, ratio}};
  }
};

}  // namespace STONE_NAMESPACE
