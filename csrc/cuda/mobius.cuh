// mobius_add on the GPU: as radial.cuh, with rows of x and y that may repeat.
#pragma once

#include "kernels.h"
#include "row_group.cuh"
#include "stone/broadcast.h"
#include "stone/curvature.h"
#include "stone/mobius_add.h"

namespace stone::cuda {

using portable::load;
using portable::store;

template <class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 2)
    mobius_forward(const MobiusArguments arguments, const int64_t rows, const int lanes) {
  constexpr int N = kPack<T, aligned>;
  constexpr int K = kKeptOf<aligned>;
  using P = Pack<T, N>;
  using C = typename portable::Compute<T>::type;
  const RowGroup group(lanes);
  const int64_t packs = arguments.dim / N;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const int64_t row = first + group.group;
    const bool active = row < rows;
    const int64_t count = active ? packs : 0;
    const int64_t source = active ? row : 0;
    const P* x = static_cast<const P*>(arguments.x) + portable::source_row(arguments.map, 0, source) * packs;
    const P* y = static_cast<const P*>(arguments.y) + portable::source_row(arguments.map, 1, source) * packs;
    P* z = static_cast<P*>(arguments.z) + source * packs;
    Stage<P, K> kept_x, kept_y;
    const auto read = [&](int64_t begin) {
      const int left = left_of(begin, count, K, lanes);
      kept_x.read(x + begin, left, lanes);
      kept_y.read(y + begin, left, lanes);
      return left;
    };
    double sums[3] = {0.0, 0.0, 0.0};  // squares of x, y, x + y
    auto add = [&](const P& p, const P& q) {
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const double u = load(p.at[e]);
        const double v = load(q.at[e]);
        sums[0] += u * u;
        sums[1] += v * v;
        sums[2] += (u + v) * (u + v);
      }
    };
    const auto add_kept = [&](int left) {
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (k * lanes < left) {
          add(kept_x.at[k], kept_y.at[k]);
        }
      }
    };
    // The first packs stay in registers, but not those of 16 bits a number, which want more while they are taken apart.
    constexpr bool stays = sizeof(T) > 2;
    const int64_t after = group.lane + (stays ? static_cast<int64_t>(K) * lanes : 0);
    if constexpr (!stays) {
#pragma unroll 1
      for (int64_t begin = group.lane; begin < count; begin += K * lanes) {
        add_kept(read(begin));
      }
    } else {
      add_kept(read(group.lane));
#pragma unroll 1
      for (int64_t i = after; i < count; i += lanes) {
        add(read_pack(x + i), read_pack(y + i));
      }
    }
    group.sum(sums);
    if (!active) {
      continue;
    }
    const double c = portable::curvature_at(arguments.c, portable::source_row(arguments.map, 2, row));
    const portable::MobiusFactors f = portable::mobius_inside(sums[0], sums[1], sums[2], c, arguments.guards);
    auto combined = [&](const P& p, const P& q) {
      P result;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const double u = load(p.at[e]);
        const double value = f.of_sum * (u + static_cast<double>(load(q.at[e]))) + f.of_x * u;
        result.at[e] = store<T>(static_cast<C>(value));
      }
      return result;
    };
    const auto write_kept = [&](int64_t begin, int left) {
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (k * lanes < left) {
          z[begin + k * lanes] = combined(kept_x.at[k], kept_y.at[k]);
        }
      }
    };
    if constexpr (stays) {
      kept_x.forget();
      kept_y.forget();
      write_kept(group.lane, left_of(group.lane, count, K, lanes));
    }
#pragma unroll 1
    for (int64_t begin = after; begin < count; begin += K * lanes) {
      write_kept(begin, read(begin));
    }
  }
}

// Three operands are read: rows are read twice, from the nearest cache the second time, and not kept in registers.
template <class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 2)
    mobius_backward(const MobiusArguments arguments, const int64_t rows, const int lanes) {
  constexpr int N = kPack<T, aligned>;
  constexpr int K = kKeptOf<aligned>;
  using P = Pack<T, N>;
  using C = typename portable::Compute<T>::type;
  const RowGroup group(lanes);
  const int64_t packs = arguments.dim / N;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const int64_t row = first + group.group;
    const bool active = row < rows;
    const int64_t count = active ? packs : 0;
    const int64_t source = active ? row : 0;
    const P* x = static_cast<const P*>(arguments.x) + portable::source_row(arguments.map, 0, source) * packs;
    const P* y = static_cast<const P*>(arguments.y) + portable::source_row(arguments.map, 1, source) * packs;
    const P* grad = static_cast<const P*>(arguments.grad) + source * packs;
    double sums[5] = {0.0, 0.0, 0.0, 0.0, 0.0};  // squares of x, y, x + y; <grad, x>, <grad, y>
    Stage<P, K> kept_x, kept_y, kept_grad;
    const auto read = [&](int64_t begin) {
      const int left = left_of(begin, count, K, lanes);
      kept_x.read(x + begin, left, lanes);
      kept_y.read(y + begin, left, lanes);
      kept_grad.read(grad + begin, left, lanes);
      return left;
    };
#pragma unroll 1
    for (int64_t begin = group.lane; begin < count; begin += K * lanes) {
      const int left = read(begin);
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (k * lanes < left) {
#pragma unroll
          for (int e = 0; e < N; ++e) {
            const double u = load(kept_x.at[k].at[e]);
            const double v = load(kept_y.at[k].at[e]);
            const double w = load(kept_grad.at[k].at[e]);
            sums[0] += u * u;
            sums[1] += v * v;
            sums[2] += (u + v) * (u + v);
            sums[3] += w * u;
            sums[4] += w * v;
          }
        }
      }
    }
    group.sum(sums);
    if (!active) {
      continue;
    }
    const double c = portable::curvature_at(arguments.c, portable::source_row(arguments.map, 2, row));
    const portable::MobiusInsideGradient g =
        portable::mobius_inside_gradient(sums[0], sums[1], sums[2], sums[3], sums[4], c, arguments.guards);
    if (group.lane == 0) {
      static_cast<C*>(arguments.grad_c)[row] = static_cast<C>(g.curvature);
    }
    P* grad_x = static_cast<P*>(arguments.z) + source * packs;
    P* grad_y = static_cast<P*>(arguments.grad_y) + source * packs;
#pragma unroll 1
    for (int64_t begin = group.lane; begin < count; begin += K * lanes) {
      const int left = read(begin);
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (k * lanes < left) {
          P of_x;
          P of_y;
#pragma unroll
          for (int e = 0; e < N; ++e) {
            const C u = load(kept_x.at[k].at[e]);
            const C v = load(kept_y.at[k].at[e]);
            const C w = load(kept_grad.at[k].at[e]);
            of_x.at[e] =
                store<T>(static_cast<C>(g.x_of_grad) * w + static_cast<C>(g.x_of_x) * u + static_cast<C>(g.x_of_y) * v);
            of_y.at[e] =
                store<T>(static_cast<C>(g.y_of_grad) * w + static_cast<C>(g.y_of_x) * u + static_cast<C>(g.y_of_y) * v);
          }
          grad_x[begin + k * lanes] = of_x;
          grad_y[begin + k * lanes] = of_y;
        }
      }
    }
  }
}

}  // namespace stone::cuda
