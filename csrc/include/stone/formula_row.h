// A row formula at one row: its gradients, exact, from the dual numbers of its coefficients.
#pragma once

#include "stone/row_formula.h"

namespace STONE_NAMESPACE {

template <class Formula>
constexpr int times_of() {
  if constexpr (requires { Formula::kTimes; }) {
    return Formula::kTimes;
  } else {
    return 0;
  }
}

template <class Formula>
constexpr bool kReachesFar = requires(const double* numbers) { Formula::reach(numbers, numbers); };

// How many numbers a formula takes and gives. Its quantities are moments, times where they are read, and scalars.
template <class Formula>
struct Slots {
  using Layout = typename Formula::Layout;
  static constexpr int kTimes = times_of<Formula>();
  static constexpr int kMoments = Layout::kMoments + kTimes;
  static constexpr int kScalars = Formula::kInfo.scalars.size;
  static constexpr int kQuantities = kMoments + kScalars;
  static constexpr int kGuards = Formula::kInfo.guards.size;
  static constexpr int kResults = Formula::kInfo.gives_number ? 1 : Layout::kBasis + (Formula::kInfo.time_out ? 1 : 0);
};

template <class Formula>
struct RowGradients {
  VectorGradients vectors;
  double quantity[Slots<Formula>::kQuantities];  // for the moments, times and scalars
};

// `dot`: the gradient of the result along x, b and v, then that of its time; or that of the number.
template <class Formula>
STONE_FUNCTION RowGradients<Formula> gradients_of_row(const double* quantity, const double* dot, const double* guard) {
  using Sizes = Slots<Formula>;
  using S = Dual<Sizes::kQuantities>;
  S q[Sizes::kQuantities];
  STONE_UNROLL
  for (int i = 0; i < Sizes::kQuantities; ++i) {
    q[i].value = quantity[i];
    STONE_UNROLL
    for (int k = 0; k < Sizes::kQuantities; ++k) {
      q[i].slope[k] = k == i ? 1.0 : 0.0;
    }
  }
  const auto result = Formula::template of<S>(q, q + Sizes::kMoments, guard);
  RowGradients<Formula> g;
  STONE_UNROLL
  for (int k = 0; k < Sizes::kQuantities; ++k) {
    g.quantity[k] = dot[0] * result.of[0].slope[k];
    STONE_UNROLL
    for (int i = 1; i < Sizes::kResults; ++i) {
      g.quantity[k] += dot[i] * result.of[i].slope[k];
    }
  }
  double of[kMaxCoefficients];
  STONE_UNROLL
  for (int i = 0; i < kMaxCoefficients; ++i) {
    of[i] = 0.0;
  }
  if constexpr (!Formula::kInfo.gives_number) {
    STONE_UNROLL
    for (int i = 0; i < Sizes::Layout::kBasis; ++i) {
      of[i] = result.of[i].value;
    }
  }
  g.vectors = vector_gradients<typename Sizes::Layout>(g.quantity, of);
  return g;
}

}  // namespace STONE_NAMESPACE
