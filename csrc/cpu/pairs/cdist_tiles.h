// The loops of a distance matrix over a tile of pairs: squared distances, sums of weighted differences, and what is read
// from other matrices of pairs.
#pragma once

#include "stone/storage.h"
#include "machine/vector.h"

namespace STONE_NAMESPACE {

// Pairs of a tile: rows of one operand by rows of the other.
constexpr int kTile = 64;
// Entries summed into one accumulator before it is added to a total, so that rounding does not grow with the sum.
constexpr int64_t kRun = 32;
// Registers of a row of a tile: with four rows and what they are computed from, all that there are.
constexpr int kTileVectors = kVectorBytes == 64 ? 4 : 2;

// Packed rows end with zeros up to a multiple of this.
template <class C>
STONE_FUNCTION int64_t padded(int64_t dim) {
  constexpr int64_t lanes = 64 / static_cast<int64_t>(sizeof(C));
  return (dim + lanes - 1) / lanes * lanes;
}

// squares[r][j] = sum over k of (x[r][k] - y[k][j])^2 for R rows; x is [R, stride], y is [dim, kTile].
template <class C, int R>
STONE_FUNCTION void square_rows(C* squares, const C* x, int64_t stride, const C* y, int64_t dim, int columns) {
  constexpr int L = kLanes<C>, Q = kTileVectors;
  for (int j = 0; j < columns; j += L * Q) {
    for (int64_t begin = 0; begin < dim; begin += kRun) {
      const int64_t end = begin + kRun < dim ? begin + kRun : dim;
      Vector<C> sum[R][Q] = {};
      for (int64_t k = begin; k < end; ++k) {
        Vector<C> other[Q];
        for (int q = 0; q < Q; ++q) {
          other[q] = read(y + k * kTile + j + q * L);
        }
        for (int r = 0; r < R; ++r) {
          const C value = x[r * stride + k];
          for (int q = 0; q < Q; ++q) {
            const Vector<C> difference = other[q] - value;
            sum[r][q] += difference * difference;
          }
        }
      }
      for (int r = 0; r < R; ++r) {
        for (int q = 0; q < Q; ++q) {
          C* total = squares + r * kTile + j + q * L;
          write(total, begin == 0 ? sum[r][q] : read(total) + sum[r][q]);
        }
      }
    }
  }
}

template <class C>
inline void square_tile(C* squares, const C* x, const C* y, int64_t dim, int rows, int columns) {
  const int64_t stride = padded<C>(dim);
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    square_rows<C, 4>(squares + r * kTile, x + r * stride, stride, y, dim, columns);
  }
  for (; r < rows; ++r) {
    square_rows<C, 1>(squares + r * kTile, x + r * stride, stride, y, dim, columns);
  }
  for (r = 0; r < rows; ++r) {
    for (int j = dim > 0 ? columns : 0; j < kTile; ++j) {
      squares[r * kTile + j] = C(0);
    }
  }
}

// sums[r] += sum over j of weights[r][j] (x[r] - y[j]) for R rows and Q vectors of entries; rows are `stride` apart.
template <class C, int R, int Q>
STONE_FUNCTION void weigh_rows(C* sums, const C* weights, const C* x, const C* y, int64_t stride, int columns) {
  constexpr int L = kLanes<C>;
  Vector<C> sum[R][Q] = {};
  for (int j = 0; j < columns; ++j) {
    Vector<C> other[Q];
    for (int q = 0; q < Q; ++q) {
      other[q] = read(y + j * stride + q * L);
    }
    for (int r = 0; r < R; ++r) {
      const C weight = weights[r * kTile + j];
      for (int q = 0; q < Q; ++q) {
        sum[r][q] += (read(x + r * stride + q * L) - other[q]) * weight;
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int q = 0; q < Q; ++q) {
      C* total = sums + r * stride + q * L;
      write(total, read(total) + sum[r][q]);
    }
  }
}

template <class C, int R>
inline void weigh_panel(C* sums, const C* weights, const C* x, const C* y, int64_t stride, int columns) {
  constexpr int L = kLanes<C>, Q = kTileVectors;
  int64_t k = 0;
  for (; k + L * Q <= stride; k += L * Q) {
    weigh_rows<C, R, Q>(sums + k, weights, x + k, y + k, stride, columns);
  }
  for (; k < stride; k += L) {
    weigh_rows<C, R, 1>(sums + k, weights, x + k, y + k, stride, columns);
  }
}

template <class C>
inline void weigh_tile(C* sums, const C* weights, const C* x, const C* y, int64_t dim, int rows, int columns) {
  const int64_t stride = padded<C>(dim);
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    weigh_panel<C, 4>(sums + r * stride, weights + r * kTile, x + r * stride, y, stride, columns);
  }
  for (; r < rows; ++r) {
    weigh_panel<C, 1>(sums + r * stride, weights + r * kTile, x + r * stride, y, stride, columns);
  }
}

// A tile of a matrix of pairs, laid out [kTile, kTile], with zeros beyond its columns; `across` and `down` are the
// strides of the matrix from column to column and row to row, one of them 1.
template <class T, class C>
inline void load_tile(C* tile, const T* matrix, int64_t down, int64_t across, int rows, int columns) {
  if (across == 1) {
    for (int i = 0; i < rows; ++i) {
#pragma omp simd
      for (int j = 0; j < columns; ++j) {
        tile[i * kTile + j] = static_cast<C>(load(matrix[i * down + j]));
      }
      for (int j = columns; j < kTile; ++j) {
        tile[i * kTile + j] = C(0);
      }
    }
    return;
  }
  for (int j = 0; j < columns; ++j) {
#pragma omp simd
    for (int i = 0; i < rows; ++i) {
      tile[i * kTile + j] = static_cast<C>(load(matrix[j * across + i]));
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = columns; j < kTile; ++j) {
      tile[i * kTile + j] = C(0);
    }
  }
}

template <class T, class C>
inline void store_tile(T* matrix, const C* tile, C factor, int64_t down, int rows, int columns) {
  for (int i = 0; i < rows; ++i) {
#pragma omp simd
    for (int j = 0; j < columns; ++j) {
      matrix[i * down + j] = static_cast<T>(factor * tile[i * kTile + j]);
    }
  }
}

}  // namespace STONE_NAMESPACE
