// The hyperboloid -x0^2 + ||x||^2 = -1/c, x0 > 0. Rows begin with the time component, which is taken from the space
// components: x0 = sqrt(1/c + ||x||^2); what is stored there is read by lorentz_inner alone.
#pragma once

#include "stone/formulas/lorentz_far.h"

namespace STONE_NAMESPACE {

// sinh(sqrt(c) d / 2)^2 of two points, from the differences of their space components; and what it is made of. Its error
// grows with their times, as `reach` says: beyond that lorentz_far.h takes the rows apart.
template <class S>
struct LorentzPoints {
  S x_time;  // times sqrt(c)
  S y_time;
  S time_difference;  // times sqrt(c)
  S half;
};

template <class S, class Layout>
STONE_FUNCTION LorentzPoints<S> lorentz_points(const S* m, const S& c) {
  LorentzPoints<S> p;
  p.x_time = time_over(c * m[Layout::kXX]);
  p.y_time = time_over(c * m[Layout::kYY]);
  p.time_difference = c * (2.0 * m[Layout::kXB] + m[Layout::kBB]) / (p.x_time + p.y_time);
  p.half = at_least(0.25 * (c * m[Layout::kBB] - square(p.time_difference)), 0.0);
  return p;
}

template <class Layout>
struct PointsReach {
  static STONE_FUNCTION double reach(const double* m, const double* s) {
    return reach_of(s[0], m[Layout::kXX], m[Layout::kYY]);
  }
};

struct LorentzInner {
  using Layout = Tangent;
  static constexpr int kTimes = 2;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_inner", .vectors = {"x", "y"}, .gives_number = true, .time_in = true};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* /*s*/, const double* /*guard*/) {
    return {{m[Layout::kXY] - m[Layout::kMoments] * m[Layout::kMoments + 1]}};
  }
};

// (cosh(u) / sqrt(c), sinh(u) / u v), u = sqrt(c) ||v||.
struct LorentzExpmap0 {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_expmap0", .vectors = {"v"}, .scalars = {"c"}, .time_in = true, .time_out = true,
      .guards = {"min_norm", "max_argument"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* guard) {
    const S u2 = s[0] * at_least(m[Layout::kXX], guard[0] * guard[0]);
    const OddAndEven<S> h = hyperbolic_pair(u2, guard[1]);
    return {{h.odd, h.even * (1.0 / root(s[0]))}};
  }
};

// (0, asinh(u) / u x), u = sqrt(c) ||x||.
struct LorentzLogmap0 {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_logmap0", .vectors = {"x"}, .scalars = {"c"}, .time_in = true, .time_out = true};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* /*guard*/) {
    const S u2 = s[0] * m[Layout::kXX];
    return {{asinhc(u2), chain(u2, 0.0, 0.0)}};
  }
};

// cosh(u) x + sinh(u) / u v, u = sqrt(c <v, v>), with the v0 that makes v tangent at x: <v, v> is the squared length of
// v - c <x, v>_space / (x_time (1 + x_time)) x.
struct LorentzExpmap {
  using Layout = Tangent;
  using Far = FarExpmap;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_expmap", .vectors = {"x", "v"}, .scalars = {"c"}, .time_in = true, .time_out = true,
      .guards = {"max_argument"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 3> of(const S* m, const S* s, const double* guard) {
    const S c = s[0];
    const S x_time = time_over(c * m[Layout::kXX]);
    const S v_time = c * m[Layout::kXY] / x_time;  // times sqrt(c)
    const S u2 = at_least(c * m[Layout::kYY] - square(v_time), 0.0);
    const OddAndEven<S> h = hyperbolic_pair(u2, guard[0]);
    return {{h.even, h.odd, at_least(h.even * x_time + h.odd * v_time, 1.0) * (1.0 / root(c))}};
  }
  // A way through the origin magnifies the error of u once more.
  static STONE_FUNCTION double reach(const double* m, const double* s) {
    const double squared_time = (1.0 + s[0] * m[Layout::kXX]) * sqrt(kReachScale);
    const double reach = (squared_time * squared_time) * (squared_time * squared_time);
    return (reach > kLargestReach) & (squared_time < kLargestReach) ? kLargestReach : reach;
  }
};

// u / sinh(u) (y - cosh(u) x), u = sqrt(c) d(x, y).
struct LorentzLogmap : PointsReach<DifferenceAndInner> {
  using Layout = DifferenceAndInner;
  using Far = FarLogmap;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_logmap", .vectors = {"x", "y"}, .scalars = {"c"}, .time_in = true, .time_out = true};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 3> of(const S* m, const S* s, const double* /*guard*/) {
    const LorentzPoints<S> p = lorentz_points<S, Layout>(m, s[0]);
    const S k = asinhc(p.half) / root(1.0 + p.half);
    return {{-2.0 * p.half * k, k, k * (p.time_difference - 2.0 * p.half * p.x_time) * (1.0 / root(s[0]))}};
  }
};

