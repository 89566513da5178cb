// Rows in and out of a block: the loops over rows of a formula, forward and backward. Compiled for each layout and
// element type, whatever the formula.
#pragma once

#include "rows/far_rows.h"
#include "kernels.h"

namespace STONE_NAMESPACE {

using BlockFunction = void (*)(RowBlock&, const double* guard, int count);

// A formula over a block: for numbers that each row has of its own, and for numbers that all rows share; and over rows
// that are far from the origin.
struct BlockFunctions {
  BlockFunction own;
  BlockFunction shared;
  FarFunctions far;
};

template <class Layout>
inline BlockFunction suited(const BlockFunctions& functions, const RowArguments& a, const RowFormulaInfo& info) {
  for (int s = 0; s < info.scalars.size; ++s) {
    if (!shares_number(a.map, Layout::kVectors + s)) {
      return functions.own;
    }
  }
  return functions.shared;
}

// The rows of a block, at their first space component, vector by vector.
template <class T>
struct BlockPointers {
  const T* vector[kMaxVectors][kBlock];
  const T* grad[kBlock];

  template <class Layout, bool with_grad>
  STONE_FUNCTION RowPointers<T> row(int r) const {
    RowPointers<T> one{};
    STONE_UNROLL
    for (int v = 0; v < Layout::kVectors; ++v) {
      one.vector[v] = vector[v][r];
    }
    if constexpr (with_grad) one.grad = grad[r];
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
    const T* base = static_cast<const T*>(a.vector[v]) + skipped;
    find_operand(rows.vector[v], base, a.map, v, a.width[v], first, count);
    if (info.time_in && v < 2) {
      for (int r = 0; r < count; ++r) {
        block.moment[Layout::kMoments + v][r] = static_cast<double>(load(rows.vector[v][r][-1]));
      }
    }
  }
  for (int s = 0; s < info.scalars.size; ++s) {
    read_numbers(block.scalar[s], a.scalar[s], a.map, Layout::kVectors + s, first, count);
  }
}

template <class Layout>
inline Ahead next_rows(const RowArguments& a, int64_t step) {
  Ahead ahead{};
  for (int v = 0; v < Layout::kVectors; ++v) {
    ahead.vector[v] = next_block(a.map, v, a.width[v], step);
  }
  ahead.grad = a.result_width * step;
  return ahead;
}

// The inner products of the rows of a block.
template <class Layout, class T, bool with_grad>
inline void sum_block(BlockPointers<T>& rows, const int64_t* dim, bool far, const Ahead& ahead, int count,
                      RowBlock& block) {
  constexpr int sums = kSums<Layout, with_grad>;
  double* to[sums];
  STONE_UNROLL
  for (int s = 0; s < sums; ++s) {
    to[s] = s < Layout::kMoments ? block.moment[s] : block.dot[s - Layout::kMoments];
  }
  STONE_UNROLL
  for (int v = 0; v < Layout::kVectors; ++v) {
    fill_up<sums>(rows.vector[v], count);
  }
  if constexpr (with_grad) fill_up<sums>(rows.grad, count);
  sum_rows<sums>(to, count, dim[0], far, [&](const auto& read, int r, Wide* sum) __attribute__((always_inline)) {
    const RowPointers<T> row = rows.template row<Layout, with_grad>(r);
    add_terms<Layout, with_grad>(sum, read_entries<Layout, with_grad>(row, read, ahead));
  });
  if constexpr (kSeparate<Layout>) {
    for (int r = 0; r < count; ++r) {
      block.moment[1][r] = dot(rows.vector[1][r], rows.vector[1][r], dim[1]);
    }
  }
}

// The numbers of one row.
struct RowNumbers {
  double moment[kMaxSlots];
  double scalar[kMaxScalars];

