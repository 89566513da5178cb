// Rows in and out of a block: the inner products that a layout names, and combinations of the row vectors. Compiled
// for each layout and element type, whatever the formula.
#pragma once

#include "formula_block.h"
#include "kernels.h"
#include "stone/broadcast.h"
#include "stone/curvature.h"

namespace STONE_NAMESPACE {

using BlockFunction = void (*)(RowBlock&, const double* guard, int count);

// The rows of a block, at their first space component.
template <class T>
struct RowPointers {
  const T* vector[kMaxVectors];
  const T* grad;
};

struct RowSums {
  double moment[kMaxMoments];
  double dot[3];
};

template <class Layout>
STONE_FUNCTION double basis_of(double x, double y) {
  return Layout::kOfX == 0.0 ? y : (Layout::kOfX > 0.0 ? x + y : y - x);
}

template <class Layout, class T, bool with_grad>
inline RowSums row_sums(const RowPointers<T>& row, const int64_t* dim) {
  double m0 = 0.0, m1 = 0.0, m2 = 0.0, m3 = 0.0, m4 = 0.0, m5 = 0.0, d0 = 0.0, d1 = 0.0, d2 = 0.0;
  const T* x = row.vector[0];
  const T* y = row.vector[1];
  const T* v = row.vector[2];
  const T* g = row.grad;
  constexpr bool separate = Layout::kVectors > Layout::kBasis;
  const int64_t n = dim[0];
#pragma omp simd reduction(+ : m0, m1, m2, m3, m4, m5, d0, d1, d2)
  for (int64_t i = 0; i < n; ++i) {
    const double p = static_cast<double>(load(x[i]));
    double q = 0.0, w = 0.0;
    if constexpr (Layout::kVectors > 1 && !separate) q = static_cast<double>(load(y[i]));
    if constexpr (Layout::kVectors > 2) w = static_cast<double>(load(v[i]));
    const Terms t = Layout::terms(p, q, w);
    m0 += t.at[0];
    if constexpr (Layout::kMoments > 1 && !separate) m1 += t.at[1];
    if constexpr (Layout::kMoments > 2) m2 += t.at[2];
    if constexpr (Layout::kMoments > 3) m3 += t.at[3];
    if constexpr (Layout::kMoments > 4) m4 += t.at[4];
    if constexpr (Layout::kMoments > 5) m5 += t.at[5];
    if constexpr (with_grad) {
      const double e = static_cast<double>(load(g[i]));
      d0 += e * p;
      if constexpr (Layout::kBasis > 1) d1 += e * basis_of<Layout>(p, q);
      if constexpr (Layout::kBasis > 2) d2 += e * w;
    }
  }
  if constexpr (separate) {
    m1 = dot(y, y, dim[1]);
  }
  return {{m0, m1, m2, m3, m4, m5}, {d0, d1, d2}};
}

template <class Layout, class T>
inline void combine(T* result, const double* of, const RowPointers<T>& row, int64_t n) {
  const T* x = row.vector[0];
  const T* y = row.vector[1];
  const T* v = row.vector[2];
  const double of_x = of[0], of_b = of[1], of_v = of[2];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const double p = static_cast<double>(load(x[i]));
    double sum = of_x * p;
    if constexpr (Layout::kBasis > 1) sum += of_b * basis_of<Layout>(p, static_cast<double>(load(y[i])));
    if constexpr (Layout::kBasis > 2) sum += of_v * static_cast<double>(load(v[i]));
    result[i] = store<T>(static_cast<typename Compute<T>::type>(sum));
  }
}

template <class Layout, class T, bool with_grad>
inline void combine_gradients(T* const* out, const VectorGradients& g, const RowPointers<T>& row, const int64_t* dim) {
  using C = typename Compute<T>::type;
  const T* x = row.vector[0];
  const T* y = row.vector[1];
  const T* v = row.vector[2];
  const T* grad = row.grad;
  T* out_x = out[0];
  T* out_y = out[1];
  T* out_v = out[2];
  constexpr bool separate = Layout::kVectors > Layout::kBasis;
  const int64_t n = dim[0];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const double p = static_cast<double>(load(x[i]));
    double e = 0.0, b = 0.0, w = 0.0;
    if constexpr (with_grad) e = static_cast<double>(load(grad[i]));
    double of_x = g.of[0][1] * p;
    if constexpr (with_grad) of_x += g.of[0][0] * e;
    if constexpr (Layout::kVectors > 1 && !separate) {
      b = basis_of<Layout>(p, static_cast<double>(load(y[i])));
      of_x += g.of[0][2] * b;
    }
    if constexpr (Layout::kVectors > 2) {
      w = static_cast<double>(load(v[i]));
      of_x += g.of[0][3] * w;
    }
    out_x[i] = store<T>(static_cast<C>(of_x));
    if constexpr (Layout::kVectors > 1 && !separate) {
      double of_y = g.of[1][1] * p + g.of[1][2] * b;
      if constexpr (with_grad) of_y += g.of[1][0] * e;
      if constexpr (Layout::kVectors > 2) of_y += g.of[1][3] * w;
      out_y[i] = store<T>(static_cast<C>(of_y));
    }
    if constexpr (Layout::kVectors > 2) {
      const double of_v = g.of[2][0] * e + g.of[2][1] * p + g.of[2][2] * b;
      out_v[i] = store<T>(static_cast<C>(of_v));
    }
  }
  if constexpr (separate) {
    scale(out_y, g.of[1][2], y, dim[1]);
  }
}

