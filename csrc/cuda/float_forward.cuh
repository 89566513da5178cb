// Distance matrices of the ball on the GPU, computed in float32.
#pragma once

#include "float_tile.cuh"

namespace stone::cuda {

template <class T, int Own, bool guarded>
__device__ inline void float_distances(float (&squares)[Own][Own], const PairsOnDevice& p, const TilePlace& place,
                                       const portable::PairScale<float>& scale) {
  const FloatThread thread;
  T* const result = static_cast<T*>(p.a.result) + place.matrix * p.a.rows * p.a.columns;
  // All are read before a distance is stored: a read behind that would wait for memory with nothing else to do.
  float weights[Own], of_rows[Own];
#pragma unroll
  for (int j = 0; j < Own; ++j) {
    const int64_t row = place.row + thread.point(thread.y, j), column = place.column + thread.point(thread.x, j);
    of_rows[j] = row < p.a.rows ? p.sides[0][place.matrix * p.a.rows + row].of.weight : 0.0f;
    weights[j] = column < p.a.columns ? p.sides[1][place.matrix * p.a.columns + column].of.weight : 0.0f;
  }
  OddPairs<Own> odd;
#pragma unroll
  for (int i = 0; i < Own; ++i) {
    const int64_t row = place.row + thread.point(thread.y, i);
    if (row >= p.a.rows) {
      continue;
    }
#pragma unroll
    for (int first = 0; first < Own; first += kQuad) {
      float four[kQuad];
#pragma unroll
      for (int n = 0; n < kQuad; ++n) {
        const float each = squares[i][first + n];
        odd.add(is_odd(each), i, first + n);
        const float q = portable::pair_odds<guarded>(each, of_rows[i] * weights[first + n], scale);
        four[n] = portable::distance_of_odds(q, scale);
      }
      const int64_t column = place.column + thread.point(thread.x, first);
      write_quad(result + row * p.a.columns, packed<T>(four), column, p.a.columns, p.pairs_by_quads);
    }
  }
  odd.template each<T>(p, place, [&](int, int, int64_t row, int64_t column, double wide) {
    const double c = portable::curvature_at(p.a.c, portable::source_row(p.a.map, 2, place.matrix));
    const double both = wide_side(p, 0, place.matrix, row, c).weight * wide_side(p, 1, place.matrix, column, c).weight;
    const double distance = portable::pair_distance<guarded>(wide, both, portable::pair_scale<double>(c, p.a.guards));
    result[row * p.a.columns + column] = store<T>(static_cast<float>(distance));
  });
}

template <class T, int Own>
__global__ void __launch_bounds__(kThreads, Own > kQuad ? 1 : 2) float_cdist_forward(const PairsOnDevice p) {
  __shared__ FloatBuffers<Own> buffers;
  const int64_t count = p.a.batch * p.down * p.across;
  for (int64_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
    const TilePlace place = tile_place(p, tile);
    const portable::PairScale<float> scale = p.scales[place.matrix];
    float squares[Own][Own];
    float_squares<T, Own>(squares, buffers, p, place);
    if (p.guarded) {
      float_distances<T, Own, true>(squares, p, place, scale);
    } else {
      float_distances<T, Own, false>(squares, p, place, scale);
    }
  }
}

// From inner products: one pass over the matrix, by strips of rows of 256 columns, four of them for a thread.
constexpr int kStripColumns = 256;
constexpr int kStripRows = 32;

template <class T, bool guarded>
__device__ inline void strip_distances(const PairsOnDevice& p, const TilePlace& place,
                                       const portable::PairScale<float>& scale) {
  constexpr int kLanes = kStripColumns / kQuad, kStep = kThreads / kLanes, kOnce = 4;
  const int64_t column = place.column + static_cast<int>(threadIdx.x) % kLanes * kQuad;
  const int64_t first = place.row + static_cast<int>(threadIdx.x) / kLanes;
  const int64_t first_pair = place.matrix * p.a.rows * p.a.columns;
  const FloatRows<float> products{static_cast<const float*>(p.a.product) + first_pair, p.a.columns, p.a.rows,
                                  p.a.columns, p.pairs_by_quads};
  T* const result = static_cast<T*>(p.a.result) + first_pair;
  float weights[kQuad], others[kQuad];
#pragma unroll
  for (int n = 0; n < kQuad; ++n) {
    const bool inside = column + n < p.a.columns;
    const FloatSide side = inside ? p.sides[1][place.matrix * p.a.columns + column + n] : FloatSide{};
    weights[n] = side.of.weight;
    others[n] = side.squares;
  }
#pragma unroll 1
  for (int begin = 0; begin < kStripRows; begin += kStep * kOnce) {
    Pack<float, kQuad> product[kOnce];
    float of_row[kOnce], squares_of_row[kOnce];
#pragma unroll
    for (int i = 0; i < kOnce; ++i) {
      const int64_t row = first + begin + i * kStep;
      const FloatSide side = row < p.a.rows ? p.sides[0][place.matrix * p.a.rows + row] : FloatSide{};
      of_row[i] = side.of.weight;
      squares_of_row[i] = side.squares;
      product[i] = read_quad(products, first + begin + i * kStep, column);
    }
#pragma unroll
    for (int i = 0; i < kOnce; ++i) {
      const int64_t row = first + begin + i * kStep;
      if (row >= p.a.rows) {
        continue;
      }
      float four[kQuad];
#pragma unroll
      for (int n = 0; n < kQuad; ++n) {
        const float squares = portable::squares_of_product(squares_of_row[i], others[n], product[i].at[n]);
        const float q = portable::pair_odds<guarded>(squares, of_row[i] * weights[n], scale);
        four[n] = portable::distance_of_odds(q, scale);
      }
      write_quad(result + row * p.a.columns, packed<T>(four), column, p.a.columns, p.pairs_by_quads);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 3) product_cdist_forward(const PairsOnDevice p) {
  const int64_t across = tiles(p.a.columns, kStripColumns), down = tiles(p.a.rows, kStripRows);
  for (int64_t strip = blockIdx.x; strip < p.a.batch * down * across; strip += gridDim.x) {
    const TilePlace place{strip / (down * across), strip / across % down * kStripRows, strip % across * kStripColumns};
    const portable::PairScale<float> scale = p.scales[place.matrix];
    if (p.guarded) {
      strip_distances<T, true>(p, place, scale);
    } else {
      strip_distances<T, false>(p, place, scale);
    }
  }
}

}  // namespace stone::cuda
