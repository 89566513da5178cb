// Gradients of distance matrices on the GPU, computed in float64, in three steps whose sums have a fixed order: the
// weight of every pair, each point's sum of weighted differences, and the way back from the ball to the model of the
// points. The third serves pairs that are computed in float32 too.
#pragma once

#include "pair_tile.cuh"

namespace stone::cuda {

// The pairs' weights, and their sums along each point: of a tile's rows, and of its columns.
template <class T>
__global__ void __launch_bounds__(kThreads, 1) cdist_pairs(const PairsOnDevice p) {
  using C = double;
  __shared__ PairBuffers<C> buffers;
  __shared__ double of_columns[kThreads / 32][kTile];
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
    double rows[2 * kOwn] = {};  // along each row, and the derivative for log(c)
    double columns[kOwn] = {};
    FarOfThread far;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const int64_t row = place.row + ty + i * kSide, column = place.column + tx + j * kSide;
        if (row >= p.a.rows || column >= p.a.columns) {
          continue;
        }
        const int64_t at = (place.matrix * p.a.rows + row) * p.a.columns + column;
        const C grad = static_cast<C>(load(static_cast<const T*>(p.a.grad)[at]));
        portable::PairGradient<C> g = pair_gradient(grad, squares[i][j], x.of[i], y.of[j], scale, p.guarded);
        double along_y = pair_gradient(grad, squares[i][j], y.of[j], x.of[i], scale, p.guarded).along;
        double along_x = g.along, of_pair = g.curvature;
        if (p.far != nullptr) {
          p.far[at] = is_far_pair<T>(p, squares[i][j], x.of[i].weight * y.of[j].weight, c);
          if (p.far[at]) {
            // Its own derivative follows below; what is left to the points: see add_far_pairs.
            g.weight = C(0);
            along_x = along_y = of_pair = 0.0;
            far.add(i, j);
          }
        }
        if (p.a.product == nullptr) {
          static_cast<C*>(p.weights)[at] = g.weight;
        } else {
          // The sum of weight (x - y) is that of the weights times x, and of the products' gradient times y.
          using Product = typename portable::Compute<T>::type;
          static_cast<Product*>(p.a.grad_product)[at] = static_cast<Product>(-g.weight);
          along_x += g.weight;
          along_y += g.weight;
        }
        rows[i] += along_x;
        rows[kOwn + i] += of_pair;
        columns[j] += along_y;
      }
    }
    far.each<T>(p, place, [&](int own, int64_t row, int64_t column, const portable::FarSums& sums) {
      const int64_t at = (place.matrix * p.a.rows + row) * p.a.columns + column;
      const double grad = static_cast<double>(load(static_cast<const T*>(p.a.grad)[at])), guard = 0.0;
      const double of_pair = c * portable::FarDist::gradients(sums, grad, &c, &guard).scalar[0];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {  // no index that is known at run time, so that the sums stay in registers
        rows[kOwn + i] += i == own ? of_pair : 0.0;
      }
    });
    for (int offset = kSide / 2; offset > 0; offset /= 2) {
#pragma unroll
      for (int i = 0; i < 2 * kOwn; ++i) {
        rows[i] += __shfl_xor_sync(0xffffffffu, rows[i], offset);
      }
    }
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      columns[j] += __shfl_xor_sync(0xffffffffu, columns[j], kSide);
    }
    if (tx == 0) {
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const int64_t row = place.row + ty + i * kSide;
        if (row < p.a.rows) {
          const int64_t at = (place.matrix * p.across + place.column / kTile) * p.a.rows + row;
          p.along[0][at] = rows[i];
          p.of_pairs[at] = rows[kOwn + i];
        }
      }
    }
    if (ty % 2 == 0) {
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        of_columns[ty / 2][tx + j * kSide] = columns[j];
      }
    }
    __syncthreads();
    const int64_t column = place.column + static_cast<int>(threadIdx.x);
    if (threadIdx.x < kTile && column < p.a.columns) {
      double sum = 0.0;
      for (int w = 0; w < kThreads / 32; ++w) {
        sum += of_columns[w][threadIdx.x];
      }
      p.along[1][(place.matrix * p.down + place.row / kTile) * p.a.columns + column] = sum;
    }
    __syncthreads();
  }
}