// The row vectors of row `index`, and what is a number of it, into place `r` of the block.
template <class Layout, class T>
inline RowPointers<T> find_row(const RowArguments& a, const RowFormulaInfo& info, int64_t index, int r,
                               RowBlock& block) {
  RowPointers<T> row{};
  const int skipped = info.time_in ? 1 : 0;
  for (int v = 0; v < Layout::kVectors; ++v) {
    const T* start = static_cast<const T*>(a.vector[v]) + source_row(a.map, v, index) * a.width[v];
    row.vector[v] = start + skipped;
    if (info.time_in && v < 2) {
      block.moment[Layout::kMoments + v][r] = static_cast<double>(load(start[0]));
    }
  }
  for (int s = 0; s < info.scalars; ++s) {
    block.scalar[s][r] = curvature_at(a.scalar[s], source_row(a.map, Layout::kVectors + s, index));
  }
  return row;
}

template <class Layout, class T>
[[gnu::noinline]] void rows_forward(const RowArguments& a, const RowFormulaInfo& info, BlockFunction values,
                                    int64_t begin, int64_t end) {
  const int skipped = info.time_in ? 1 : 0;
  const int leading = info.time_out ? 1 : 0;
  int64_t dim[kMaxVectors];
  for (int v = 0; v < kMaxVectors; ++v) {
    dim[v] = a.width[v] - skipped;
  }
  const int64_t step = block_rows(a.width[0], sizeof(T), Layout::kVectors + 1);
  RowBlock block{};
  RowPointers<T> rows[kBlock];
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    for (int r = 0; r < count; ++r) {
      rows[r] = find_row<Layout, T>(a, info, first + r, r, block);
      const RowSums sums = row_sums<Layout, T, false>(rows[r], dim);
      for (int m = 0; m < Layout::kMoments; ++m) {
        block.moment[m][r] = sums.moment[m];
      }
    }
    values(block, a.guard, count);
    for (int r = 0; r < count; ++r) {
      T* result = static_cast<T*>(a.result) + (first + r) * a.result_width;
      if (info.gives_number) {
        result[0] = store<T>(static_cast<typename Compute<T>::type>(block.of[0][r]));
        continue;
      }
      if (info.time_out) {
        result[0] = store<T>(static_cast<typename Compute<T>::type>(block.of[Layout::kBasis][r]));
      }
      const double of[3] = {block.of[0][r], block.of[1][r], block.of[2][r]};
      combine<Layout, T>(result + leading, of, rows[r], dim[0]);
    }
  }
}

template <class Layout, class T, bool with_grad>
[[gnu::noinline]] void rows_backward(const RowArguments& a, const RowFormulaInfo& info, int times,
                                     BlockFunction gradients, int64_t begin, int64_t end) {
  using C = typename Compute<T>::type;
  const int skipped = info.time_in ? 1 : 0;
  const int leading = info.time_out ? 1 : 0;
  int64_t dim[kMaxVectors];
  for (int v = 0; v < kMaxVectors; ++v) {
    dim[v] = a.width[v] - skipped;
  }
  const int64_t step = block_rows(a.width[0], sizeof(T), 2 * Layout::kVectors + 1);
  RowBlock block{};
  RowPointers<T> rows[kBlock];
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    for (int r = 0; r < count; ++r) {
      rows[r] = find_row<Layout, T>(a, info, first + r, r, block);
      const T* grad = static_cast<const T*>(a.grad) + (first + r) * a.result_width;
      rows[r].grad = grad + leading;
      const RowSums sums = row_sums<Layout, T, with_grad>(rows[r], dim);
      for (int m = 0; m < Layout::kMoments; ++m) {
        block.moment[m][r] = sums.moment[m];
      }
      for (int d = 0; d < 3; ++d) {
        block.dot[d][r] = sums.dot[d];
      }
      if (info.time_out || info.gives_number) {
        block.dot[info.gives_number ? 0 : Layout::kBasis][r] = static_cast<double>(load(grad[0]));
      }
    }
    gradients(block, a.guard, count);
    for (int r = 0; r < count; ++r) {
      VectorGradients g;
      T* out[kMaxVectors] = {};
      for (int v = 0; v < Layout::kVectors; ++v) {
        for (int i = 0; i < 4; ++i) {
          g.of[v][i] = block.gradient[v][i][r];
        }
        T* start = static_cast<T*>(a.grad_vector[v]) + (first + r) * a.width[v];
        if (info.time_in) {
          start[0] = store<T>(static_cast<C>(v < times ? block.time_gradient[v][r] : 0.0));
        }
        out[v] = start + skipped;
      }
      combine_gradients<Layout, T, with_grad>(out, g, rows[r], dim);
      for (int s = 0; s < info.scalars; ++s) {
        static_cast<C*>(a.grad_scalar[s])[first + r] = static_cast<C>(block.scalar_gradient[s][r]);
      }
    }
  }
}

}  // namespace STONE_NAMESPACE
