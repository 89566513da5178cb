// Butterflies on the GPU: a block holds a few rows in shared memory, through which all stages go.
#pragma once

#include "chunk_sums.cuh"
#include "row_group.cuh"
#include "stone/broadcast.h"
#include "stone/butterfly.h"
#include "stone/butterfly_arguments.h"
#include "stone/curvature.h"
#include "stone/expmap0.h"
#include "stone/logmap0.h"

namespace stone::cuda {

using portable::load;
using portable::store;

// Entries of a block's buffer in shared memory; a longer row has one in scratch memory.
template <class C>
constexpr int kCapacity = 16384 / static_cast<int>(sizeof(C));
// Rows a block works on at once, at most.
constexpr int kMostLines = kThreads;

struct ButterflyOnDevice {
  ButterflyArguments a;
  int levels;       // log2(dim)
  int64_t lines;    // rows a block works on at once
  int64_t chunks;   // blocks; in the backward, also chunks of rows, each with a gradient of the weight of its own
  void* buffers;    // [blocks, 2, dim] in the type that is computed in, where rows are longer than shared memory
  void* inputs;     // backward only: [chunks, stages, lines, dim], of every stage
  double* partial;  // backward only: [chunks, stages, dim / 2, 2]
};

__device__ inline double curvature_of(const ButterflyArguments& a, int64_t row) {
  return portable::curvature_at(a.c, portable::source_row(a.map, 0, row));
}

// What goes on in a block for the rows that it holds.
template <class T>
struct ButterflyRows {
  using C = typename portable::Compute<T>::type;

  const ButterflyOnDevice& b;
  int64_t first;
  int64_t count;

  __device__ int64_t entries() const { return count * b.a.dim; }

  __device__ void read(C* values, const void* source) const {
    const T* rows = static_cast<const T*>(source) + first * b.a.dim;
    for (int64_t i = threadIdx.x; i < entries(); i += kThreads) {
      values[i] = load(rows[i]);
    }
    __syncthreads();
  }

  // The lower entry of a stage's block in its row, and the distance of the upper one.
  __device__ static int64_t low_of(int64_t block, int level) {
    const int64_t stride = int64_t{1} << level;
    return ((block >> level) << (level + 1)) + (block & (stride - 1));
  }

  __device__ void stage(C* values, int64_t index) const {
    const int level = static_cast<int>(index % b.levels);
    const int64_t half = b.a.dim / 2;
    const T* weight = static_cast<const T*>(b.a.weight) + index * b.a.dim;
    for (int64_t i = threadIdx.x; i < count * half; i += kThreads) {
      const int64_t block = i & (half - 1);
      C* low = values + (i >> (b.levels - 1)) * b.a.dim + low_of(block, level);
      const C first_weight = load(weight[2 * block]), second_weight = load(weight[2 * block + 1]);
      portable::rotate(first_weight, second_weight, low[0], low[int64_t{1} << level]);
    }
    __syncthreads();
  }

  // result[r] = <u[r], v[r]> for each row.
  template <class U, class V>
  __device__ void inner(double* result, const U* u, const V* v) const {
    const int64_t dim = b.a.dim;
    const RowGroup group(dim >= 2048 ? kThreads : (dim >= 32 ? 32 : static_cast<int>(dim)));
    for (int64_t start = 0; start < count; start += group.groups) {
      const int64_t row = start + group.group;
      double sum[1] = {};
      for (int64_t k = group.lane; row < count && k < dim; k += group.lanes) {
        sum[0] += static_cast<double>(load(u[row * dim + k])) * static_cast<double>(load(v[row * dim + k]));
      }
      group.sum(sum);
      if (row < count && group.lane == 0) {
        result[row] = sum[0];
      }
    }
    __syncthreads();
  }

  __device__ double curvature(int64_t row) const { return curvature_of(b.a, first + row); }

