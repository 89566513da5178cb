// What the kernels of distance matrices share, and a tile of pairs that are computed in float64: 64 points of either
// operand, 4 by 4 of the pairs for each thread of a block.
#pragma once

#include "far_row.cuh"
#include "row_group.cuh"
#include "stone/arguments.h"
#include "stone/ball_image.h"
#include "stone/broadcast.h"
#include "stone/cdist.h"
#include "stone/curvature.h"
#include "stone/formulas/lorentz.h"

namespace stone::cuda {

using portable::load;
using portable::store;

constexpr int kTile = 64;
constexpr int kSide = 16;           // threads along either side of a tile
constexpr int kOwn = kTile / kSide;  // points of either operand for a thread
constexpr int kDepth = 16;          // entries of each point in shared memory at once, summed before they are added up

__host__ __device__ inline int64_t tiles(int64_t extent, int64_t tile = kTile) { return (extent + tile - 1) / tile; }

// Which of the two formulas is the same for all pairs.
template <class C>
__device__ inline C pair_distance(C squares, C weights, const portable::PairScale<C>& scale, bool guarded) {
  return guarded ? portable::pair_distance<true>(squares, weights, scale)
                 : portable::pair_distance<false>(squares, weights, scale);
}

template <class C>
__device__ inline portable::PairGradient<C> pair_gradient(C grad, C squares, const portable::PairSide<C>& x,
                                                          const portable::PairSide<C>& y,
                                                          const portable::PairScale<C>& scale, bool guarded) {
  return guarded ? portable::pair_gradient<true>(grad, squares, x, y, scale)
                 : portable::pair_gradient<false>(grad, squares, x, y, scale);
}

// What pairs that are computed in float32 need of a point, in one read.
struct alignas(16) FloatSide {
  portable::PairSide<float> of;
  float squares;
};

// A matrix of pairs, and where its parts lie in scratch memory.
struct PairsOnDevice {
  CdistArguments a;
  int tile;          // points of either operand in a tile
  int64_t down;      // tiles of x
  int64_t across;    // tiles of y
  int64_t start;     // entries in front of those that span the ball
  int64_t dim;       // entries that do
  bool guarded;      // whether the denominator is changed
  portable::BallImage* images[2];  // [batch, points] of x and of y
  FloatSide* sides[2];  // the same for pairs that are computed in float32, else null
  portable::PairScale<float>* scales;  // [batch], where they are
  bool by_quads[2];       // whether four entries of a point lie together at a multiple of their size
  bool pairs_by_quads;    // the same for every matrix of pairs
  void* weights;     // backward only: [batch, rows, columns], in the type that pairs are computed in
  void* sums[2];     // backward only: [parts, batch, points, dim], of the weighted differences
  int64_t parts[2];  // of the other points, each with sums of its own
  double* along[2];  // backward only: [batch, other tiles, points], of the terms along the point
  double* of_pairs;  // backward only: [batch, tiles of y, rows], the pairs' own derivative for log(c)
  bool* far;         // backward of the hyperboloid only: [batch, rows, columns], whether a pair is far out
  double* far_sums[2];  // where it is: [batch, points, dim], the gradients of such pairs

  __host__ __device__ int64_t points(int side) const { return side == 0 ? a.rows : a.columns; }
  __host__ __device__ const void* source(int side) const { return side == 0 ? a.x : a.y; }
};

// The points of operand `side` in a matrix, p.a.dim apart, each from its first entry that spans the ball.
template <class T>
__device__ inline const T* points_of(const PairsOnDevice& p, int side, int64_t matrix) {
  const int64_t first = portable::source_row(p.a.map, side, matrix) * p.points(side);
  return static_cast<const T*>(p.source(side)) + first * p.a.dim + p.start;
}

struct TilePlace {
  int64_t matrix;
  int64_t row;
  int64_t column;
};

__device__ inline TilePlace tile_place(const PairsOnDevice& p, int64_t tile) {
  const int64_t matrix = tile / (p.down * p.across);
  return {matrix, tile % p.down * p.tile, tile / p.down % p.across * p.tile};
}

// What the pairs of a thread are made of.
template <class C>
struct OwnSides {
  portable::PairSide<C> of[kOwn];
  C factor[kOwn];

  __device__ OwnSides(const PairsOnDevice& p, int side, int64_t matrix, int64_t first, double c) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int64_t index = first + i * kSide;
      if (index < p.points(side)) {
        const portable::BallImage image = p.images[side][matrix * p.points(side) + index];
        of[i] = portable::pair_side<C>(image, c);
        factor[i] = static_cast<C>(image.factor);
      } else {
        of[i] = {C(0), C(0), C(0)};
        factor[i] = C(0);
      }
    }
  }
};

template <class C>
struct PairBuffers {
  C x[kDepth][kTile + 1];
  C y[kDepth][kTile + 1];
};

// Entries [begin, begin + kDepth) of 64 points of operand `side`, each times the factor of its image; 0 beyond the
// last point and entry. Thread t reads entry t % 16 of the points t / 16 + 16 i.
template <class T, class C>
__device__ inline void load_points(C (&buffer)[kDepth][kTile + 1], const PairsOnDevice& p, int side, int64_t matrix,
                                   int64_t first, int64_t begin) {
  const int entry = static_cast<int>(threadIdx.x) % kDepth;
  const T* points = points_of<T>(p, side, matrix);
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int point = static_cast<int>(threadIdx.x) / kDepth + i * (kThreads / kDepth);
    const int64_t index = first + point;
    C value = C(0);
    if (index < p.points(side) && begin + entry < p.dim) {
      const C factor = static_cast<C>(p.images[side][matrix * p.points(side) + index].factor);
      value = factor * static_cast<C>(load(points[index * p.a.dim + begin + entry]));
    }
    buffer[entry][point] = value;
  }
}

