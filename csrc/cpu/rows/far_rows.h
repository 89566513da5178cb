// Rows far from the origin of the hyperboloid, one at a time: what stone/far_rows.h needs summed, and its results.
#pragma once

#include "rows/formula_block.h"
#include "rows/formula_vectors.h"
#include "stone/far_rows.h"

namespace STONE_NAMESPACE {

// Not a product and a sum, which round twice.
STONE_FUNCTION Wide fused(Wide a, Wide b, Wide c) {
  Wide result;
  for (int i = 0; i < kWide; ++i) {
    result[i] = __builtin_fma(a[i], b[i], c[i]);
  }
  return result;
}

// A formula over one far row. Null for a formula that knows none.
struct FarFunctions {
  bool (*far)(const RowBlock& block, bool* far, double near_times, int count);
  FarValues (*values)(const FarSums& sums, const double* scalar, const double* guard);
  FarGradients (*gradients)(const FarSums& sums, double grad, const double* scalar, const double* guard);
};

template <class Formula>
constexpr FarFunctions far_functions() {
  if constexpr (kReachesFar<Formula>) {
    return {block_far<Formula>, Formula::Far::values, Formula::Far::gradients};
  } else {
    return {nullptr, nullptr, nullptr};
  }
}

// A row taken apart along the farther point and across it.
template <class Layout, class T, bool with_grad>
struct FarRow {
  static constexpr int kOthers = Layout::kVectors - 1 + (with_grad ? 1 : 0);

  const T* far;
  const T* other[kMaxOthers];
  double pivot;    // the largest entry of f
  double inverse;  // of it
  double at_pivot[kMaxOthers];
  double shift[kMaxOthers];
  FarSums sums;

  FarRow(const RowPointers<T>& row, const double* moments, int64_t dim) : sums(begin_far<Layout>(moments)) {
    far = row.vector[sums.second ? 1 : 0];
    other[0] = row.vector[sums.second ? 0 : 1];
    if constexpr (Layout::kVectors > 2) other[1] = row.vector[2];
    if constexpr (with_grad) other[kOthers - 1] = row.grad;
    find_pivot(dim);
    take_apart(dim);
  }

  STONE_FUNCTION Wide across(int a, Wide entry, Wide of_far) const {
    const Wide pivots = pivot - Wide{}, others = at_pivot[a] - Wide{};
    return inverse * minor_of(entry, others, of_far, pivots, fused) - shift[a] * of_far;
  }

 private:
  void find_pivot(int64_t dim) {
    Wide largest = {};
    for_wide(dim, [&](const auto& read) __attribute__((always_inline)) {
      const Wide entry = read(far), size = entry < 0.0 ? -entry : entry;
      largest = size > largest ? size : largest;
    });
    double size = 0.0;
    for (int i = 0; i < kWide; ++i) {
      size = largest[i] > size ? largest[i] : size;
    }
    int64_t at = 0;
    while (at + 1 < dim && static_cast<double>(load(far[at])) != size && static_cast<double>(load(far[at])) != -size) {
      ++at;
    }
    // Two points at the origin: nothing lies along or across it.
    pivot = size > 0.0 ? static_cast<double>(load(far[at])) : 1.0;
    inverse = 1.0 / pivot;
    for (int a = 0; a < kOthers; ++a) {
      at_pivot[a] = static_cast<double>(load(other[a][at]));
      shift[a] = 0.0;
    }
  }

  void take_apart(int64_t dim) {
    Wide along[kOthers] = {}, left[kOthers] = {}, product[kOthers] = {};
    for_wide(dim, [&](const auto& read) __attribute__((always_inline)) {
      const Wide f = read(far);
      STONE_UNROLL
      for (int a = 0; a < kOthers; ++a) {
        const Wide entry = read(other[a]);
        along[a] += f * entry;
        left[a] += f * across(a, entry, f);
      }
    });
    STONE_UNROLL
    for (int a = 0; a < kOthers; ++a) {
      sums.along[a] = sum_of(along[a]);
      shift[a] = sums.far_squares > 0.0 ? sum_of(left[a]) / sums.far_squares : 0.0;
    }
    for_wide(dim, [&](const auto& read) __attribute__((always_inline)) {
      const Wide f = read(far), first = across(0, read(other[0]), f);
      product[0] += first * first;
      STONE_UNROLL
      for (int a = 1; a < kOthers; ++a) {
        product[a] += first * across(a, read(other[a]), f);
      }
    });
    STONE_UNROLL
    for (int a = 0; a < kOthers; ++a) {
      sums.across[a] = sum_of(product[a]);
    }
  }
};

// of[0] f + of[1] a_across + ... over the first `count` of the others.
template <int count, class Layout, class T, bool with_grad>
inline void combine_far(T* result, const double* of, const FarRow<Layout, T, with_grad>& row, int64_t dim) {
  map_wide(dim, [&](const auto& read, const auto& write) __attribute__((always_inline)) {
    const Wide f = read(row.far);
    Wide sum = of[0] * f;
    STONE_UNROLL
    for (int a = 0; a < count; ++a) {
      sum += of[1 + a] * row.across(a, read(row.other[a]), f);
    }
    write(result, sum);
  });
}

}  // namespace STONE_NAMESPACE
