// Distance matrices on the GPU, computed in float64.
#pragma once

#include "pair_tile.cuh"

namespace stone::cuda {

template <class T>
__global__ void __launch_bounds__(kThreads, 1) cdist_forward(const PairsOnDevice p) {
  using C = double;
  using Stored = typename portable::Compute<T>::type;
  __shared__ PairBuffers<C> buffers;
  const int tx = static_cast<int>(threadIdx.x) % kSide, ty = static_cast<int>(threadIdx.x) / kSide;
  const int64_t count = p.a.batch * p.down * p.across;
  for (int64_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
    const TilePlace place = tile_place(p, tile);
    const double c = portable::curvature_at(p.a.c, portable::source_row(p.a.map, 2, place.matrix));
    const portable::PairScale<C> scale = portable::pair_scale<C>(c, p.a.guards);
    C squares[kOwn][kOwn];
    pair_squares<T, C>(squares, buffers, p, place);
    const OwnSides<C> x(p, 0, place.matrix, place.row + ty, c);
    const OwnSides<C> y(p, 1, place.matrix, place.column + tx, c);
    T* const result = static_cast<T*>(p.a.result) + place.matrix * p.a.rows * p.a.columns;
    FarOfThread far;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const int64_t row = place.row + ty + i * kSide, column = place.column + tx + j * kSide;
        if (row >= p.a.rows || column >= p.a.columns) {
          continue;
        }
        const Stored distance = static_cast<Stored>(
            pair_distance(squares[i][j], x.of[i].weight * y.of[j].weight, scale, p.guarded));
        if (is_far_pair<T>(p, squares[i][j], x.of[i].weight * y.of[j].weight, c)) {
          far.add(i, j);
        }
        result[row * p.a.columns + column] = store<T>(distance);
      }
    }
    far.each<T>(p, place, [&](int, int64_t row, int64_t column, const portable::FarSums& sums) {
      const double guard = 0.0;
      const double distance = portable::FarDist::values(sums, &c, &guard).of[0];
      result[row * p.a.columns + column] = store<T>(static_cast<Stored>(distance));
    });
  }
}

}  // namespace stone::cuda
