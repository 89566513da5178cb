// A row of a formula on the GPU: its vectors, read by packs, kept in registers between the inner products and the result
// where there is room, and read again from the nearest cache where not.
#pragma once

#include "kernels.h"
#include "row_group.cuh"
#include "stone/broadcast.h"
#include "stone/curvature.h"
#include "stone/formula_row.h"

namespace stone::cuda {

using portable::load;
using portable::store;

template <class Layout>
constexpr bool kSeparate = Layout::kVectors > Layout::kBasis;

template <class Layout, class S>
__device__ inline S basis_of(S x, S y) {
  return Layout::kOfX == 0.0 ? y : (Layout::kOfX > 0.0 ? x + y : y - x);
}

// The packs of a row's vectors: x, and y and v where the layout has them.
template <class Layout, class P>
struct RowPacks {
  P at[Layout::kVectors];

  __device__ double entry(int vector, int e) const {
    return static_cast<double>(load(at[vector < Layout::kVectors ? vector : 0].at[e]));
  }
};

template <class Formula, class T, bool aligned>
struct RowOnDevice {
  using Layout = typename Formula::Layout;
  using Sizes = portable::Slots<Formula>;
  using C = typename portable::Compute<T>::type;
  static constexpr int N = kPack<T, aligned>;
  static constexpr int K = kKeptOf<aligned>;
  static constexpr int kSkipped = Formula::kInfo.time_in ? 1 : 0;
  static constexpr int kLeading = Formula::kInfo.time_out ? 1 : 0;
  static constexpr int kShared = kSeparate<Layout> ? 1 : Layout::kVectors;  // vectors of x's length
  using P = Pack<T, N>;
  using Packs = RowPacks<Layout, P>;

  const T* start[Layout::kVectors];
  double quantity[Sizes::kQuantities];

  __device__ RowOnDevice(const RowArguments& a, int64_t row) {
#pragma unroll
    for (int v = 0; v < Layout::kVectors; ++v) {
      start[v] = static_cast<const T*>(a.vector[v]) + portable::source_row(a.map, v, row) * a.width[v];
    }
#pragma unroll
    for (int s = 0; s < Sizes::kScalars; ++s) {
      const int64_t index = portable::source_row(a.map, Layout::kVectors + s, row);
      quantity[Sizes::kMoments + s] = portable::curvature_at(a.scalar[s], index);
    }
#pragma unroll
    for (int t = 0; t < Sizes::kTimes; ++t) {
      quantity[Layout::kMoments + t] = load(start[t][0]);
    }
  }

  // How many packs of each vector, and of `given` gradients, a lane reads at once: as registers allow. Numbers of 16 bits
  // want more of them while they are taken apart.
  __host__ __device__ static constexpr int at_once(int given) {
    const int vectors = kShared + given;
    if (aligned) {
      return vectors > 3 || (vectors == 3 && sizeof(T) == 2) ? 2 : K;
    }
    return vectors > 2 ? K / 2 : K;
  }

  // Whether they may stay in registers while the coefficients are worked out: 32 for values, 16 for gradients.
  __host__ __device__ static constexpr bool stays(int given, bool backward) {
    return at_once(given) == K && sizeof(P) * K * (kShared + given) <= (backward || sizeof(T) == 2 ? 64 : 128);
  }

  // What a lane holds of the row at once; `grad` is read where the result is a vector and its gradient is given.
  template <bool with_grad, int count>
  struct Staged {
    static constexpr int kCount = count;
    Stage<P, count> vector[kShared];
    Stage<P, with_grad ? count : 1> grad;
    int64_t begin;
    int left;

    __device__ Staged() {}

    __device__ Packs packs(int k) const {
      Packs p;
#pragma unroll
      for (int v = 0; v < kShared; ++v) {
        p.at[v] = vector[v].at[k];
      }
      return p;
    }

    __device__ void forget() {
#pragma unroll
      for (int v = 0; v < kShared; ++v) {
        vector[v].forget();
      }
      if constexpr (with_grad) grad.forget();
    }
  };

  template <bool with_grad, int kCount>
  __device__ void read(Staged<with_grad, kCount>& staged, const T* grad, int64_t begin, int64_t count,
                       int lanes) const {
    staged.begin = begin;
    staged.left = left_of(begin, count, kCount, lanes);
#pragma unroll
    for (int v = 0; v < kShared; ++v) {
      staged.vector[v].read(reinterpret_cast<const P*>(start[v] + kSkipped) + begin, staged.left, lanes);
    }
    if constexpr (with_grad) {
      staged.grad.read(reinterpret_cast<const P*>(grad) + begin, staged.left, lanes);
    }
  }

