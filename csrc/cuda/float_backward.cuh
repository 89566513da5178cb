// Gradients of distance matrices of the ball on the GPU, computed in float32: the first two of the three steps of
// cdist_backward.cuh.
#pragma once

#include "float_tile.cuh"

namespace stone::cuda {

// The sums of a thread over its pairs: those of four neighbours in float32, whose rounding is that of each of them.
template <int Own>
struct FloatSums {
  double along[Own] = {};      // each row of x
  double of_pairs[Own] = {};   // the same, of the derivatives for log(c)
  double columns[Own] = {};    // along each row of y

  // No index that is known at run time, so that the sums stay in registers.
  __device__ void add(int i, int j, double along_x, double of_pair, double along_y) {
#pragma unroll
    for (int n = 0; n < Own; ++n) {
      along[n] += n == i ? along_x : 0.0;
      of_pairs[n] += n == i ? of_pair : 0.0;
      columns[n] += n == j ? along_y : 0.0;
    }
  }
};

template <class T, int Own, bool guarded>
__device__ inline void float_weights(FloatSums<Own>& sums, const float (&squares)[Own][Own], const PairsOnDevice& p,
                                     const TilePlace& place, const portable::PairScale<float>& scale) {
  const FloatThread thread;
  const int64_t first_pair = place.matrix * p.a.rows * p.a.columns;
  const bool products = p.a.product != nullptr;
  const FloatRows<T> grads{static_cast<const T*>(p.a.grad) + first_pair, p.a.columns, p.a.rows, p.a.columns,
                           p.pairs_by_quads};
  float* const weights = static_cast<float*>(products ? p.a.grad_product : p.weights) + first_pair;
  OddPairs<Own> odd;
#pragma unroll
  for (int first = 0; first < Own; first += kQuad) {
    const int64_t column = place.column + thread.point(thread.x, first);
    portable::PairSide<float> y[kQuad];
    float columns[kQuad] = {};
#pragma unroll
    for (int n = 0; n < kQuad; ++n) {
      y[n] = column + n < p.a.columns ? p.sides[1][place.matrix * p.a.columns + column + n].of
                                      : portable::PairSide<float>{};
    }
#pragma unroll
    for (int begin = 0; begin < Own; begin += kQuad) {
      // Four rows are read at once, before weights are stored: a read behind that would wait for memory by itself.
      portable::PairSide<float> x[kQuad];
      QuadWords<T> read[kQuad];
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        const int64_t row = place.row + thread.point(thread.y, begin + i);
        const bool inside = row < p.a.rows;
        x[i] = inside ? p.sides[0][place.matrix * p.a.rows + row].of : portable::PairSide<float>{};
        read[i].read(grads.at + row * grads.stride + column, inside ? left_of(grads.depth, column, kQuad) : 0,
                     grads.by_quads);
      }
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        const int own = begin + i;
        const int64_t row = place.row + thread.point(thread.y, own);
        if (row >= p.a.rows) {
          continue;
        }
        const Pack<float, kQuad> grad = read[i].unpacked();
        Pack<float, kQuad> four;
        float along = 0.0f, of_pairs = 0.0f;
#pragma unroll
        for (int n = 0; n < kQuad; ++n) {
          const float each = squares[own][first + n], upstream = grad.at[n];
          const auto g = portable::pair_gradient<guarded>(upstream, each, x[i], y[n], scale);
          float along_x = g.along, of_pair = g.curvature;
          float along_y = portable::pair_gradient<guarded>(upstream, each, y[n], x[i], scale).along;
          if (products) {
            // The sum of weight (x - y) is that of the weights times x, and of the products' gradient times y.
            along_x += g.weight;
            along_y += g.weight;
          } else {
            odd.add(is_odd(each), own, first + n);
          }
          // What is left out here follows in float64; pairs that are 0 apart add nothing, and what is no number.
          const bool counts = column + n < p.a.columns && (products || !is_odd(each) || each == 0.0f);
          four.at[n] = products ? -g.weight : g.weight;
          along += counts ? along_x : 0.0f;
          of_pairs += counts ? of_pair : 0.0f;
          columns[n] += counts ? along_y : 0.0f;
        }
        write_quad(weights + row * p.a.columns, four, column, p.a.columns, p.pairs_by_quads);
        sums.along[own] += along;
        sums.of_pairs[own] += of_pairs;
      }
#pragma unroll
      for (int n = 0; n < kQuad; ++n) {
        sums.columns[first + n] += columns[n];
        columns[n] = 0.0f;
      }
    }
  }
  odd.template each<T>(p, place, [&](int i, int j, int64_t row, int64_t column, double wide) {
    const double c = portable::curvature_at(p.a.c, portable::source_row(p.a.map, 2, place.matrix));
    const auto exact = portable::pair_scale<double>(c, p.a.guards);
    const auto x = wide_side(p, 0, place.matrix, row, c), y = wide_side(p, 1, place.matrix, column, c);
    const double upstream = load(grads.at[row * p.a.columns + column]);
    const auto g = portable::pair_gradient<guarded>(upstream, wide, x, y, exact);
    weights[row * p.a.columns + column] = static_cast<float>(g.weight);
    sums.add(i, j, g.along, g.curvature, portable::pair_gradient<guarded>(upstream, wide, y, x, exact).along);
  });
}

