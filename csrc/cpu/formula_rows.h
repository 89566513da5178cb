// Rows in and out of a block: the loops over rows of a formula, forward and backward. Compiled for each layout and
// element type, whatever the formula.
#pragma once

#include "formula_block.h"
#include "formula_vectors.h"
#include "kernels.h"

namespace STONE_NAMESPACE {

using BlockFunction = void (*)(RowBlock&, const double* guard, int count);

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