  RowNumbers(const RowBlock& block, int r) {
    for (int m = 0; m < kMaxSlots; ++m) {
      moment[m] = block.moment[m][r];
    }
    for (int s = 0; s < kMaxScalars; ++s) {
      scalar[s] = block.scalar[s][r];
    }
  }
};

// The results of a row far out, in place of those that its moments gave.
template <class Layout, class T>
[[gnu::noinline]] void far_forward(const RowArguments& a, const RowFormulaInfo& info, const FarFunctions& functions,
                                   const RowPointers<T>& pointers, const RowBlock& block, int r, T* result, int64_t dim) {
  using C = typename Compute<T>::type;
  const RowNumbers numbers(block, r);
  const FarRow<Layout, T, false> row(pointers, numbers.moment, dim);
  const FarValues values = functions.values(row.sums, numbers.scalar, a.guard);
  if (info.gives_number || info.time_out) {
    result[0] = store<T>(static_cast<C>(info.gives_number ? values.of[0] : values.time));
  }
  if (!info.gives_number) {
    combine_far<row.kOthers>(result + (info.time_out ? 1 : 0), values.of, row, dim);
  }
}

template <class Layout, class T, bool with_grad>
[[gnu::noinline]] void far_backward(const RowArguments& a, const RowFormulaInfo& info, const FarFunctions& functions,
                                    const RowPointers<T>& pointers, RowBlock& block, int r, T* const* out, double grad,
                                    int64_t dim) {
  using C = typename Compute<T>::type;
  const RowNumbers numbers(block, r);
  const FarRow<Layout, T, with_grad> row(pointers, numbers.moment, dim);
  const FarGradients g = functions.gradients(row.sums, grad, numbers.scalar, a.guard);
  for (int v = 0; v < Layout::kVectors; ++v) {
    if (info.time_in) {
      out[v][-1] = store<T>(static_cast<C>(0.0));
    }
    combine_far<row.kOthers>(out[v], g.of[v], row, dim);
  }
  for (int s = 0; s < info.scalars.size; ++s) {
    block.scalar_gradient[s][r] = g.scalar[s];
  }
}

// Numbers of the rows, `width` elements apart.
template <class T>
inline void write_column(T* to, int64_t width, const double* number, int count) {
  using C = typename Compute<T>::type;
  if (width == 1) {
#pragma omp simd
    for (int r = 0; r < count; ++r) {
      to[r] = store<T>(static_cast<C>(number[r]));
    }
    return;
  }
  for (int r = 0; r < count; ++r) {
    to[r * width] = store<T>(static_cast<C>(number[r]));
  }
}

// Layouts of which some formula minds how far out its rows are.
template <class Layout>
constexpr bool kMayReachFar = kTwoPoints<Layout> || (Layout::kBasis == 2 && Layout::kOfX == 0.0);

template <class Layout, class T>
inline bool find_distant(const FarFunctions& functions, const RowBlock& block, bool* distant, int count) {
  return kMayReachFar<Layout> && functions.far != nullptr && functions.far(block, distant, kNearTimes<T>, count);
}

template <class Layout, class T>
[[gnu::noinline]] void rows_forward(const RowArguments& a, const RowFormulaInfo& info, const BlockFunctions& functions,
                                    int64_t begin, int64_t end) {
  const int skipped = info.time_in ? 1 : 0;
  const int leading = info.time_out ? 1 : 0;
  int64_t dim[kMaxVectors];
  for (int v = 0; v < kMaxVectors; ++v) {
    dim[v] = a.width[v] - skipped;
  }
  const int64_t step = block_rows(a.width[0], sizeof(T), Layout::kVectors + 1);
  const bool far = streams(end - begin, a.width[0], sizeof(T));
  const Ahead ahead = next_rows<Layout>(a, step);
  const BlockFunction values = suited<Layout>(functions, a, info);
  RowBlock block{};
  BlockPointers<T> rows;
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    find_rows<Layout>(a, info, first, count, rows, block);
    sum_block<Layout, T, false>(rows, dim, far && first + step < end, ahead, count, block);
    values(block, a.guard, count);
    T* result = static_cast<T*>(a.result) + first * a.result_width;
    if (info.gives_number || info.time_out) {
      write_column(result, a.result_width, block.of[info.gives_number ? 0 : Layout::kBasis], count);
    }
    bool distant[kBlock] = {};
    const bool any_far = find_distant<Layout, T>(functions.far, block, distant, count);
    for (int r = 0; r < count && !info.gives_number; ++r) {
      double of[3] = {};
      STONE_UNROLL
      for (int i = 0; i < Layout::kBasis; ++i) {
        of[i] = block.of[i][r];
      }
      if (!distant[r]) {
        combine<Layout, T>(result + r * a.result_width + leading, of, rows.template row<Layout, false>(r), dim[0]);
      }
    }
    if constexpr (kMayReachFar<Layout>) {
      for (int r = 0; any_far && r < count; ++r) {
        if (distant[r]) {
          far_forward<Layout>(a, info, functions.far, rows.template row<Layout, false>(r), block, r,
                              result + r * a.result_width, dim[0]);
        }
      }
    }
  }
}

template <class Layout, class T, bool with_grad>
[[gnu::noinline]] void rows_backward(const RowArguments& a, const RowFormulaInfo& info, int times,
                                     const BlockFunctions& functions, int64_t begin, int64_t end) {
  using C = typename Compute<T>::type;
  const int skipped = info.time_in ? 1 : 0;
  const int leading = info.time_out ? 1 : 0;
  int64_t dim[kMaxVectors];
  for (int v = 0; v < kMaxVectors; ++v) {
    dim[v] = a.width[v] - skipped;
  }
  const int64_t step = block_rows(a.width[0], sizeof(T), 2 * Layout::kVectors + 1);
  const bool far = streams(end - begin, a.width[0], sizeof(T));
  const Ahead ahead = next_rows<Layout>(a, step);
  const BlockFunction gradients = suited<Layout>(functions, a, info);
  RowBlock block{};
  BlockPointers<T> rows;
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    find_rows<Layout>(a, info, first, count, rows, block);
    const T* grads = static_cast<const T*>(a.grad) + first * a.result_width;
    for (int r = 0; with_grad && r < count; ++r) {
      rows.grad[r] = grads + r * a.result_width + leading;
    }
    sum_block<Layout, T, with_grad>(rows, dim, far && first + step < end, ahead, count, block);
    bool distant[kBlock] = {};
    const bool any_far = find_distant<Layout, T>(functions.far, block, distant, count);
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
      if constexpr (kMayReachFar<Layout>) {
        if (any_far && distant[r]) {
          const double grad = info.time_out || info.gives_number ? static_cast<double>(load(grads[r * a.result_width])) : 0.0;
          far_backward<Layout, T, with_grad>(a, info, functions.far, rows.template row<Layout, with_grad>(r), block, r,
                                             out, grad, dim[0]);
          continue;
        }
      }
      combine_gradients<Layout, T, with_grad>(out, g, rows.template row<Layout, with_grad>(r), dim);
    }
    for (int s = 0; s < info.scalars.size; ++s) {
      write_numbers(static_cast<C*>(a.grad_scalar[s]) + first, block.scalar_gradient[s], count);
    }
  }
}

}  // namespace STONE_NAMESPACE
