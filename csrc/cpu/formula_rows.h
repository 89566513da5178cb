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
STONE_FUNCTION RowEntries read_entries(const RowPointers<T>& row, const Read& read) {
  RowEntries e{};
  e.x = read(row.vector[0]);
  if constexpr (Layout::kVectors > 1 && !kSeparate<Layout>) e.y = read(row.vector[1]);
  if constexpr (Layout::kVectors > 2) e.v = read(row.vector[2]);
  if constexpr (with_grad) e.grad = read(row.grad);
  return e;
}

template <class Layout, class T, bool with_grad>
inline RowSums row_sums(const RowPointers<T>& row, const int64_t* dim) {
  Wide moment[kMaxMoments] = {};
  Wide along[3] = {};
  for_wide(dim[0], [&](const auto& read) __attribute__((always_inline)) {
    const RowEntries e = read_entries<Layout, with_grad>(row, read);
    const Terms<Wide> terms = Layout::terms(e.x, e.y, e.v);
    STONE_UNROLL
    for (int m = 0; m < Layout::kMoments; ++m) {
      moment[m] += terms.at[m];
    }
    if constexpr (with_grad) {
      along[0] += e.grad * e.x;
      if constexpr (Layout::kBasis > 1) along[1] += e.grad * basis_of<Layout>(e.x, e.y);
      if constexpr (Layout::kBasis > 2) along[2] += e.grad * e.v;
    }
  });
  RowSums sums{};
  STONE_UNROLL
  for (int m = 0; m < Layout::kMoments; ++m) {
    sums.moment[m] = sum_of(moment[m]);
  }
  if constexpr (kSeparate<Layout>) {
    sums.moment[1] = dot(row.vector[1], row.vector[1], dim[1]);
  }
  STONE_UNROLL
  for (int d = 0; with_grad && d < Layout::kBasis; ++d) {
    sums.dot[d] = sum_of(along[d]);
  }
  return sums;
}

template <class Layout, class T>
inline void combine(T* result, const double* of, const RowPointers<T>& row, int64_t n) {
  const double of_x = of[0], of_b = of[1], of_v = of[2];
  // A factor that float32 holds need not be applied in float64.
  if (Layout::kBasis == 1 && of_x > 1e-30 && of_x < 1e30) {
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

// The rows of a block, at their first space component, vector by vector.
template <class T>
struct BlockPointers {
  const T* vector[kMaxVectors][kBlock];

  template <class Layout>
  STONE_FUNCTION RowPointers<T> row(int r, const T* grad = nullptr) const {
    RowPointers<T> one{};
    STONE_UNROLL
    for (int v = 0; v < Layout::kVectors; ++v) {
      one.vector[v] = vector[v][r];
    }
    one.grad = grad;
    return one;
  }
};

// Where the rows from `first` on lie; what is a number of the row goes into the block.
template <class Layout, class T>
inline void find_rows(const RowArguments& a, const RowFormulaInfo& info, int64_t first, int count,
                      BlockPointers<T>& rows, RowBlock& block) {
  const int skipped = info.time_in ? 1 : 0;
  STONE_UNROLL
  for (int v = 0; v < Layout::kVectors; ++v) {
    const T* base = static_cast<const T*>(a.vector[v]);
    for (int r = 0; r < count; ++r) {
      rows.vector[v][r] = base + source_row(a.map, v, first + r) * a.width[v] + skipped;
    }
    if (info.time_in && v < 2) {
      for (int r = 0; r < count; ++r) {
        block.moment[Layout::kMoments + v][r] = static_cast<double>(load(rows.vector[v][r][-1]));
      }
    }
  }
  for (int s = 0; s < info.scalars; ++s) {
    read_numbers(block.scalar[s], a.scalar[s], a.map, Layout::kVectors + s, first, count);
  }
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
  const bool far = streams(end - begin, a.width[0], sizeof(T));
  RowBlock block{};
  BlockPointers<T> rows;
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    find_rows<Layout>(a, info, first, count, rows, block);
    for (int r = 0; r < count; ++r) {
      STONE_UNROLL
      for (int v = 0; far && v < Layout::kVectors; ++v) {
        fetch_ahead(rows.vector[v][r], a.width[v]);
      }
      const RowSums sums = row_sums<Layout, T, false>(rows.template row<Layout>(r), dim);
      STONE_UNROLL
      for (int m = 0; m < Layout::kMoments; ++m) {
        block.moment[m][r] = sums.moment[m];
      }
    }
    values(block, a.guard, count);
    T* result = static_cast<T*>(a.result) + first * a.result_width;
    if (info.gives_number || info.time_out) {
      const double* number = block.of[info.gives_number ? 0 : Layout::kBasis];
      for (int r = 0; r < count; ++r) {
        result[r * a.result_width] = store<T>(static_cast<typename Compute<T>::type>(number[r]));
      }
    }
    for (int r = 0; r < count && !info.gives_number; ++r) {
      double of[3] = {};
      STONE_UNROLL
      for (int i = 0; i < Layout::kBasis; ++i) {
        of[i] = block.of[i][r];
      }
      combine<Layout, T>(result + r * a.result_width + leading, of, rows.template row<Layout>(r), dim[0]);
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
  BlockPointers<T> rows;
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    find_rows<Layout>(a, info, first, count, rows, block);
    const T* grads = static_cast<const T*>(a.grad) + first * a.result_width;
    for (int r = 0; r < count; ++r) {
      const T* grad = grads + r * a.result_width;
      const RowSums sums = row_sums<Layout, T, with_grad>(rows.template row<Layout>(r, grad + leading), dim);
      STONE_UNROLL
      for (int m = 0; m < Layout::kMoments; ++m) {
        block.moment[m][r] = sums.moment[m];
      }
      STONE_UNROLL
      for (int d = 0; d < Layout::kBasis; ++d) {
        block.dot[d][r] = sums.dot[d];
      }
    }
    if (info.time_out || info.gives_number) {
      double* dots = block.dot[info.gives_number ? 0 : Layout::kBasis];
      for (int r = 0; r < count; ++r) {
        dots[r] = static_cast<double>(load(grads[r * a.result_width]));
      }
    }
    gradients(block, a.guard, count);
    for (int r = 0; r < count; ++r) {
      VectorGradients g;
      T* out[kMaxVectors] = {};
      STONE_UNROLL
      for (int v = 0; v < Layout::kVectors; ++v) {
        STONE_UNROLL
        for (int i = 0; i < 4; ++i) {
          g.of[v][i] = block.gradient[v][i][r];
        }
        T* start = static_cast<T*>(a.grad_vector[v]) + (first + r) * a.width[v];
        if (info.time_in) {
          start[0] = store<T>(static_cast<C>(v < 2 && v < times ? block.time_gradient[v & 1][r] : 0.0));
        }
        out[v] = start + skipped;
      }
      combine_gradients<Layout, T, with_grad>(out, g, rows.template row<Layout>(r, grads + r * a.result_width + leading),
                                              dim);
    }
    for (int s = 0; s < info.scalars; ++s) {
      write_numbers(static_cast<C*>(a.grad_scalar[s]) + first, block.scalar_gradient[s], count);
    }
  }
}

}  // namespace STONE_NAMESPACE
