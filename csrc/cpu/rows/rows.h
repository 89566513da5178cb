// Loops over one row. Sums are float64 for every element type.
#pragma once

#include "stone/curvature.h"
#include "machine/wide.h"

namespace STONE_NAMESPACE {

// Scalars of this many rows are worked out together, so that their formulas become vector code.
constexpr int kBlock = 32;

// Rows in a block: few enough that a block stays in the first-level cache between its two readings.
inline int64_t block_rows(int64_t dim, int64_t element_bytes, int64_t operands) {
  const int64_t fitting = 24576 / (dim * element_bytes * operands + 1);
  return fitting < 1 ? 1 : (fitting > kBlock ? kBlock : fitting);
}

// Rows beyond `count` are worked out too, up to a whole number of vectors; nothing reads them.
inline int whole_vectors(int count) { return (count + 7) & ~7; }

// Whether all rows have the same number, so that what follows from it alone need not be worked out for each.
inline bool shares_number(const RowMap& map, int operand) { return map.depth == 1 && map.stride[operand][0] == 0; }

// A number of each of `count` rows from `first` on: the curvature, a time.
inline void read_numbers(double* numbers, const Curvature& source, const RowMap& map, int operand, int64_t first,
                         int count) {
  if (shares_number(map, operand)) {
    const double value = curvature_at(source, 0);
    for (int r = 0; r < count; ++r) {
      numbers[r] = value;
    }
    return;
  }
  for (int r = 0; r < count; ++r) {
    numbers[r] = curvature_at(source, source_row(map, operand, first + r));
  }
}

// Where `count` rows from `first` on begin.
template <class T>
inline void find_operand(const T** row, const T* base, const RowMap& map, int operand, int64_t width, int64_t first,
                         int count) {
  if (map.depth == 1) {
    const int64_t step = map.stride[operand][0] * width;
    base += first * step;
    for (int r = 0; r < count; ++r) {
      row[r] = base + r * step;
    }
    return;
  }
  for (int r = 0; r < count; ++r) {
    row[r] = base + source_row(map, operand, first + r) * width;
  }
}

template <class T>
inline void write_numbers(T* to, const double* numbers, int count) {
  for (int r = 0; r < count; ++r) {
    to[r] = static_cast<T>(numbers[r]);
  }
}

// Whether so many rows are more than may be expected in a cache, and are to be fetched ahead.
inline bool streams(int64_t rows, int64_t dim, int64_t element_bytes) {
  return rows * dim * element_bytes > (1 << 18);
}

// How many elements after a row the row of the next block begins; 0 where that is not known without asking the map.
inline int64_t next_block(const RowMap& map, int operand, int64_t width, int64_t step) {
  return map.depth == 1 ? map.stride[operand][0] * width * step : 0;
}

template <class T, class U>
inline double dot(const T* x, const U* y, int64_t dim) {
  // Two sums: each addition waits for the one before.
  Wide even{}, odd{};
  int64_t i = 0;
  for (; i + 2 * kWide <= dim; i += 2 * kWide) {
    even += read_wide(x + i) * read_wide(y + i);
    odd += read_wide(x + i + kWide) * read_wide(y + i + kWide);
  }
  for_wide(dim - i, [&, i](const auto& read) __attribute__((always_inline)) { even += read(x + i) * read(y + i); });
  return sum_of(even + odd);
}

struct PairOfDots {
  double xx;
  double xy;
};

template <class T, class U>
inline PairOfDots dot_two(const T* x, const U* y, int64_t dim) {
  Wide xx{}, xy{};
  for_wide(dim, [&](const auto& read) __attribute__((always_inline)) {
    const Wide a = read(x);
    xx += a * a;
    xy += a * read(y);
  });
  return {sum_of(xx), sum_of(xy)};
}

template <class T>
inline void scale(T* y, double factor, const T* x, int64_t dim) {
  using C = typename Compute<T>::type;
  const C f = static_cast<C>(factor);
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) {
    y[i] = store<T>(f * load(x[i]));
  }
}

// z = of_x * x + of_y * y.
template <class T, class U, class V>
inline void combine_two(T* z, double of_x, const U* x, double of_y, const V* y, int64_t dim) {
  map_wide(dim, [&](const auto& read, const auto& write) __attribute__((always_inline)) {
    write(z, of_x * read(x) + of_y * read(y));
  });
}

// z += factor * x, z of the type that x is computed in.
template <class T>
inline void add_scaled(typename Compute<T>::type* z, double factor, const T* x, int64_t dim) {
  map_wide(dim, [&](const auto& read, const auto& write) __attribute__((always_inline)) {
    write(z, read(z) + factor * read(x));
  });
}

}  // namespace STONE_NAMESPACE
