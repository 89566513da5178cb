// Distance matrices: tiles of pairs, each from two panels of points.
#pragma once

#include "pairs/cdist_panel.h"
#include "pairs/cdist_scratch.h"
#include "pairs/far_pairs.h"
#include "stone/arguments.h"
#include "stone/broadcast.h"
#include "stone/curvature.h"

namespace STONE_NAMESPACE {

// A tile's row at its full length, whatever part of it is used: the loop is then vector code alone.
template <bool guarded, class C>
__attribute__((noinline)) void row_distances(C* __restrict result, const C* __restrict squares, C weight,
                                             const C* __restrict weights, const PairScale<C> scale) {
#pragma omp simd
  for (int j = 0; j < kTile; ++j) {
    result[j] = pair_distance<guarded>(squares[j], weight * weights[j], scale);
  }
}

template <bool guarded, class T, class C>
inline void distances(T* result, const C* squares, const Panel<C>& x, int i, const Panel<C>& y, int64_t dim,
                      const PairScale<C>& scale, double c, const CdistArguments& a) {
  C row[kTile];
  row_distances<guarded>(row, squares, x.weight[i], y.weight, scale);
#pragma omp simd
  for (int j = 0; j < y.count; ++j) {
    result[j] = store<T>(static_cast<typename Compute<T>::type>(row[j]));
  }
  if (a.model == Model::kLorentz && any_far_pair<T>(squares, x, i, y, c)) {
    far_distances(result, squares, x, i, y, dim, c);
  }
  double wide[kTile];
  if (a.product == nullptr && wide_squares(wide, squares, x, i, y, dim)) {
    const PairScale<double> exact = pair_scale<double>(c, a.guards);
    for (int j = 0; j < y.count; ++j) {
      const double distance =
          pair_distance<guarded>(wide[j], wide_side(x, i, c).weight * wide_side(y, j, c).weight, exact);
      result[j] = store<T>(static_cast<typename Compute<T>::type>(distance));
    }
  }
}

// `begin` and `end` count tiles; those of the same columns follow each other.
template <class T, class C>
void cdist_forward(const CdistArguments& a, void* scratch, int64_t begin, int64_t end) {
  const int64_t down = tiles(a.rows), across = tiles(a.columns), dim = a.dim - space_start(a.model);
  CdistScratch<C> space(scratch, dim);
  Panel<C> x, y;
  x.points = a.product == nullptr ? space.x : nullptr;
  x.transposed = nullptr;
  y.points = nullptr;
  y.transposed = a.product == nullptr ? space.transposed : nullptr;
  int64_t packed = -1;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t matrix = tile / (down * across), column = tile / down % across * kTile, row = tile % down * kTile;
    const double c = curvature_at(a.c, source_row(a.map, 2, matrix));
    const PairScale<C> scale = pair_scale<C>(c, a.guards);
    if (packed != tile / down) {
      const T* source = static_cast<const T*>(a.y) + (source_row(a.map, 1, matrix) * a.columns + column) * a.dim;
      fill_panel(y, source, a.dim, tile_size(a.columns, column), a.model, c, a.guards.min_alpha);
      packed = tile / down;
    }
    const T* source = static_cast<const T*>(a.x) + (source_row(a.map, 0, matrix) * a.rows + row) * a.dim;
    fill_panel(x, source, a.dim, tile_size(a.rows, row), a.model, c, a.guards.min_alpha);
    if (a.product == nullptr) {
      square_tile(space.squares, x.points, y.transposed, dim, x.count, y.count);
    } else {
      const auto* products = static_cast<const typename Compute<T>::type*>(a.product);
      product_tile(space.squares, products + (matrix * a.rows + row) * a.columns + column, a.columns, 1, x, y);
    }
    for (int i = 0; i < x.count; ++i) {
      T* result = static_cast<T*>(a.result) + (matrix * a.rows + row + i) * a.columns + column;
      const C* squares = space.squares + i * kTile;
      if (changes_denominator(a.guards)) {
        distances<true>(result, squares, x, i, y, dim, scale, c, a);
      } else {
        distances<false>(result, squares, x, i, y, dim, scale, c, a);
      }
    }
  }
}

}  // namespace STONE_NAMESPACE
