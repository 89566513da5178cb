// Up to kTile points of one operand, brought to the Poincare ball and laid out for the loops over pairs.
#pragma once

#include "pairs/cdist_tiles.h"
#include "rows/rows.h"
#include "stone/ball_image.h"
#include "stone/cdist.h"

namespace STONE_NAMESPACE {

template <class C>
struct Panel {
  C* points;      // [kTile, padded(dim)], or null
  C* transposed;  // [dim, kTile], or null
  const void* rows;  // as they are stored, from the first entry that spans the ball, `stride` apart
  int64_t stride;
  int count;
  BallImage images[kTile];
  C squares[kTile];
  C weight[kTile];
  C excess[kTile];
  C passes[kTile];

  template <class T>
  STONE_FUNCTION const T* row(int i) const {
    return static_cast<const T*>(rows) + i * stride;
  }
  STONE_FUNCTION PairSide<C> side(int i) const { return {weight[i], excess[i], passes[i]}; }
};

// The entries that span the ball: on the hyperboloid all but the first, which is time.
STONE_FUNCTION int64_t space_start(Model model) { return model == Model::kLorentz ? 1 : 0; }

template <class T, class C>
inline void fill_panel(Panel<C>& panel, const T* source, int64_t stride, int count, Model model, double c,
                       double min_alpha) {
  const int64_t start = space_start(model), dim = stride - start, width = padded<C>(dim);
  panel.count = count;
  panel.rows = source + start;
  panel.stride = stride;
  for (int i = 0; i < count; ++i) {
    const T* row = source + i * stride + start;
    const BallImage image = ball_image(model, dot(row, row, dim), c, min_alpha);
    panel.images[i] = image;
    const PairSide<C> side = pair_side<C>(image, c);
    panel.squares[i] = static_cast<C>(image.squares);
    panel.weight[i] = side.weight;
    panel.excess[i] = side.excess;
    panel.passes[i] = side.passes;
    if (panel.points != nullptr) {
      C* point = panel.points + i * width;
      const C factor = static_cast<C>(image.factor);
#pragma omp simd
      for (int64_t k = 0; k < dim; ++k) {
        point[k] = factor * static_cast<C>(load(row[k]));
      }
      for (int64_t k = dim; k < width; ++k) {
        point[k] = C(0);
      }
    }
    if (panel.transposed != nullptr) {
      const C factor = static_cast<C>(image.factor);
      for (int64_t k = 0; k < dim; ++k) {
        panel.transposed[k * kTile + i] = factor * static_cast<C>(load(row[k]));
      }
    }
  }
  for (int i = count; i < kTile; ++i) {
    panel.squares[i] = panel.weight[i] = panel.excess[i] = panel.passes[i] = C(0);
  }
  if (panel.transposed != nullptr && count < kTile) {
    for (int64_t k = 0; k < dim; ++k) {
      memset(panel.transposed + k * kTile + count, 0, static_cast<size_t>(kTile - count) * sizeof(C));
    }
  }
}

// Squared distances of a tile of pairs from their inner products, which are `down` apart from row to row and `across`
// from column to column; `tile` is [kTile, kTile].
template <class P, class C>
inline void product_tile(C* tile, const P* product, int64_t down, int64_t across, const Panel<C>& x, const Panel<C>& y) {
  load_tile(tile, product, down, across, x.count, y.count);
  for (int i = 0; i < x.count; ++i) {
    C* row = tile + i * kTile;
#pragma omp simd
    for (int j = 0; j < kTile; ++j) {
      row[j] = squares_of_product(x.squares[i], y.squares[j], row[j]);
    }
  }
}

// The squared distances of point `i` in float64, where the range of float32 does not hold them. False where it does:
// then `squares` stand as they are. Exact zeros are held.
STONE_FUNCTION bool wide_squares(double* /*wide*/, const double* /*squares*/, const Panel<double>& /*x*/, int /*i*/,
                                 const Panel<double>& /*y*/, int64_t /*dim*/) {
  return false;
}

inline bool wide_squares(double* wide, const float* squares, const Panel<float>& x, int i, const Panel<float>& y,
                         int64_t dim) {
  int outside = 0;
#pragma omp simd reduction(+ : outside)
  for (int j = 0; j < y.count; ++j) {
    outside += (squares[j] < kSmallSquares) | (squares[j] > 1.0f / kSmallSquares);
  }
  if (outside == 0) {
    return false;
  }
  const float* point = x.points + i * padded<float>(dim);
  bool differs = false;
  for (int j = 0; j < y.count; ++j) {
    if (squares[j] >= kSmallSquares && squares[j] <= 1.0f / kSmallSquares) {
      wide[j] = squares[j];
      continue;
    }
    double sum = 0.0;
    for (int64_t k = 0; k < dim; ++k) {
      const double difference = static_cast<double>(point[k]) - static_cast<double>(y.transposed[k * kTile + j]);
      sum += difference * difference;
    }
    wide[j] = sum;
    differs = differs || sum > 0.0;
  }
  return differs;
}

template <class C>
STONE_FUNCTION PairSide<double> wide_side(const Panel<C>& panel, int i, double c) {
  const BallImage& image = panel.images[i];
  return pair_side<double>(image, c);
}

}  // namespace STONE_NAMESPACE