// sums[point][k] = sum over the other points of weight (point[k] - other[k]); 64 points by 64 entries a tile.
template <class T>
__global__ void __launch_bounds__(kThreads, 1) cdist_differences(const PairsOnDevice p, const int side) {
  using C = double;
  __shared__ C weights[kDepth][kTile + 1];
  __shared__ C others[kDepth][kTile + 1];
  const int tx = static_cast<int>(threadIdx.x) % kSide, ty = static_cast<int>(threadIdx.x) / kSide;
  const int64_t own = p.points(side), all = p.points(1 - side), wide = (p.dim + kTile - 1) / kTile;
  const int64_t down = side == 0 ? p.down : p.across, parts = p.parts[side];
  const int64_t extent = (tiles(all, kDepth) + parts - 1) / parts * kDepth;  // of a part of the other points
  const int64_t own_step = side == 0 ? p.a.columns : 1, other_step = side == 0 ? 1 : p.a.columns;
  for (int64_t tile = blockIdx.x; tile < p.a.batch * parts * down * wide; tile += gridDim.x) {
    const int64_t first = tile % down * kTile, entry = tile / down % wide * kTile;
    const int64_t part = tile / (down * wide) % parts, matrix = tile / (down * wide) / parts;
    // Those from `start` to before `count`: none, where the parts before have them all.
    const int64_t start = part * extent, count = start + extent < all ? start + extent : all;
    const C* matrix_weights = static_cast<const C*>(p.weights) + matrix * p.a.rows * p.a.columns;
    const T* points = points_of<T>(p, side, matrix);
    const T* other_points = points_of<T>(p, 1 - side, matrix);
    C point[kOwn][kOwn], total[kOwn][kOwn] = {};
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int64_t index = first + ty + i * kSide;
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const int64_t k = entry + tx + j * kSide;
        point[i][j] = C(0);
        if (index < own && k < p.dim) {
          const C factor = static_cast<C>(p.images[side][matrix * own + index].factor);
          point[i][j] = factor * static_cast<C>(load(points[index * p.a.dim + k]));
        }
      }
    }
    for (int64_t begin = start; begin < count; begin += kDepth) {
      for (int e = static_cast<int>(threadIdx.x); e < kDepth * kTile; e += kThreads) {
        // Neighbouring threads read neighbouring weights, whichever operand the matrix is walked along.
        const int other = side == 0 ? e % kDepth : e / kTile, mine = side == 0 ? e / kDepth : e % kTile;
        const bool inside = first + mine < own && begin + other < count;
        weights[other][mine] =
            inside ? matrix_weights[(first + mine) * own_step + (begin + other) * other_step] : C(0);
        const int row = e / kTile, k = e % kTile;
        C value = C(0);
        if (begin + row < count && entry + k < p.dim) {
          const C factor = static_cast<C>(p.images[1 - side][matrix * all + begin + row].factor);
          value = factor * static_cast<C>(load(other_points[(begin + row) * p.a.dim + entry + k]));
        }
        others[row][k] = value;
      }
      __syncthreads();
      C sum[kOwn][kOwn] = {};
#pragma unroll
      for (int o = 0; o < kDepth; ++o) {
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
          const C weight = weights[o][ty + i * kSide];
#pragma unroll
          for (int j = 0; j < kOwn; ++j) {
            sum[i][j] += weight * (point[i][j] - others[o][tx + j * kSide]);
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
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const int64_t index = first + ty + i * kSide, k = entry + tx + j * kSide;
        if (index < own && k < p.dim) {
          static_cast<C*>(p.sums[side])[((part * p.a.batch + matrix) * own + index) * p.dim + k] = total[i][j];
        }
      }
    }
  }
}