// total[i][j], from differences or from the inner products: the squared distance of the points row + y + 16 i and column + x + 16 j, (x, y) the thread's place.
template <class T, class C>
__device__ inline void pair_squares(C (&total)[kOwn][kOwn], PairBuffers<C>& buffers, const PairsOnDevice& p,
                                    const TilePlace& place) {
  const int tx = static_cast<int>(threadIdx.x) % kSide, ty = static_cast<int>(threadIdx.x) / kSide;
  const auto* products = static_cast<const typename portable::Compute<T>::type*>(p.a.product);
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      const int64_t row = place.row + ty + i * kSide, column = place.column + tx + j * kSide;
      total[i][j] = C(0);
      if (products != nullptr && row < p.a.rows && column < p.a.columns) {
        total[i][j] = portable::squares_of_product(
            static_cast<C>(p.images[0][place.matrix * p.a.rows + row].squares),
            static_cast<C>(p.images[1][place.matrix * p.a.columns + column].squares),
            static_cast<C>(products[(place.matrix * p.a.rows + row) * p.a.columns + column]));
      }
    }
  }
  for (int64_t begin = 0; products == nullptr && begin < p.dim; begin += kDepth) {
    load_points<T, C>(buffers.x, p, 0, place.matrix, place.row, begin);
    load_points<T, C>(buffers.y, p, 1, place.matrix, place.column, begin);
    __syncthreads();
    C sum[kOwn][kOwn] = {};
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const C value = buffers.x[k][ty + i * kSide];
#pragma unroll
        for (int j = 0; j < kOwn; ++j) {
          const C difference = value - buffers.y[k][tx + j * kSide];
          sum[i][j] += difference * difference;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        total[i][j] += sum[i][j];
      }
    }
    __syncthreads();
  }
}

// Points of the hyperboloid alone can be far out.
template <class T>
__device__ inline bool is_far_pair(const PairsOnDevice& p, double squares, double weights, double c) {
  return p.a.model == Model::kLorentz && portable::is_far_pair<T>(squares, weights, c);
}

// The pairs of a thread that are far out, a bit for each. They are left to a loop of their own after that over all
// pairs, which is unrolled: what they take, by one thread each, would be compiled once for each of its pairs.
struct FarOfThread {
  unsigned bits = 0;

  __device__ void add(int i, int j) { bits |= 1u << (i * kOwn + j); }

  // act(i, row, column, what is summed over their entries) for each, i its row among those of the thread.
  template <class T, class Act>
  __device__ void each(const PairsOnDevice& p, const TilePlace& place, const Act& act) const {
    const int tx = static_cast<int>(threadIdx.x) % kSide, ty = static_cast<int>(threadIdx.x) / kSide;
    const OneLane alone;
#pragma unroll 1
    for (int own = 0; bits >> own != 0; ++own) {
      if ((bits >> own & 1u) == 0) {
        continue;
      }
      const int i = own / kOwn;
      const int64_t row = place.row + ty + i * kSide, column = place.column + tx + own % kOwn * kSide;
      act(i, row, column,
          far_points(points_of<T>(p, 0, place.matrix) + row * p.a.dim,
                     points_of<T>(p, 1, place.matrix) + column * p.a.dim, p.dim, alone)
              .sums);
    }
  }
};

// The side of a point in float64.
__device__ inline portable::PairSide<double> wide_side(const PairsOnDevice& p, int side, int64_t matrix,
                                                       int64_t index, double c) {
  const portable::BallImage image = p.images[side][matrix * p.points(side) + index];
  return portable::pair_side<double>(image, c);
}

inline int blocks(int64_t count) { return static_cast<int>(count < (1 << 20) ? count : (1 << 20)); }

// The kernels of points of the ball that are computed in float32, which are compiled apart.
void float_cdist(const PairsOnDevice& p, bool backward, cudaStream_t stream);

// The images of all points in the ball, of x and then of y.
template <class T>
__global__ void __launch_bounds__(kThreads, 1) point_images(const PairsOnDevice p, const int lanes) {
  const RowGroup group(lanes);
  const int64_t of_x = p.a.batch * p.a.rows, count = of_x + p.a.batch * p.a.columns;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < count;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const bool active = first + group.group < count;
    const int64_t of_both = active ? first + group.group : 0;
    const int side = of_both < of_x ? 0 : 1;
    const int64_t index = side == 0 ? of_both : of_both - of_x, matrix = index / p.points(side);
    const T* point = points_of<T>(p, side, matrix) + index % p.points(side) * p.a.dim;
    double squares[1] = {};
    for (int64_t k = group.lane; active && k < p.dim; k += group.lanes) {
      const double value = load(point[k]);
      squares[0] += value * value;
    }
    group.sum(squares);
    if (active && group.lane == 0) {
      const double c = portable::curvature_at(p.a.c, portable::source_row(p.a.map, 2, matrix));
      const portable::BallImage image = portable::ball_image(p.a.model, squares[0], c, p.a.guards.min_alpha);
      p.images[side][index] = image;
      if (p.sides[side] != nullptr) {
        p.sides[side][index] = {portable::pair_side<float>(image, c), static_cast<float>(image.squares)};
        if (side == 0 && index % p.a.rows == 0) {
          p.scales[matrix] = portable::pair_scale<float>(c, p.a.guards);
        }
      }
    }
  }
}

template <class T>
void launch_images(const PairsOnDevice& p, cudaStream_t stream) {
  const int lanes = lanes_for(p.dim);
  const int64_t points = p.a.batch * (p.a.rows + p.a.columns);
  if (points > 0) {
    launch(point_images<T>, blocks_for(points, lanes), stream, p, lanes);
  }
}

}  // namespace stone::cuda
