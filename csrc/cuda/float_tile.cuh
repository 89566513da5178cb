// A tile of pairs of points of the ball that are computed in float32: 128 of either operand, or 64 where there would be
// few tiles. A thread has 8 by 8 or 4 by 4 of the pairs, since what it reads of shared memory grows with the sides
// of its square and what it computes with the area; both go by four neighbours, which are 16 bytes.
#pragma once

#include "packs.cuh"
#include "pair_tile.cuh"

namespace stone::cuda {

constexpr int kQuad = 4;
constexpr int kGroup = kQuad * kSide;  // points that the threads of a side have of each of their quads

// The place of a thread: the lanes of a warp are 4 by 8, and read the fewest bytes of shared memory that they can.
struct FloatThread {
  int x = static_cast<int>(threadIdx.x) % 8 + static_cast<int>(threadIdx.x) / 32 % 2 * 8;
  int y = static_cast<int>(threadIdx.x) % 32 / 8 + static_cast<int>(threadIdx.x) / 64 * 4;

  // Point i of those of a thread, in the tile.
  static __device__ int point(int side, int i) { return i / kQuad * kGroup + side * kQuad + i % kQuad; }
};

// Entries of the points of one operand in shared memory. Point p of entry k lies at p ^ 8 (k / 4 % 4), so that neither
// whoever stores entries of several points nor whoever reads points of one entry meets another in a bank.
template <int Own>
struct alignas(16) FloatBuffer {
  float at[kDepth][kSide * Own];

  static __device__ int swapped(int quad) { return 8 * quad; }
};

// Rows that a tile walks along: `count` of them, `stride` apart, with `depth` entries each.
template <class T>
struct FloatRows {
  const T* at;
  int64_t stride;
  int64_t count;
  int64_t depth;
  bool by_quads;
};

template <class T>
__device__ inline FloatRows<T> rows_of_points(const PairsOnDevice& p, int side, int64_t matrix) {
  return {points_of<T>(p, side, matrix), p.a.dim, p.points(side), p.dim, p.by_quads[side]};
}

// The first `left` of four entries, zeros for the others.
template <class T>
__device__ inline Pack<T, kQuad> read_quad(const T* from, int left, bool by_quads) {
  using Quad = Pack<T, kQuad>;
  if (by_quads) {
    return left > 0 ? *reinterpret_cast<const Quad*>(from) : Quad{};
  }
  Quad quad;
#pragma unroll
  for (int e = 0; e < kQuad; ++e) {
    quad.at[e] = e < left ? from[e] : T{};
  }
  return quad;
}

// Four entries as they lie in memory, until they are stored: whoever unpacked them where they are read would wait for
// memory before it computes.
template <class T>
struct alignas(kQuad * sizeof(T)) QuadWords {
  static constexpr int kWords = kQuad * static_cast<int>(sizeof(T)) / 4;
  uint32_t at[kWords];

  __device__ void read(const T* from, int left, bool by_quads) {
    if (by_quads) {
      *this = left > 0 ? *reinterpret_cast<const QuadWords*>(from) : QuadWords{};
      return;
    }
    const Pack<T, kQuad> quad = read_quad(from, left, false);
    memcpy(at, &quad, sizeof at);
  }

  // What the compiler knew of them is hidden from it, or it would unpack them where they are read.
  __device__ Pack<float, kQuad> unpacked() const {
    QuadWords words = *this;
#if defined(__CUDA_ARCH__)
#pragma unroll
    for (uint32_t& word : words.at) {
      asm volatile("" : "+r"(word));
    }
#endif
    Pack<T, kQuad> quad;
    memcpy(&quad, words.at, sizeof quad);
    Pack<float, kQuad> result;
    unpack(result.at, quad);
    return result;
  }
};

// How many of `most` there are up to `count`.
__device__ inline int left_of(int64_t count, int64_t begin, int most) {
  return count - begin < most ? static_cast<int>(count - begin) : most;
}

// Four entries of a row, zeros beyond its end or beyond the last row.
template <class T>
__device__ inline Pack<T, kQuad> read_quad(const FloatRows<T>& rows, int64_t row, int64_t k) {
  return read_quad(rows.at + row * rows.stride + k, row < rows.count ? left_of(rows.depth, k, kQuad) : 0,
                   rows.by_quads);
}

// What a thread reads of rows for a step: entries 4 (t % 4) to 4 (t % 4) + 3 of the rows t / 4 + 64 i. It goes from
// step to step by one pointer.
template <class T, int Own>
struct FloatStep {
  const T* at;
  int rows_left;
  QuadWords<T> of[Own / kQuad];

