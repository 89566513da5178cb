// The working memory of one thread on distance matrices, and how these are divided into tiles.
#pragma once

#include "pairs/cdist_tiles.h"

namespace STONE_NAMESPACE {

STONE_FUNCTION int64_t tiles(int64_t extent) { return (extent + kTile - 1) / kTile; }

STONE_FUNCTION int tile_size(int64_t extent, int64_t begin) {
  return static_cast<int>(extent - begin < kTile ? extent - begin : kTile);
}

template <class C>
struct CdistScratch {
  C* squares;
  C* grad;
  C* transposed;
  C* x;
  C* y;
  C* sums;
  double* far;  // sums over far pairs, which only the hyperboloid has

  STONE_FUNCTION CdistScratch(void* memory, int64_t dim) {
    const int64_t panel = kTile * padded<C>(dim);
    squares = static_cast<C*>(memory);
    grad = squares + kTile * kTile;
    transposed = grad + kTile * kTile;
    x = transposed + panel;
    y = x + panel;
    sums = y + panel;
    far = reinterpret_cast<double*>(sums + panel);
  }

  static STONE_FUNCTION int64_t bytes(int64_t dim, bool with_far) {
    return (2 * kTile * kTile + 4 * kTile * padded<C>(dim)) * static_cast<int64_t>(sizeof(C)) +
           (with_far ? kTile * dim * static_cast<int64_t>(sizeof(double)) : 0);
  }
};

}  // namespace STONE_NAMESPACE