  // From the gradient of a stage's image, in place, to that of its input, `input`; adds that of the weight to `total`.
  __device__ void stage_back(C* grad, const C* input, double* total, int64_t index, C (&shared)[2][kThreads]) const {
    const int level = static_cast<int>(index % b.levels);
    const int64_t half = b.a.dim / 2, stride = int64_t{1} << level;
    const T* weight = static_cast<const T*>(b.a.weight) + index * b.a.dim;
    // Threads beyond the blocks of a row take other rows.
    const int64_t together = half < kThreads ? kThreads / half : 1;
    for (int64_t start = 0; start < half; start += kThreads) {
      const int64_t block = start + (threadIdx.x & (half < kThreads ? half - 1 : kThreads - 1));
      const C a = load(weight[2 * block]), other = load(weight[2 * block + 1]);
      C of_a = C(0), of_b = C(0);
      for (int64_t row = half < kThreads ? threadIdx.x / half : 0; row < count; row += together) {
        const int64_t at = row * b.a.dim + low_of(block, level);
        portable::add_block_gradient(of_a, of_b, grad[at], grad[at + stride], input[at], input[at + stride]);
        portable::rotate_back(a, other, grad[at], grad[at + stride]);
      }
      shared[0][threadIdx.x] = of_a;
      shared[1][threadIdx.x] = of_b;
      __syncthreads();
      if (threadIdx.x < half) {
        for (int64_t t = 1; t < together; ++t) {
          of_a += shared[0][threadIdx.x + t * half];
          of_b += shared[1][threadIdx.x + t * half];
        }
        total[2 * block] += static_cast<double>(of_a);
        total[2 * block + 1] += static_cast<double>(of_b);
      }
      __syncthreads();
    }
  }
};

// The buffer of a block: in shared memory where it fits.
template <class C>
__device__ inline C* buffer_of(C* shared, const ButterflyOnDevice& b, int64_t block, int which) {
  return b.buffers == nullptr ? shared : static_cast<C*>(b.buffers) + (2 * block + which) * b.a.dim;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) butterfly_forward(const ButterflyOnDevice b) {
  using C = typename portable::Compute<T>::type;
  __shared__ C shared[kCapacity<C>];
  __shared__ double squares[kMostLines];
  __shared__ double images[kMostLines];
  C* values = buffer_of(shared, b, blockIdx.x, 0);
  for (int64_t first = blockIdx.x * b.lines; first < b.a.rows; first += gridDim.x * b.lines) {
    const ButterflyRows<T> rows{b, first, b.a.rows - first < b.lines ? b.a.rows - first : b.lines};
    rows.read(values, b.a.x);
    if (b.a.hyperbolic) {
      rows.inner(squares, values, values);
    }
    for (int64_t stage = 0; stage < b.a.stages; ++stage) {
      rows.stage(values, stage);
    }
    if (b.a.hyperbolic) {
      rows.inner(images, values, values);
      if (threadIdx.x < rows.count) {
        const double c = rows.curvature(threadIdx.x);
        const double log = portable::radial_factor<portable::Logmap0>(squares[threadIdx.x], c, b.a.log);
        images[threadIdx.x] =
            log * portable::radial_factor<portable::Expmap0>(log * log * images[threadIdx.x], c, b.a.exp);
      }
      __syncthreads();
    }
    T* y = static_cast<T*>(b.a.y) + first * b.a.dim;
    for (int64_t i = threadIdx.x; i < rows.entries(); i += kThreads) {
      const C factor = b.a.hyperbolic ? static_cast<C>(images[i >> b.levels]) : C(1);
      y[i] = store<T>(factor * values[i]);
    }
    __syncthreads();
  }
}

// The gradient of a row through exp0 and the log0 factor, as multiples of the gradient and of the row's image.
struct ImageGradient {
  double log;
  double factor;
  double along;
  double curvature;
};

__device__ inline ImageGradient image_gradient(double squares, double image, double inner, double c,
                                               const ButterflyArguments& a) {
  const double log = portable::radial_factor<portable::Logmap0>(squares, c, a.log);
  const portable::RadialGradient g =
      portable::radial_gradient<portable::Expmap0>(log * log * image, log * inner, c, a.exp);
  return {log, log * g.factor, log * log * g.along, g.curvature};
}

// What the rows of a block need on the way back through log0 and exp0.
struct RadialRows {
  double squares[kMostLines];
  double log[kMostLines];
  double factor[kMostLines];
  double along[kMostLines];
};

template <class T>
__global__ void __launch_bounds__(kThreads, 1) butterfly_backward(const ButterflyOnDevice b) {
  using C = typename portable::Compute<T>::type;
  __shared__ C shared_values[kCapacity<C>];
  __shared__ C shared_grad[kCapacity<C>];
  __shared__ C reduced[2][kThreads];
  __shared__ RadialRows radial;
  const int64_t size = b.a.stages * b.a.dim, rows_of_chunk = (b.a.rows + b.chunks - 1) / b.chunks;
  for (int64_t chunk = blockIdx.x; chunk < b.chunks; chunk += gridDim.x) {
    C* values = buffer_of(shared_values, b, chunk, 0);
    C* grad = buffer_of(shared_grad, b, chunk, 1);
    C* inputs = static_cast<C*>(b.inputs) + chunk * size * b.lines;
    double* partial = b.partial + chunk * size;
    for (int64_t i = threadIdx.x; i < size; i += kThreads) {
      partial[i] = 0.0;
    }
    const int64_t last = (chunk + 1) * rows_of_chunk < b.a.rows ? (chunk + 1) * rows_of_chunk : b.a.rows;
    for (int64_t first = chunk * rows_of_chunk; first < last; first += b.lines) {
      const ButterflyRows<T> rows{b, first, last - first < b.lines ? last - first : b.lines};
      const T* x = static_cast<const T*>(b.a.x) + first * b.a.dim;
      rows.read(values, b.a.x);
      if (b.a.hyperbolic) {
        rows.inner(radial.squares, values, values);
      }
      for (int64_t stage = 0; stage < b.a.stages; ++stage) {
        C* input = inputs + stage * b.lines * b.a.dim;
        for (int64_t i = threadIdx.x; i < rows.entries(); i += kThreads) {
          input[i] = values[i];
        }
        __syncthreads();
        rows.stage(values, stage);
      }
      rows.read(grad, b.a.grad);
      double of_exp = 0.0;  // the curvature's gradient through exp0, of this thread's row
      if (b.a.hyperbolic) {
        rows.inner(radial.factor, values, values);
        rows.inner(radial.along, values, grad);
        if (threadIdx.x < rows.count) {
          const int r = threadIdx.x;
          const ImageGradient g =
              image_gradient(radial.squares[r], radial.factor[r], radial.along[r], rows.curvature(r), b.a);
          radial.log[r] = g.log;
          radial.factor[r] = g.factor;
          radial.along[r] = g.along;
          of_exp = g.curvature;
        }
        __syncthreads();
        for (int64_t i = threadIdx.x; i < rows.entries(); i += kThreads) {
          const int64_t r = i >> b.levels;
          grad[i] = static_cast<C>(radial.factor[r] * static_cast<double>(grad[i]) +
                                   radial.along[r] * static_cast<double>(values[i]));
        }
        __syncthreads();
      }
      for (int64_t stage = b.a.stages - 1; stage >= 0; --stage) {
        rows.stage_back(grad, inputs + stage * b.lines * b.a.dim, partial + stage * b.a.dim, stage, reduced);
      }
      if (b.a.hyperbolic) {
        rows.inner(radial.factor, grad, x);
        if (threadIdx.x < rows.count) {
          const int r = threadIdx.x;
          const portable::RadialGradient g = portable::radial_gradient<portable::Logmap0>(
              radial.squares[r], radial.factor[r] / radial.log[r], rows.curvature(r), b.a.log);
          radial.along[r] = g.along;
          static_cast<C*>(b.a.grad_c)[first + r] = static_cast<C>(of_exp + g.curvature);
        }
        __syncthreads();
      }
      T* grad_x = static_cast<T*>(b.a.y) + first * b.a.dim;
      for (int64_t i = threadIdx.x; i < rows.entries(); i += kThreads) {
        double value = grad[i];
        if (b.a.hyperbolic) {
          value += radial.along[i >> b.levels] * static_cast<double>(load(x[i]));
        }
        grad_x[i] = store<T>(static_cast<C>(value));
      }
      __syncthreads();
    }
  }
}

// The gradient of the weight, from those of the chunks.
template <class T>
__global__ void __launch_bounds__(kThreads, 1) butterfly_collect(const ButterflyOnDevice b) {
  sum_chunks(static_cast<T*>(b.a.grad_weight), b.partial, b.chunks, b.a.stages * b.a.dim);
}

}  // namespace stone::cuda