// arcosh(-c <x, y>) / sqrt(c), the argument kept at `min_argument` or more.
struct LorentzDist : PointsReach<DifferenceAndInner> {
  using Layout = DifferenceAndInner;
  using Far = FarDist;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_dist", .vectors = {"x", "y"}, .scalars = {"c"}, .gives_number = true, .time_in = true,
      .guards = {"min_argument"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    const LorentzPoints<S> p = lorentz_points<S, Layout>(m, s[0]);
    const double least = guard[0] > 1.0 ? 0.5 * (guard[0] - 1.0) : 0.0;
    return {{asinh_of_square(at_least(p.half, least)) * (2.0 / root(s[0]))}};
  }
};

// The space components as they are, under the time that puts them on the hyperboloid.
struct LorentzProject {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_project", .vectors = {"x"}, .scalars = {"c"}, .time_in = true, .time_out = true};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* /*guard*/) {
    return {{chain(m[Layout::kXX], 1.0, 0.0), time_over(s[0] * m[Layout::kXX]) * (1.0 / root(s[0]))}};
  }
};

// (sinh((1 - t) u) x + sinh(t u) y) / sinh(u), u = sqrt(c) d(x, y).
struct LorentzGeodesic : PointsReach<DifferenceAndInner> {
  using Layout = DifferenceAndInner;
  using Far = FarGeodesic;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_geodesic", .vectors = {"x", "y"}, .scalars = {"c", "t"}, .time_in = true, .time_out = true};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 3> of(const S* m, const S* s, const double* /*guard*/) {
    const LorentzPoints<S> p = lorentz_points<S, Layout>(m, s[0]);
    const S squared_length = 4.0 * p.half * square(asinhc(p.half));
    const S of_x = share_of_arc(1.0 - s[1], squared_length);
    const S of_y = share_of_arc(s[1], squared_length);
    return {{of_x + of_y, of_y, at_least(of_x * p.x_time + of_y * p.y_time, 1.0) * (1.0 / root(s[0]))}};
  }
};

// v + c <y, v> / (1 + cosh(sqrt(c) d(x, y))) (x + y), with the v0 that makes v tangent at x.
struct LorentzTransport : PointsReach<Transport> {
  using Layout = Transport;
  using Far = FarTransport;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_transport", .vectors = {"x", "y", "v"}, .scalars = {"c"}, .time_in = true, .time_out = true};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 4> of(const S* m, const S* s, const double* /*guard*/) {
    const LorentzPoints<S> p = lorentz_points<S, Layout>(m, s[0]);
    const S v_time = s[0] * m[Layout::kXV] / p.x_time;  // times sqrt(c)
    const S k = 0.5 * (s[0] * m[Layout::kBV] - p.time_difference * v_time) / (1.0 + p.half);
    return {{2.0 * k, k, chain(k, 1.0, 0.0), (v_time + k * (p.x_time + p.y_time)) * (1.0 / root(s[0]))}};
  }
};

// (w / sqrt(c), sqrt((w^2 - 1) / (c ||s||^2)) s) for a row (t, s), w = offset + scale sigmoid(t), at least 1: what
// follows the product in HyboNet's linear layer (Chen et al. 2022). ||s||^2 is kept at `min_squares` or more; with no
// such guard s = 0 goes to the origin, the one point over it.
struct LorentzRescale {
  using Layout = Single;
  static constexpr int kTimes = 1;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_rescale", .vectors = {"y"}, .scalars = {"c", "scale"}, .time_in = true, .time_out = true,
      .guards = {"offset", "min_squares"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* guard) {
    const S w = at_least(s[1] * sigmoid(m[Layout::kMoments]) + guard[0], 1.0);
    const S squares = at_least(m[Layout::kXX], guard[1]);
    const bool at_origin = value_of(squares) == 0.0;
    const S length = choose(at_origin, chain(squares, 1.0, 0.0), squares);
    const S factor = root((w - 1.0) * (w + 1.0) / (s[0] * length));
    const S none = chain(squares, 0.0, 0.0);
    return {{choose(at_origin, none, factor), choose(at_origin, none + 1.0, w) / root(s[0])}};
  }
};

}  // namespace STONE_NAMESPACE