  __device__ void start(const FloatRows<T>& rows, int64_t first) {
    const int row = static_cast<int>(threadIdx.x) / kQuad;
    at = rows.at + (first + row) * rows.stride + static_cast<int>(threadIdx.x) % kQuad * kQuad;
    rows_left = left_of(rows.count, first + row, kSide * Own);
  }

  // The entries from `begin`, kDepth at a time.
  __device__ void read(const FloatRows<T>& rows, int64_t begin) {
    const int left = left_of(rows.depth, begin, kDepth) - static_cast<int>(threadIdx.x) % kQuad * kQuad;
#pragma unroll
    for (int i = 0; i < Own / kQuad; ++i) {
      of[i].read(at + i * kGroup * rows.stride, i * kGroup < rows_left ? left : 0, rows.by_quads);
    }
    at += kDepth;
  }

  __device__ void write(FloatBuffer<Own>& buffer) const {
    const int quad = static_cast<int>(threadIdx.x) % kQuad;
#pragma unroll
    for (int i = 0; i < Own / kQuad; ++i) {
      const int point = static_cast<int>(threadIdx.x) / kQuad + i * kGroup;
      const Pack<float, kQuad> four = of[i].unpacked();
#pragma unroll
      for (int e = 0; e < kQuad; ++e) {
        buffer.at[quad * kQuad + e][point ^ buffer.swapped(quad)] = four.at[e];
      }
    }
  }
};

// Entry `e` of quad `quad` of the points of a thread.
template <int Own>
__device__ inline void read_points(float (&values)[Own], const FloatBuffer<Own>& buffer, int side, int quad, int e) {
#pragma unroll
  for (int i = 0; i < Own; i += kQuad) {
    const int at = FloatThread::point(side, i) ^ buffer.swapped(quad);
    const auto four = *reinterpret_cast<const Pack<float, kQuad>*>(&buffer.at[quad * kQuad + e][at]);
#pragma unroll
    for (int n = 0; n < kQuad; ++n) {
      values[i + n] = four.at[n];
    }
  }
}

// Four neighbours of a row of pairs, from `column`.
template <class T>
__device__ inline void write_quad(T* row, const Pack<T, kQuad>& four, int64_t column, int64_t columns, bool whole) {
  if (whole) {
    if (column < columns) {
      *reinterpret_cast<Pack<T, kQuad>*>(row + column) = four;
    }
    return;
  }
#pragma unroll
  for (int n = 0; n < kQuad; ++n) {
    if (column + n < columns) {
      row[column + n] = four.at[n];
    }
  }
}

// Steps of entries whose terms are summed before they are added to a total, so that rounding does not grow with the
// sum.
constexpr int kRun = 2;

// Whether a run ends with the step that begins at `begin`.
__device__ inline bool ends_run(int64_t begin, bool more) { return !more || begin / kDepth % kRun == kRun - 1; }

// total += sum, sum = 0.
template <int Rows, int Columns>
__device__ inline void flush(float (&total)[Rows][Columns], float (&sum)[Rows][Columns]) {
#pragma unroll
  for (int i = 0; i < Rows; ++i) {
#pragma unroll
    for (int j = 0; j < Columns; ++j) {
      total[i][j] += sum[i][j];
      sum[i][j] = 0.0f;
    }
  }
}

// Two steps of entries: one is computed with while the other is filled.
template <int Own>
struct FloatBuffers {
  FloatBuffer<Own> x[2];
  FloatBuffer<Own> y[2];
};

// The squared distances of the pairs of a thread. Every thread of the block must call it.
template <class T, int Own>
__device__ inline void float_squares(float (&total)[Own][Own], FloatBuffers<Own>& buffers, const PairsOnDevice& p,
                                     const TilePlace& place) {
  const FloatThread thread;
  const FloatRows<T> x = rows_of_points<T>(p, 0, place.matrix), y = rows_of_points<T>(p, 1, place.matrix);
  FloatStep<T, Own> of_x, of_y;
#pragma unroll
  for (int i = 0; i < Own; ++i) {
#pragma unroll
    for (int j = 0; j < Own; ++j) {
      total[i][j] = 0.0f;
    }
  }
  of_x.start(x, place.row);
  of_y.start(y, place.column);
  of_x.read(x, 0);
  of_y.read(y, 0);
  of_x.write(buffers.x[0]);
  of_y.write(buffers.y[0]);
  __syncthreads();
  int now = 0;
  float sum[Own][Own] = {};
#pragma unroll 1
  for (int64_t begin = 0; begin < p.dim; begin += kDepth) {
    const bool more = begin + kDepth < p.dim;
    if (more) {
      of_x.read(x, begin + kDepth);
      of_y.read(y, begin + kDepth);
    }
    const int quads = more ? kDepth / kQuad : static_cast<int>((p.dim - begin + kQuad - 1) / kQuad);
#pragma unroll 1
    for (int quad = 0; quad < quads; ++quad) {
#pragma unroll
      for (int e = 0; e < kQuad; ++e) {
        float xs[Own], ys[Own];
        read_points(xs, buffers.x[now], thread.y, quad, e);
        read_points(ys, buffers.y[now], thread.x, quad, e);
#pragma unroll
        for (int i = 0; i < Own; ++i) {
#pragma unroll
          for (int j = 0; j < Own; ++j) {
            const float difference = xs[i] - ys[j];
            sum[i][j] += difference * difference;
          }
        }
      }
    }
    if (ends_run(begin, more)) {
      flush(total, sum);
    }
    now = 1 - now;
    if (more) {
      of_x.write(buffers.x[now]);
      of_y.write(buffers.y[now]);
    }
    __syncthreads();
  }
}

// Whether float32 cannot hold a squared distance without loss; one that is not a number is left as it is.
__device__ inline bool is_odd(float squares) {
  return squares < portable::kSmallSquares || squares > 1.0f / portable::kSmallSquares;
}

// The squared distance in float64. Most pairs that come here are a point and itself, which takes no arithmetic to see.
template <class T>
__device__ inline double wide_squares(const PairsOnDevice& p, int64_t matrix, int64_t row, int64_t column) {
  const T* x = points_of<T>(p, 0, matrix) + row * p.a.dim;
  const T* y = points_of<T>(p, 1, matrix) + column * p.a.dim;
  bool same = true;
#pragma unroll 8
  for (int64_t k = 0; k < p.dim; ++k) {
    same &= load(x[k]) == load(y[k]);
  }
  double sum = 0.0;
#pragma unroll 4
  for (int64_t k = 0; k < (same ? 0 : p.dim); ++k) {
    const double difference = static_cast<double>(load(x[k])) - static_cast<double>(load(y[k]));
    sum += difference * difference;
  }
  return sum;
}

// The pairs of a thread whose squared distance float32 cannot hold, a bit for each; as for those that are far out, they
// are left to a loop after that over all pairs.
template <int Own>
struct OddPairs {
  uint64_t bits = 0;

  __device__ void add(bool odd, int i, int j) { bits |= odd ? uint64_t{1} << (i * Own + j) : uint64_t{0}; }

  // act(i, j, row, column, the squared distance) for each whose points differ.
  template <class T, class Act>
  __device__ void each(const PairsOnDevice& p, const TilePlace& place, const Act& act) const {
    const FloatThread thread;
#pragma unroll 1
    for (int own = 0; own < Own * Own && bits >> own != 0; ++own) {
      if ((bits >> own & 1u) == 0) {
        continue;
      }
      const int i = own / Own, j = own % Own;
      const int64_t row = place.row + thread.point(thread.y, i), column = place.column + thread.point(thread.x, j);
      if (row < p.a.rows && column < p.a.columns) {
        const double squares = wide_squares<T>(p, place.matrix, row, column);
        if (squares > 0.0) {
          act(i, j, row, column, squares);
        }
      }
    }
  }
};

}  // namespace stone::cuda