  template <bool with_grad, int kCount, int M>
  static __device__ void add_staged(double (&sums)[M], const Staged<with_grad, kCount>& staged, int lanes) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      if (k * lanes < staged.left) {
        const Packs p = staged.packs(k);
#pragma unroll
        for (int e = 0; e < N; ++e) {
          const double x = p.entry(0, e);
          const double y = kShared > 1 ? p.entry(1, e) : 0.0;
          const double v = kShared > 2 ? p.entry(2, e) : 0.0;
          const portable::Terms<double> t = Layout::terms(x, y, v);
#pragma unroll
          for (int m = 0; m < Layout::kMoments; ++m) {
            sums[m] += t.at[m];
          }
          if constexpr (with_grad) {
            const double d = load(staged.grad.at[k].at[e]);
            sums[Layout::kMoments] += d * x;
            if constexpr (Layout::kBasis > 1) sums[Layout::kMoments + 1] += d * basis_of<Layout>(x, y);
            if constexpr (Layout::kBasis > 2) sums[Layout::kMoments + 2] += d * v;
          }
        }
      }
    }
  }

  // Adds the terms of this lane's packs, and leaves the first of them in `staged` where they stay.
  template <bool kStay, bool with_grad, int kCount, int M>
  __device__ void add(double (&sums)[M], const RowArguments& a, const RowGroup& group, int64_t count, const T* grad,
                      Staged<with_grad, kCount>& staged) const {
    int64_t begin = group.lane;
    if constexpr (kStay) {
      read(staged, grad, begin, count, group.lanes);
      add_staged(sums, staged, group.lanes);
      begin += static_cast<int64_t>(kCount) * group.lanes;
    }
    // Few rows are longer than what stays.
    constexpr int rest = kStay ? 1 : kCount;
#pragma unroll 1
    for (; begin < count; begin += static_cast<int64_t>(rest) * group.lanes) {
      Staged<with_grad, rest> more;
      read(more, grad, begin, count, group.lanes);
      add_staged(sums, more, group.lanes);
    }
    if constexpr (kSeparate<Layout>) {
      each_of_second(a, group, count > 0, [&](const P& p, int64_t) {
#pragma unroll
        for (int e = 0; e < N; ++e) {
          const double y = load(p.at[e]);
          sums[Layout::kYY] += y * y;
        }
      });
    }
  }

  // The sums of a row that is read again for its result. Every thread of the block must call it.
  template <bool with_grad, int M>
  __device__ void sum_once(double (&sums)[M], const RowArguments& a, const RowGroup& group, int64_t count,
                           const T* grad) const {
    Staged<with_grad, at_once(with_grad ? 1 : 0)> staged;
    add<false>(sums, a, group, count, grad, staged);
    group.sum(sums);
  }

  // Calls `write` with what this lane holds of the row, part by part.
  template <bool kStay, bool with_grad, int kCount, class Write>
  __device__ void each(const RowGroup& group, int64_t count, const T* grad, Staged<with_grad, kCount>& staged,
                       const Write& write) const {
    int64_t begin = group.lane;
    if constexpr (kStay) {
      staged.forget();
      write(staged);
      begin += static_cast<int64_t>(kCount) * group.lanes;
    }
    each_read<with_grad, kStay ? 1 : kCount>(group, begin, count, grad, write);
  }

  // The same from `begin` on, `kCount` packs at a time, all of them read again.
  template <bool with_grad, int kCount, class Write>
  __device__ void each_read(const RowGroup& group, int64_t begin, int64_t count, const T* grad,
                            const Write& write) const {
#pragma unroll 1
    for (; begin < count; begin += static_cast<int64_t>(kCount) * group.lanes) {
      Staged<with_grad, kCount> part;
      read(part, grad, begin, count, group.lanes);
      write(part);
    }
  }

  // The same of a second vector of a length of its own.
  template <class Use>
  __device__ void each_of_second(const RowArguments& a, const RowGroup& group, bool active, const Use& use) const {
    const int64_t count = active ? a.width[1] / N : 0;
    const P* row = reinterpret_cast<const P*>(start[Layout::kVectors - 1]);
#pragma unroll 1
    for (int64_t begin = group.lane; begin < count; begin += K * group.lanes) {
      const int left = left_of(begin, count, K, group.lanes);
      Stage<P, K> stage;
      stage.read(row + begin, left, group.lanes);
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (k * group.lanes < left) {
          use(stage.at[k], begin + k * group.lanes);
        }
      }
    }
  }

  __device__ void keep(const double* sums) {
#pragma unroll
    for (int m = 0; m < Layout::kMoments; ++m) {
      quantity[m] = sums[m];
    }
  }

  struct Space {
    const T* at[Layout::kVectors];
  };
  __device__ Space space() const {
    Space first;
#pragma unroll
    for (int v = 0; v < Layout::kVectors; ++v) {
      first.at[v] = start[v] + kSkipped;
    }
    return first;
  }

  // Whether the moments of a row far out do not hold its result.
  __device__ bool is_far() const {
    if constexpr (portable::kReachesFar<Formula>) {
      return portable::is_far(Formula::reach(quantity, quantity + Sizes::kMoments), portable::kNearTimes<T>);
    }
    return false;
  }
};

// Results along one vector need its factor alone, in the type that rows are multiplied in, as on the CPU; others are
// combined in float64, where their terms may cancel.
template <class Formula, class T>
constexpr bool kScales = Formula::Layout::kBasis == 1 && sizeof(T) <= 4;

}  // namespace stone::cuda
