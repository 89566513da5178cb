// expmap0 and logmap0 on the GPU: one group of lanes a row, one reading of rows that fit in registers.
#pragma once

#include "kernels.h"
#include "row_group.cuh"
#include "stone/broadcast.h"
#include "stone/curvature.h"
#include "stone/radial.h"

namespace stone::cuda {

using portable::load;
using portable::store;

// Blocks that a multiprocessor is to hold: packs of 16 bits a number want more registers while they are taken apart.
template <class T>
constexpr int kFewRegisters = sizeof(T) == 2 ? 2 : 3;

template <class Map, class T, bool aligned>
__global__ void __launch_bounds__(kThreads, kFewRegisters<T>)
    radial_forward(const RadialArguments arguments, const int64_t rows, const int lanes) {
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
    const P* x = static_cast<const P*>(arguments.x) + row * packs;
    P* y = static_cast<P*>(arguments.y) + row * packs;
    const int64_t count = active ? packs : 0;
    const int left = left_of(group.lane, count, K, lanes);
    Stage<P, K> kept;
    kept.read(x + group.lane, left, lanes);
    double sums[1] = {0.0};
    auto add = [&](const P& p) {
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const double value = load(p.at[e]);
        sums[0] += value * value;
      }
    };
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (k * lanes < left) {
        add(kept.at[k]);
      }
    }
    for (int64_t i = group.lane + static_cast<int64_t>(K) * lanes; i < count; i += lanes) {
      add(read_pack(x + i));
    }
    group.sum(sums);
    if (!active) {
      continue;
    }
    const double c = portable::curvature_at(arguments.c, portable::source_row(arguments.map, 0, row));
    const C factor = static_cast<C>(arguments.guards.separate
                                        ? portable::radial_factor_separate<Map>(sums[0], c, arguments.guards)
                                        : portable::radial_factor<Map>(sums[0], c, arguments.guards));
    kept.forget();
    auto scaled = [&](const P& p) {
      P result;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        result.at[e] = store<T>(factor * load(p.at[e]));
      }
      return result;
    };
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (k * lanes < left) {
        y[group.lane + k * lanes] = scaled(kept.at[k]);
      }
    }
    for (int64_t i = group.lane + static_cast<int64_t>(K) * lanes; i < count; i += lanes) {
      y[i] = scaled(read_pack(x + i));
    }
  }
}

template <class Map, class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 2)
    radial_backward(const RadialArguments arguments, const int64_t rows, const int lanes) {
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
    const P* x = static_cast<const P*>(arguments.x) + row * packs;
    const P* grad = static_cast<const P*>(arguments.grad) + row * packs;
    P* grad_x = static_cast<P*>(arguments.y) + row * packs;
    const int64_t count = active ? packs : 0;
    const int left = left_of(group.lane, count, K, lanes);
    Stage<P, K> kept_x, kept_grad;
    kept_x.read(x + group.lane, left, lanes);
    kept_grad.read(grad + group.lane, left, lanes);
    double sums[2] = {0.0, 0.0};  // <x, x>, <x, grad>
    auto add = [&](const P& p, const P& g) {
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const double value = load(p.at[e]);
        sums[0] += value * value;
        sums[1] += value * static_cast<double>(load(g.at[e]));
      }
    };
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (k * lanes < left) {
        add(kept_x.at[k], kept_grad.at[k]);
      }
    }
    for (int64_t i = group.lane + static_cast<int64_t>(K) * lanes; i < count; i += lanes) {
      add(read_pack(x + i), read_pack(grad + i));
    }
    group.sum(sums);
    if (!active) {
      continue;
    }
    const double c = portable::curvature_at(arguments.c, portable::source_row(arguments.map, 0, row));
    const portable::RadialGradient g =
        arguments.guards.separate ? portable::radial_gradient_separate<Map>(sums[0], sums[1], c, arguments.guards)
                                  : portable::radial_gradient<Map>(sums[0], sums[1], c, arguments.guards);
    if (group.lane == 0) {
      static_cast<C*>(arguments.grad_c)[row] = static_cast<C>(g.curvature);
    }
    const auto combined = [&](auto of_grad, auto of_x, const P& p, const P& d) {
      using S = decltype(of_x);
      P result;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const S value = of_grad * static_cast<S>(load(d.at[e])) + of_x * static_cast<S>(load(p.at[e]));
        result.at[e] = store<T>(static_cast<C>(value));
      }
      return result;
    };
    const auto write_kept = [&](int64_t begin, int left, auto of_grad, auto of_x) {
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (k * lanes < left) {
          grad_x[begin + k * lanes] = combined(of_grad, of_x, kept_x.at[k], kept_grad.at[k]);
        }
      }
    };
    const auto write_from = [&](int64_t begin, auto of_grad, auto of_x) {
#pragma unroll 1
      for (int64_t i = begin; i < count; i += K * lanes) {
        const int rest = left_of(i, count, K, lanes);
        kept_x.read(x + i, rest, lanes);
        kept_grad.read(grad + i, rest, lanes);
        write_kept(i, rest, of_grad, of_x);
      }
    };
    if constexpr (sizeof(T) == 2) {
      // Taken apart they want more registers than are left: they are read again, from the nearest cache.
      if (single_holds(g.factor) && single_holds(g.along) && single_holds_squares(sums[0])) {
        write_from(group.lane, static_cast<float>(g.factor), static_cast<float>(g.along));
      } else {
        write_from(group.lane, g.factor, g.along);
      }
    } else {
      kept_x.forget();
      kept_grad.forget();
      write_kept(group.lane, left, g.factor, g.along);
      write_from(group.lane + static_cast<int64_t>(K) * lanes, g.factor, g.along);
    }
  }
}

template <class Map, class T, bool forward>
void launch_typed(const RadialArguments& arguments, int64_t rows, cudaStream_t stream) {
  const bool aligned = arguments.dim % kPack<T, true> == 0 && aligned_to_16(arguments.x) &&
                       aligned_to_16(arguments.y) && (forward || aligned_to_16(arguments.grad));
  const int lanes = lanes_for_rows(arguments.dim / (aligned ? kPack<T, true> : 1), aligned);
  const int blocks = blocks_for(rows, lanes);
  if constexpr (forward) {
    if (aligned) {
      launch(radial_forward<Map, T, true>, blocks, stream, arguments, rows, lanes);
    } else {
      launch(radial_forward<Map, T, false>, blocks, stream, arguments, rows, lanes);
    }
  } else {
    if (aligned) {
      launch(radial_backward<Map, T, true>, blocks, stream, arguments, rows, lanes);
    } else {
      launch(radial_backward<Map, T, false>, blocks, stream, arguments, rows, lanes);
    }
  }
}

template <class Map, bool forward>
void launch_radial(const RadialArguments& arguments, int64_t rows, cudaStream_t stream) {
  switch (arguments.element) {
    case Element::kFloat32:
      return launch_typed<Map, float, forward>(arguments, rows, stream);
    case Element::kFloat64:
      return launch_typed<Map, double, forward>(arguments, rows, stream);
    case Element::kBFloat16:
      return launch_typed<Map, BFloat16, forward>(arguments, rows, stream);
    case Element::kFloat16:
      return launch_typed<Map, Half, forward>(arguments, rows, stream);
  }
}

}  // namespace stone::cuda
