// The vectors of a row of a formula: the inner products that a layout names, and combinations of them. Compiled for each
// layout and element type, whatever the formula.
#pragma once

#include "rows/row_sums.h"
#include "rows/rows.h"
#include "stone/row_layout.h"

namespace STONE_NAMESPACE {

// The vectors of one row, at their first space component.
template <class T>
struct RowPointers {
  const T* vector[kMaxVectors];
  const T* grad;
};

// How many elements further rows lie that are read later, of each vector and of the gradient.
struct Ahead {
  int64_t vector[kMaxVectors];
  int64_t grad;
};

template <class Layout>
STONE_FUNCTION Wide basis_of(Wide x, Wide y) {
  return Layout::kOfX == 0.0 ? y : (Layout::kOfX > 0.0 ? x + y : y - x);
}

// The second vector has a length of its own, and no part in the result.
template <class Layout>
constexpr bool kSeparate = Layout::kVectors > Layout::kBasis;

// Entries of the row vectors and of the gradient; those that the layout has not are 0.
struct RowEntries {
  Wide x, y, v, grad;
};

template <class Layout, bool with_grad, class T, class Read>
STONE_FUNCTION RowEntries read_entries(const RowPointers<T>& row, const Read& read, const Ahead& ahead = {}) {
  RowEntries e{};
  e.x = read(row.vector[0], ahead.vector[0]);
  if constexpr (Layout::kVectors > 1 && !kSeparate<Layout>) e.y = read(row.vector[1], ahead.vector[1]);
  if constexpr (Layout::kVectors > 2) e.v = read(row.vector[2], ahead.vector[2]);
  if constexpr (with_grad) e.grad = read(row.grad, ahead.grad);
  return e;
}

// The inner products of rows, and with `with_grad` those of the gradient with the basis of the result.
template <class Layout, bool with_grad>
constexpr int kSums = Layout::kMoments + (with_grad ? Layout::kBasis : 0);

template <class Layout, bool with_grad>
STONE_FUNCTION void add_terms(Wide* sum, const RowEntries& e) {
  const Terms<Wide> terms = Layout::terms(e.x, e.y, e.v);
  STONE_UNROLL
  for (int m = 0; m < Layout::kMoments; ++m) {
    sum[m] += terms.at[m];
  }
  if constexpr (with_grad) {
    Wide* along = sum + Layout::kMoments;
    along[0] += e.grad * e.x;
    if constexpr (Layout::kBasis > 1) along[1] += e.grad * basis_of<Layout>(e.x, e.y);
    if constexpr (Layout::kBasis > 2) along[2] += e.grad * e.v;
  }
}

// A factor that float32 holds need not be applied in float64.
STONE_FUNCTION bool scales_in_single(double factor) {
  const double size = factor < 0.0 ? -factor : factor;
  return size > 1e-30 && size < 1e30;
}

template <class Layout, class T>
inline void combine(T* result, const double* of, const RowPointers<T>& row, int64_t n) {
  const double of_x = of[0], of_b = of[1], of_v = of[2];
  if (Layout::kBasis == 1 && scales_in_single(of_x)) {
    scale(result, of_x, row.vector[0], n);
    return;
  }
  map_wide(n, [&](const auto& read, const auto& write) __attribute__((always_inline)) {
    const RowEntries e = read_entries<Layout, false>(row, read);
    Wide sum = of_x * e.x;
    if constexpr (Layout::kBasis > 1) sum += of_b * basis_of<Layout>(e.x, e.y);
    if constexpr (Layout::kBasis > 2) sum += of_v * e.v;
    write(result, sum);
  });
}

template <class Layout, class T, bool with_grad>
inline void combine_gradients(T* const* out, const VectorGradients& g, const RowPointers<T>& row, const int64_t* dim) {
  if (Layout::kVectors == 1 && !with_grad && scales_in_single(g.of[0][1])) {
    scale(out[0], g.of[0][1], row.vector[0], dim[0]);
    return;
  }
  map_wide(dim[0], [&](const auto& read, const auto& write) __attribute__((always_inline)) {
    const RowEntries e = read_entries<Layout, with_grad>(row, read);
    const Wide b = basis_of<Layout>(e.x, e.y);
    Wide of_x = g.of[0][1] * e.x;
    if constexpr (with_grad) of_x += g.of[0][0] * e.grad;
    if constexpr (Layout::kVectors > 1 && !kSeparate<Layout>) of_x += g.of[0][2] * b;
    if constexpr (Layout::kVectors > 2) of_x += g.of[0][3] * e.v;
    write(out[0], of_x);
    if constexpr (Layout::kVectors > 1 && !kSeparate<Layout>) {
      Wide of_y = g.of[1][1] * e.x + g.of[1][2] * b;
      if constexpr (with_grad) of_y += g.of[1][0] * e.grad;
      if constexpr (Layout::kVectors > 2) of_y += g.of[1][3] * e.v;
      write(out[1], of_y);
    }
    if constexpr (Layout::kVectors > 2) write(out[2], g.of[2][0] * e.grad + g.of[2][1] * e.x + g.of[2][2] * b);
  });
  if constexpr (kSeparate<Layout>) {
    scale(out[1], g.of[1][2], row.vector[1], dim[1]);
  }
}

}  // namespace STONE_NAMESPACE