// Adds up the gradients of the far pairs of a group's point, in p.far_sums; false where it has none. Every thread of
// the block must call it.
template <class T>
__device__ inline bool add_far_pairs(const PairsOnDevice& p, int side, int64_t row, bool active, const RowGroup& group) {
  const int64_t own = p.points(side), others = p.points(1 - side), matrix = row / own, index = row % own;
  const int64_t own_step = side == 0 ? p.a.columns : 1, other_step = side == 0 ? 1 : p.a.columns;
  const int64_t first = matrix * p.a.rows * p.a.columns + index * own_step;
  double found[1] = {};
  for (int64_t other = group.lane; active && other < others; other += group.lanes) {
    found[0] += p.far[first + other * other_step] ? 1.0 : 0.0;
  }
  if (!__syncthreads_or(found[0] > 0.0)) {
    return false;
  }
  group.sum(found);
  double* const sums = p.far_sums[side] + row * p.dim;
  for (int64_t k = group.lane; active && k < p.dim; k += group.lanes) {
    sums[k] = 0.0;
  }
  const double guard = 0.0, c = portable::curvature_at(p.a.c, portable::source_row(p.a.map, 2, matrix));
  const T* point = points_of<T>(p, side, matrix) + index * p.a.dim;
  for (int64_t other = 0; other < others; ++other) {
    const int64_t at = first + other * other_step;
    const bool far = active && p.far[at];
    if (!__syncthreads_or(far)) {
      continue;
    }
    const T* partner = points_of<T>(p, 1 - side, matrix) + other * p.a.dim;
    const auto pair = far_points(point, partner, far ? p.dim : 0, group);
    if (far) {
      const double grad = load(static_cast<const T*>(p.a.grad)[at]);
      const portable::FarGradients g = portable::FarDist::gradients(pair.sums, grad, &c, &guard);
      for (int64_t k = group.lane; k < p.dim; k += group.lanes) {
        sums[k] += pair.entry(g.of[0], k);
      }
    }
  }
  return found[0] > 0.0;
}

// From the gradient of each point's image in the ball to that of the point.
template <class T, class C>
__global__ void __launch_bounds__(kThreads, 1) cdist_points(const PairsOnDevice p, const int side, const int lanes) {
  const RowGroup group(lanes);
  const int64_t own = p.points(side), parts = side == 0 ? p.across : p.down;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < p.a.batch * own;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const bool active = first + group.group < p.a.batch * own;
    const int64_t row = active ? first + group.group : 0, matrix = row / own, index = row % own;
    double totals[2] = {};
    for (int64_t part = group.lane; active && part < parts; part += group.lanes) {
      const int64_t at = (matrix * parts + part) * own + index;
      totals[0] += p.along[side][at];
      totals[1] += side == 0 ? p.of_pairs[at] : 0.0;
    }
    group.sum(totals);
    const portable::BallImage image = p.images[side][row];
    const T* x = points_of<T>(p, side, matrix) + index * p.a.dim;
    const C* sums = p.a.product == nullptr ? static_cast<const C*>(p.sums[side]) + row * p.dim : nullptr;
    bool far = false;
    if constexpr (sizeof(C) == sizeof(double)) {
      far = p.far != nullptr && add_far_pairs<T>(p, side, row, active, group);
    }
    const double* more = far ? p.far_sums[side] + row * p.dim : nullptr;
    const auto of_parts = [&](int64_t k) {
      double sum = 0.0;
#pragma unroll 4
      for (int64_t part = 0; sums != nullptr && part < p.parts[side]; ++part) {
        sum += static_cast<double>(sums[part * p.a.batch * own * p.dim + k]);
      }
      return sum;
    };
    double inner[1] = {};  // <x, sums>
    for (int64_t k = group.lane; active && k < p.dim; k += group.lanes) {
      inner[0] += of_parts(k) * static_cast<double>(load(x[k]));
    }
    group.sum(inner);
    if (!active) {
      continue;
    }
    T* result = static_cast<T*>(side == 0 ? p.a.result : p.a.grad_y) + row * p.a.dim;
    const portable::ImageGradient g = portable::image_gradient(image, totals[0], inner[0]);
    for (int64_t k = group.lane; k < p.dim; k += group.lanes) {
      const double value = g.of_sums * of_parts(k) + g.of_point * static_cast<double>(load(x[k])) +
                           (more == nullptr ? 0.0 : more[k]);
      result[p.start + k] = store<T>(static_cast<typename portable::Compute<T>::type>(value));
    }
    if (group.lane == 0) {
      if (p.start == 1) {
        result[0] = store<T>(0);
      }
      const double c = portable::curvature_at(p.a.c, portable::source_row(p.a.map, 2, matrix));
      p.a.grad_c[matrix * (p.a.rows + p.a.columns) + (side == 0 ? 0 : p.a.rows) + index] =
          totals[1] / c + g.of_c;
    }
  }
}

template <class T, class C>
void launch_points(const PairsOnDevice& p, int side, cudaStream_t stream) {
  const int lanes = lanes_for(p.dim);
  const int64_t points = p.a.batch * p.points(side);
  if (points > 0) {
    launch(cdist_points<T, C>, blocks_for(points, lanes), stream, p, side, lanes);
  }
}

}  // namespace stone::cuda
