// From one model of hyperbolic space to another: isometries, all along the ray of the point.
#pragma once

#include "stone/formulas/poincare.h"

namespace STONE_NAMESPACE {

// (1 + c||x||^2, 2 sqrt(c) x) / (sqrt(c) alpha).
struct PoincareToLorentz {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "poincare_to_lorentz", .vectors = {"x"}, .scalars = {"c"}, .time_out = true, .guards = {"min_gap"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* guard) {
    const S alpha = gap(s[0], m[Layout::kXX], guard[0]);
    return {{2.0 / alpha, (2.0 - alpha) / (alpha * root(s[0]))}};
  }
};

// 2 x / (1 + c||x||^2).
struct PoincareToKlein {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "poincare_to_klein", .vectors = {"x"}, .scalars = {"c"}, .guards = {"max_radius"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    const S squares = s[0] * m[Layout::kXX];
    const S k = 2.0 / (1.0 + squares);
    return {{k * shrink_to(guard[0], square(k) * squares)}};
  }
};

// x / (1 + sqrt(c) x0).
struct LorentzToPoincare {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_to_poincare", .vectors = {"x"}, .scalars = {"c"}, .time_in = true, .guards = {"max_radius"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    const S squares = s[0] * m[Layout::kXX];
    const S k = 1.0 / (1.0 + time_over(squares));
    return {{k * shrink_to(guard[0], square(k) * squares)}};
  }
};

// x / (sqrt(c) x0).
struct LorentzToKlein {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "lorentz_to_klein", .vectors = {"x"}, .scalars = {"c"}, .time_in = true, .guards = {"max_radius"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    const S squares = s[0] * m[Layout::kXX];
    const S k = 1.0 / time_over(squares);
    return {{k * shrink_to(guard[0], square(k) * squares)}};
  }
};

// x / (1 + sqrt(alpha)).
struct KleinToPoincare {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "klein_to_poincare", .vectors = {"x"}, .scalars = {"c"}, .guards = {"min_gap", "max_radius"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 1> of(const S* m, const S* s, const double* guard) {
    const S k = 1.0 / (1.0 + root(gap(s[0], m[Layout::kXX], guard[0])));
    return {{k * shrink_to(guard[1], s[0] * square(k) * m[Layout::kXX])}};
  }
};

// (1, sqrt(c) x) / sqrt(c alpha).
struct KleinToLorentz {
  using Layout = Single;
  static constexpr RowFormulaInfo kInfo{
      .name = "klein_to_lorentz", .vectors = {"x"}, .scalars = {"c"}, .time_out = true, .guards = {"min_gap"}};
  template <class S>
  static STONE_FUNCTION Coefficients<S, 2> of(const S* m, const S* s, const double* guard) {
    const S width = root(gap(s[0], m[Layout::kXX], guard[0]));
    return {{1.0 / width, 1.0 / (width * root(s[0]))}};
  }
};

}  // namespace STONE_NAMESPACE