// The squared distances of the pairs of a thread by their inner products.
template <int Own>
__device__ inline void product_squares(float (&squares)[Own][Own], const PairsOnDevice& p, const TilePlace& place) {
  const FloatThread thread;
  const FloatRows<float> products{
      static_cast<const float*>(p.a.product) + place.matrix * p.a.rows * p.a.columns, p.a.columns, p.a.rows,
      p.a.columns, p.pairs_by_quads};
#pragma unroll
  for (int i = 0; i < Own; ++i) {
    const int64_t row = place.row + thread.point(thread.y, i);
    const float of_x = row < p.a.rows ? p.sides[0][place.matrix * p.a.rows + row].squares : 0.0f;
#pragma unroll
    for (int first = 0; first < Own; first += kQuad) {
      const int64_t column = place.column + thread.point(thread.x, first);
      const Pack<float, kQuad> four = read_quad(products, row, column);
#pragma unroll
      for (int n = 0; n < kQuad; ++n) {
        const bool inside = column + n < p.a.columns;
        const float of_y = inside ? p.sides[1][place.matrix * p.a.columns + column + n].squares : 0.0f;
        squares[i][first + n] = portable::squares_of_product(of_x, of_y, four.at[n]);
      }
    }
  }
}

// The pairs' weights, and their sums along each point: of a tile's rows, and of its columns.
template <class T, int Own>
__global__ void __launch_bounds__(kThreads, Own > kQuad ? 1 : 2) float_cdist_pairs(const PairsOnDevice p) {
  constexpr int kPoints = kSide * Own, kAcross = 2, kDown = 4;  // warps of a block
  __shared__ FloatBuffers<Own> buffers;
  __shared__ double of_rows[2][kAcross][kPoints], of_columns[kDown][kPoints];
  const FloatThread thread;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t count = p.a.batch * p.down * p.across;
  for (int64_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
    const TilePlace place = tile_place(p, tile);
    const portable::PairScale<float> scale = p.scales[place.matrix];
    float squares[Own][Own];
    if (p.a.product != nullptr) {
      product_squares<Own>(squares, p, place);
    } else {
      float_squares<T, Own>(squares, buffers, p, place);
    }
    FloatSums<Own> sums;
    if (p.guarded) {
      float_weights<T, Own, true>(sums, squares, p, place, scale);
    } else {
      float_weights<T, Own, false>(sums, squares, p, place, scale);
    }
    // The eight lanes of a row of pairs, and the four of a column.
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
#pragma unroll
      for (int i = 0; i < Own; ++i) {
        if (offset < 8) {
          sums.along[i] += __shfl_xor_sync(0xffffffffu, sums.along[i], offset);
          sums.of_pairs[i] += __shfl_xor_sync(0xffffffffu, sums.of_pairs[i], offset);
        } else {
          sums.columns[i] += __shfl_xor_sync(0xffffffffu, sums.columns[i], offset);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < Own; ++i) {
      if (lane % 8 == 0) {
        of_rows[0][warp % 2][thread.point(thread.y, i)] = sums.along[i];
        of_rows[1][warp % 2][thread.point(thread.y, i)] = sums.of_pairs[i];
      }
      if (lane / 8 == 0) {
        of_columns[warp / 2][thread.point(thread.x, i)] = sums.columns[i];
      }
    }
    __syncthreads();
    const int point = static_cast<int>(threadIdx.x);
    if (point < kPoints && place.row + point < p.a.rows) {
      const int64_t at = (place.matrix * p.across + place.column / kPoints) * p.a.rows + place.row + point;
      p.along[0][at] = of_rows[0][0][point] + of_rows[0][1][point];
      p.of_pairs[at] = of_rows[1][0][point] + of_rows[1][1][point];
    }
    if (point < kPoints && place.column + point < p.a.columns) {
      double sum = 0.0;
      for (int w = 0; w < kDown; ++w) {
        sum += of_columns[w][point];
      }
      p.along[1][(place.matrix * p.down + place.row / kPoints) * p.a.columns + place.column + point] = sum;
    }
    __syncthreads();
  }
}

// sums[point][k] = sum over the other points of weight (point[k] - other[k]); kSide * Own points by 64 entries a tile.
// The weights of a point lie in a row of them for x, and in a column for y.
template <class T, int Own, int side>
__global__ void __launch_bounds__(kThreads, Own > kQuad ? 1 : 2) float_cdist_differences(const PairsOnDevice p) {
  constexpr int kPoints = kSide * Own, kQuads = Own / kQuad;
  __shared__ FloatBuffer<Own> weights[2];
  __shared__ Pack<float, kQuad> others[2][kDepth][kSide];
  const FloatThread thread;
  const int t = static_cast<int>(threadIdx.x);
  const int64_t own = p.points(side), all = p.points(1 - side), wide = (p.dim + kGroup - 1) / kGroup;
  const int64_t down = (own + kPoints - 1) / kPoints, parts = p.parts[side], runs = tiles(all, kDepth * kRun);
  const int64_t extent = (runs + parts - 1) / parts * kDepth * kRun;  // of a part
  for (int64_t tile = blockIdx.x; tile < p.a.batch * parts * down * wide; tile += gridDim.x) {
    // Tiles of the same weights follow each other, so that one finds them in the cache.
    const int64_t entry = tile % wide * kGroup, first = tile / wide % down * kPoints;
    const int64_t part = tile / (wide * down) % parts, matrix = tile / (wide * down) / parts;
    // The other points from `start` to before `count`: none, where the parts before have them all.
    const int64_t start = part * extent, count = start + extent < all ? start + extent : all;
    const FloatRows<float> of_pairs{static_cast<const float*>(p.weights) + matrix * p.a.rows * p.a.columns,
                                    p.a.columns, p.a.rows, side == 0 ? count : p.a.columns, p.a.columns % kQuad == 0};
    const FloatRows<T> mine = rows_of_points<T>(p, side, matrix), theirs = rows_of_points<T>(p, 1 - side, matrix);
    float point[Own][kQuad], total[Own][kQuad];
#pragma unroll
    for (int i = 0; i < Own; ++i) {
      const Pack<T, kQuad> four = read_quad(mine, first + thread.point(thread.y, i), entry + thread.x * kQuad);
#pragma unroll
      for (int n = 0; n < kQuad; ++n) {
        point[i][n] = load(four.at[n]);
        total[i][n] = 0.0f;
      }
    }
    FloatStep<float, Own> step;
    QuadWords<T> other;
    const int64_t entry_of_thread = entry + t % kSide * kQuad;
    const int entries = left_of(p.dim, entry_of_thread, kQuad);
    const T* from = theirs.at + (start + t / kSide) * theirs.stride + entry_of_thread;
    if constexpr (side == 0) {
      step.start(of_pairs, first);
      step.at += start;
    } else {
      step.at = of_pairs.at + (start + t / (kPoints / kQuad)) * of_pairs.stride + first + t % (kPoints / kQuad) * kQuad;
    }
    const auto read = [&](int64_t begin) {
      const int left = left_of(count, begin, kDepth);
      other.read(from, t / kSide < left ? entries : 0, theirs.by_quads);
      from += kDepth * theirs.stride;
      if constexpr (side == 0) {
        step.read(of_pairs, begin);
      } else {
        const int columns = left_of(of_pairs.depth, first + t % (kPoints / kQuad) * kQuad, kQuad);
#pragma unroll
        for (int i = 0; i < kQuads; ++i) {
          const int row = t / (kPoints / kQuad) + i * (kDepth / kQuads);
          step.of[i].read(step.at + i * (kDepth / kQuads) * of_pairs.stride, row < left ? columns : 0,
                          of_pairs.by_quads);
        }
        step.at += kDepth * of_pairs.stride;
      }
    };
    const auto write = [&](int now) {
      others[now][t / kSide][t % kSide] = other.unpacked();
      if constexpr (side == 0) {
        step.write(weights[now]);
      } else {
#pragma unroll
        for (int i = 0; i < kQuads; ++i) {
          const int at = t + i * kThreads, row = at / (kPoints / kQuad);
          const int place = at % (kPoints / kQuad) * kQuad ^ weights[now].swapped(row / kQuad);
          *reinterpret_cast<Pack<float, kQuad>*>(&weights[now].at[row][place]) = step.of[i].unpacked();
        }
      }
    };
    read(start);
    write(0);
    __syncthreads();
    int now = 0;
    float sum[Own][kQuad] = {};
#pragma unroll 1
    for (int64_t begin = start; begin < count; begin += kDepth) {
      const bool more = begin + kDepth < count;
      if (more) {
        read(begin + kDepth);
      }
      const int quads = more ? kDepth / kQuad : static_cast<int>((count - begin + kQuad - 1) / kQuad);
#pragma unroll 1
      for (int quad = 0; quad < quads; ++quad) {
#pragma unroll
        for (int e = 0; e < kQuad; ++e) {
          float weight[Own];
          read_points(weight, weights[now], thread.y, quad, e);
          const Pack<float, kQuad> four = others[now][quad * kQuad + e][thread.x];
#pragma unroll
          for (int i = 0; i < Own; ++i) {
#pragma unroll
            for (int n = 0; n < kQuad; ++n) {
              sum[i][n] += weight[i] * (point[i][n] - four.at[n]);
            }
          }
        }
      }
      if (ends_run(begin, more)) {
        flush(total, sum);
      }
      now = 1 - now;
      if (more) {
        write(now);
      }
      __syncthreads();
    }
    float* const sums = static_cast<float*>(p.sums[side]) + (part * p.a.batch + matrix) * own * p.dim;
#pragma unroll
    for (int i = 0; i < Own; ++i) {
      const int64_t index = first + thread.point(thread.y, i);
      if (index < own) {
        Pack<float, kQuad> four;
#pragma unroll
        for (int n = 0; n < kQuad; ++n) {
          four.at[n] = total[i][n];
        }
        write_quad(sums + index * p.dim, four, entry + thread.x * kQuad, p.dim, p.dim % kQuad == 0);
      }
    }
  }
}

}  // namespace stone::cuda
