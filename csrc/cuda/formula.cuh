// Row formulas on the GPU: one group of lanes a row, whose packs are kept in registers between the inner products and
// the result where there is room, and read again from the nearest cache where not. Every lane works out the coefficients
// of its row, so a row has as few lanes as keep it.
#pragma once

#include <type_traits>

#include "far_row.cuh"
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

// A formula whose result is a number of the row. A group reads `turns` rows one after another, of which each lane keeps the
// moments of one: the coefficients, some hundreds of float64 instructions, are then worked out once for `turns` rows.
template <class Formula, class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 2)
    formula_number(const RowArguments a, const int64_t rows, const int lanes, const int turns) {
  using Row = RowOnDevice<Formula, T, aligned>;
  using Layout = typename Row::Layout;
  using Sizes = typename Row::Sizes;
  using C = typename Row::C;
  const RowGroup group(lanes);
  const int64_t packs = (a.width[0] - Row::kSkipped) / Row::N;
  T* out = static_cast<T*>(a.result);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups * turns; first < rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups * turns) {
    const auto row_of = [&](int turn) { return first + static_cast<int64_t>(turn) * group.groups + group.group; };
    double own[Layout::kMoments] = {};
#pragma unroll 1
    for (int turn = 0; turn < turns; ++turn) {
      const int64_t index = row_of(turn);
      const bool active = index < rows;
      double sums[Layout::kMoments] = {};
      Row(a, active ? index : 0).template sum_once<false>(sums, a, group, active ? packs : 0, nullptr);
#pragma unroll
      for (int m = 0; m < Layout::kMoments; ++m) {
        own[m] = turn == group.lane ? sums[m] : own[m];
      }
    }
    const int64_t index = row_of(group.lane);
    const bool active = group.lane < turns && index < rows;
    Row row(a, active ? index : 0);
    row.keep(own);
    if (active) {
      const auto result = Formula::template of<double>(row.quantity, row.quantity + Sizes::kMoments, a.guard);
      out[index] = store<T>(static_cast<C>(result.of[0]));
    }
    if constexpr (portable::kReachesFar<Formula>) {
      // Rows far out are taken apart instead, and their results replaced, as the barrier lets them be.
      if (__syncthreads_or(active && row.is_far())) {
#pragma unroll 1
        for (int turn = 0; turn < turns; ++turn) {
          const int64_t at = row_of(turn);
          Row again(a, at < rows ? at : 0);
          double sums[Layout::kMoments] = {};
          again.template sum_once<false>(sums, a, group, at < rows ? packs : 0, nullptr);
          again.keep(sums);
          const bool far = at < rows && again.is_far();
          const FarRow<Layout, T, false> apart(again.space().at, nullptr, again.quantity, far ? packs : 0, group);
          if (far && group.lane == 0) {
            const portable::FarValues values =
                Formula::Far::values(apart.sums, again.quantity + Sizes::kMoments, a.guard);
            out[at] = store<T>(static_cast<C>(values.of[0]));
          }
        }
      }
    }
  }
}

// Whether several rows share the working out of coefficients, and are read again, from a cache, for their results: where
// a row needs many lanes because it is not aligned. Aligned rows in float32 took a quarter longer so on an H100.
template <class Formula, bool aligned>
constexpr bool kShares = !kSeparate<typename Formula::Layout> && !aligned;

// The same for results that are vectors, and for gradients: the coefficients go through shared memory to the lanes that
// read the rows again.
template <class Formula, class T, bool aligned, bool backward>
__global__ void __launch_bounds__(kThreads, 2)
    formula_shared(const RowArguments a, const int64_t rows, const int lanes, const int turns) {
  using Row = RowOnDevice<Formula, T, aligned>;
  using Layout = typename Row::Layout;
  using Sizes = typename Row::Sizes;
  using P = typename Row::P;
  using C = typename Row::C;
  constexpr bool number = Formula::kInfo.gives_number;
  constexpr bool with_grad = backward && !number;
  constexpr int kSums = Layout::kMoments + (with_grad ? Layout::kBasis : 0);
  constexpr int kResults = backward ? Row::kShared : 1;
  constexpr int kLead = backward ? Row::kSkipped : Row::kLeading;
  // As in the kernels below: which results may be combined in float32.
  constexpr bool in_single = backward ? sizeof(T) == 2 && aligned : kScales<Formula, T>;
  constexpr bool with_b = backward ? Row::kShared > 1 : Layout::kBasis > 1;
  constexpr bool with_v = Layout::kBasis > 2;
  const auto used = [](int i) { return i == 0 ? with_grad : (i == 1 || (i == 2 ? with_b : with_v)); };
  __shared__ double passed[4 * kResults + 1][kThreads];
  const RowGroup group(lanes);
  const int64_t packs = (a.width[0] - Row::kSkipped) / Row::N;
  const auto grad_of = [&](int64_t index) {
    return backward ? static_cast<const T*>(a.grad) + (index < rows ? index : 0) * a.result_width : nullptr;
  };
  const auto out_of = [&](int64_t index, int v) {
    return backward ? static_cast<T*>(a.grad_vector[v]) + index * a.width[v]
                    : static_cast<T*>(a.result) + index * a.result_width;
  };
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups * turns; first < rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups * turns) {
    const auto row_of = [&](int turn) { return first + static_cast<int64_t>(turn) * group.groups + group.group; };
    double own[kSums] = {};
#pragma unroll 1
    for (int turn = 0; turn < turns; ++turn) {
      const int64_t at = row_of(turn);
      double sums[kSums] = {};
      Row(a, at < rows ? at : 0)
          .template sum_once<with_grad>(sums, a, group, at < rows ? packs : 0, grad_of(at) + Row::kLeading);
#pragma unroll
      for (int m = 0; m < kSums; ++m) {
        own[m] = turn == group.lane ? sums[m] : own[m];
      }
    }
    const int64_t index = row_of(group.lane);
    const bool active = group.lane < turns && index < rows;
    [[maybe_unused]] bool far = false;
    if (active) {
      Row row(a, index);
      row.keep(own);
      far = row.is_far();
      double of[kResults][4] = {};
      bool single = in_single;
      if constexpr (!backward) {
        const auto result = Formula::template of<double>(row.quantity, row.quantity + Sizes::kMoments, a.guard);
#pragma unroll
        for (int i = 0; i < Layout::kBasis; ++i) {
          of[0][1 + i] = result.of[i];
        }
        if constexpr (Formula::kInfo.time_out) {
          out_of(index, 0)[0] = store<T>(static_cast<C>(result.of[Layout::kBasis]));
        }
      } else {
        double dot[Sizes::kResults];
        if constexpr (with_grad) {
#pragma unroll
          for (int i = 0; i < Layout::kBasis; ++i) {
            dot[i] = own[Layout::kMoments + i];
          }
        }
        if constexpr (!with_grad || Formula::kInfo.time_out) {
          dot[Sizes::kResults - 1] = load(grad_of(index)[0]);
        }
        const portable::RowGradients<Formula> g = portable::gradients_of_row<Formula>(row.quantity, dot, a.guard);
#pragma unroll
        for (int s = 0; s < Sizes::kScalars; ++s) {
          static_cast<C*>(a.grad_scalar[s])[index] = static_cast<C>(g.quantity[Sizes::kMoments + s]);
        }
#pragma unroll
        for (int v = 0; v < kResults; ++v) {
          if constexpr (Formula::kInfo.time_in) {
            out_of(index, v)[0] = store<T>(static_cast<C>(v < Sizes::kTimes ? g.quantity[Layout::kMoments + v] : 0.0));
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            of[v][i] = g.vectors.of[v][i];
          }
        }
#pragma unroll
        for (int m = 0; m < Layout::kMoments; ++m) {
          single = single && single_holds_squares(own[m]);
        }
      }
      const int column = group.lane * group.groups + group.group;
#pragma unroll
      for (int v = 0; v < kResults; ++v) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (used(i)) {
            single = single && single_holds(of[v][i]);
            passed[4 * v + i][column] = of[v][i];
          }
        }
      }
      passed[4 * kResults][column] = single ? 1.0 : 0.0;
    }
    __syncthreads();
#pragma unroll 1
    for (int turn = 0; turn < turns; ++turn) {
      const int64_t at = row_of(turn);
      if (at >= rows) {
        break;
      }
      const Row row(a, at);
      const int column = turn * group.groups + group.group;
      const auto write = [&](auto zero, auto at_once) {
        using S = decltype(zero);
        S of[kResults][4];
#pragma unroll
        for (int v = 0; v < kResults; ++v) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            of[v][i] = used(i) ? static_cast<S>(passed[4 * v + i][column]) : S(0);
          }
        }
        constexpr int kCount = decltype(at_once)::value;
        row.template each_read<with_grad, kCount>(
            group, group.lane, packs, grad_of(at) + Row::kLeading, [&](const auto& part) {
#pragma unroll
              for (int k = 0; k < kCount; ++k) {
                if (k * lanes < part.left) {
                  const typename Row::Packs p = part.packs(k);
                  P result[kResults];
#pragma unroll
                  for (int e = 0; e < Row::N; ++e) {
                    const S x = static_cast<S>(load(p.at[0].at[e]));
                    const S y = static_cast<S>(load(p.at[Row::kShared > 1 ? 1 : 0].at[e]));
                    const S v = static_cast<S>(load(p.at[Row::kShared > 2 ? 2 : 0].at[e]));
                    const S r = with_grad ? static_cast<S>(load(part.grad.at[with_grad ? k : 0].at[e])) : S(0);
#pragma unroll
                    for (int i = 0; i < kResults; ++i) {
                      S value = of[i][1] * x;
                      if constexpr (with_grad) value += of[i][0] * r;
                      if constexpr (with_b) value += of[i][2] * basis_of<Layout>(x, y);
                      if constexpr (with_v) value += of[i][3] * v;
                      result[i].at[e] = store<T>(static_cast<C>(value));
                    }
                  }
#pragma unroll
                  for (int i = 0; i < kResults; ++i) {
                    reinterpret_cast<P*>(out_of(at, i) + kLead)[part.begin + k * lanes] = result[i];
                  }
                }
              }
            });
      };
      constexpr int at_once = Row::at_once(with_grad ? 1 : 0);
      if constexpr (in_single) {
        if (passed[4 * kResults][column] != 0.0) {
          write(0.0f, std::integral_constant<int, at_once>());
        } else {
          write(0.0, std::integral_constant<int, 1>());
        }
      } else {
        write(0.0, std::integral_constant<int, at_once>());
      }
    }
    if constexpr (!portable::kReachesFar<Formula>) {
      __syncthreads();
    } else if (__syncthreads_or(far)) {
      // Rows far out are taken apart instead, and their results replaced, as the barrier lets them be.
#pragma unroll 1
      for (int turn = 0; turn < turns; ++turn) {
        const int64_t at = row_of(turn);
        Row row(a, at < rows ? at : 0);
        double sums[kSums] = {};
        row.template sum_once<with_grad>(sums, a, group, at < rows ? packs : 0, grad_of(at) + Row::kLeading);
        row.keep(sums);
        const bool is_far = at < rows && row.is_far();
        const T* grad = grad_of(at);
        const FarRow<Layout, T, with_grad> apart(row.space().at, grad + Row::kLeading, row.quantity,
                                                is_far ? packs : 0, group);
        if (is_far) {
          if constexpr (!backward) {
            const portable::FarValues values =
                Formula::Far::values(apart.sums, row.quantity + Sizes::kMoments, a.guard);
            if (group.lane == 0) {
              out_of(at, 0)[0] = store<T>(static_cast<C>(values.time));
            }
            apart.combine(out_of(at, 0) + kLead, values.of, packs, group);
          } else {
            const double of_first = load(grad[0]);
            const portable::FarGradients g =
                Formula::Far::gradients(apart.sums, of_first, row.quantity + Sizes::kMoments, a.guard);
            if (group.lane == 0) {
#pragma unroll
              for (int s = 0; s < Sizes::kScalars; ++s) {
                static_cast<C*>(a.grad_scalar[s])[at] = static_cast<C>(g.scalar[s]);
              }
            }
#pragma unroll
            for (int v = 0; v < kResults; ++v) {
              if (group.lane == 0) {
                out_of(at, v)[0] = store<T>(static_cast<C>(0.0));
              }
              apart.combine(out_of(at, v) + kLead, g.of[v], packs, group);
            }
          }
        }
      }
      __syncthreads();
    }
  }
}

template <class Formula, class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 2)
    formula_forward(const RowArguments a, const int64_t rows, const int lanes) {
  using Row = RowOnDevice<Formula, T, aligned>;
  using Layout = typename Row::Layout;
  using Sizes = typename Row::Sizes;
  using P = typename Row::P;
  using C = typename Row::C;
  const RowGroup group(lanes);
  const int64_t packs = (a.width[0] - Row::kSkipped) / Row::N;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const int64_t index = first + group.group;
    const bool active = index < rows;
    Row row(a, active ? index : 0);
    constexpr bool stays = Row::stays(0, false);
    typename Row::template Staged<false, Row::at_once(0)> staged;
    double sums[Layout::kMoments] = {};
    row.template add<stays>(sums, a, group, active ? packs : 0, nullptr, staged);
    group.sum(sums);
    row.keep(sums);
    T* out = static_cast<T*>(a.result) + index * a.result_width;
    if (!active) {
      continue;
    }
    const auto result =
        Formula::template of<double>(row.quantity, row.quantity + Sizes::kMoments, a.guard);
    if constexpr (Formula::kInfo.time_out) {
      if (group.lane == 0) {
        out[0] = store<T>(static_cast<C>(result.of[Layout::kBasis]));
      }
    }
    const auto write = [&](const auto& of) {
      using S = std::remove_cvref_t<decltype(of[0])>;
      row.template each<stays>(group, packs, nullptr, staged, [&](const auto& part) {
#pragma unroll
        for (int k = 0; k < std::remove_cvref_t<decltype(part)>::kCount; ++k) {
          if (k * lanes < part.left) {
            const typename Row::Packs p = part.packs(k);
            P sum;
#pragma unroll
            for (int e = 0; e < Row::N; ++e) {
              const S x = static_cast<S>(load(p.at[0].at[e]));
              S value = of[0] * x;
              if constexpr (Layout::kBasis > 1) value += of[1] * basis_of<Layout>(x, p.entry(1, e));
              if constexpr (Layout::kBasis > 2) value += of[2] * p.entry(2, e);
              sum.at[e] = store<T>(static_cast<C>(value));
            }
            reinterpret_cast<P*>(out + Row::kLeading)[part.begin + k * lanes] = sum;
          }
        }
      });
    };
    if constexpr (kScales<Formula, T>) {
      if (single_holds(result.of[0])) {
        const float of[1] = {static_cast<float>(result.of[0])};
        write(of);
        continue;
      }
    }
    write(result.of);
  }
}

template <class Formula, class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 2)
    formula_backward(const RowArguments a, const int64_t rows, const int lanes) {
  using Row = RowOnDevice<Formula, T, aligned>;
  using Layout = typename Row::Layout;
  using Sizes = typename Row::Sizes;
  using P = typename Row::P;
  using C = typename Row::C;
  constexpr bool with_grad = !Formula::kInfo.gives_number;
  const RowGroup group(lanes);
  const int64_t packs = (a.width[0] - Row::kSkipped) / Row::N;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const int64_t index = first + group.group;
    const bool active = index < rows;
    Row row(a, active ? index : 0);
    const T* grad = static_cast<const T*>(a.grad) + (active ? index : 0) * a.result_width;
    constexpr bool stays = Row::stays(with_grad ? 1 : 0, true);
    constexpr int at_once = Row::at_once(with_grad ? 1 : 0);
    typename Row::template Staged<with_grad, at_once> staged;
    double sums[Layout::kMoments + (with_grad ? Layout::kBasis : 0)] = {};
    row.template add<stays>(sums, a, group, active ? packs : 0, grad + Row::kLeading, staged);
    group.sum(sums);
    row.keep(sums);
    T* out[Layout::kVectors];
#pragma unroll
    for (int v = 0; v < Layout::kVectors; ++v) {
      out[v] = static_cast<T*>(a.grad_vector[v]) + index * a.width[v];
    }
    if (!active) {
      continue;
    }
    double dot[Sizes::kResults];
    if constexpr (with_grad) {
#pragma unroll
      for (int i = 0; i < Layout::kBasis; ++i) {
        dot[i] = sums[Layout::kMoments + i];
      }
    }
    if constexpr (!with_grad || Formula::kInfo.time_out) {
      dot[Sizes::kResults - 1] = load(grad[0]);
    }
    const portable::RowGradients<Formula> g = portable::gradients_of_row<Formula>(row.quantity, dot, a.guard);
    if (group.lane == 0) {
#pragma unroll
      for (int s = 0; s < Sizes::kScalars; ++s) {
        static_cast<C*>(a.grad_scalar[s])[index] = static_cast<C>(g.quantity[Sizes::kMoments + s]);
      }
      if constexpr (Formula::kInfo.time_in) {
#pragma unroll
        for (int v = 0; v < Layout::kVectors; ++v) {
          out[v][0] = store<T>(static_cast<C>(v < Sizes::kTimes ? g.quantity[Layout::kMoments + v] : 0.0));
        }
      }
    }
    // Most rows of 16 bits are combined in float32; the few that are not are read again, pack by pack.
    constexpr bool in_single = sizeof(T) == 2 && aligned;
    const auto write = [&](auto zero) {
      using S = decltype(zero);
      S of[Row::kShared][4];
#pragma unroll
      for (int v = 0; v < Row::kShared; ++v) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          of[v][i] = static_cast<S>(g.vectors.of[v][i]);
        }
      }
      const auto write_part = [&](const auto& part) {
#pragma unroll
        for (int k = 0; k < std::remove_cvref_t<decltype(part)>::kCount; ++k) {
          if (k * lanes < part.left) {
            const typename Row::Packs p = part.packs(k);
            P result[Row::kShared];
#pragma unroll
            for (int e = 0; e < Row::N; ++e) {
              const S x = static_cast<S>(load(p.at[0].at[e]));
              const S y = static_cast<S>(load(p.at[Row::kShared > 1 ? 1 : 0].at[e]));
              const S b = Row::kShared > 1 ? static_cast<S>(basis_of<Layout>(x, y)) : S(0);
              const S v = Row::kShared > 2 ? static_cast<S>(load(p.at[Row::kShared > 2 ? 2 : 0].at[e])) : S(0);
              const S r = with_grad ? static_cast<S>(load(part.grad.at[with_grad ? k : 0].at[e])) : S(0);
#pragma unroll
              for (int i = 0; i < Row::kShared; ++i) {
                S value = of[i][1] * x;
                if constexpr (with_grad) value += of[i][0] * r;
                if constexpr (Row::kShared > 1) value += of[i][2] * b;
                if constexpr (Row::kShared > 2) value += of[i][3] * v;
                result[i].at[e] = store<T>(static_cast<C>(value));
              }
            }
#pragma unroll
            for (int i = 0; i < Row::kShared; ++i) {
              reinterpret_cast<P*>(out[i] + Row::kSkipped)[part.begin + k * lanes] = result[i];
            }
          }
        }
      };
      if constexpr (std::is_same_v<S, double> && in_single) {
        row.template each_read<with_grad, 1>(group, group.lane, packs, grad + Row::kLeading, write_part);
      } else {
        row.template each<stays>(group, packs, grad + Row::kLeading, staged, write_part);
      }
    };
    if constexpr (in_single) {
      bool single = true;
#pragma unroll
      for (int m = 0; m < Layout::kMoments; ++m) {
        single = single && single_holds_squares(sums[m]);
      }
#pragma unroll
      for (int v = 0; v < Row::kShared; ++v) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          single = single && single_holds(g.vectors.of[v][i]);
        }
      }
      if (single) {
        write(0.0f);
      } else {
        write(0.0);
      }
    } else {
      write(0.0);
    }
    if constexpr (kSeparate<Layout>) {
      row.each_of_second(a, group, true, [&](const P& p, int64_t i) {
        P result;
#pragma unroll
        for (int e = 0; e < Row::N; ++e) {
          result.at[e] = store<T>(static_cast<C>(g.vectors.of[1][2] * static_cast<double>(load(p.at[e]))));
        }
        reinterpret_cast<P*>(out[1])[i] = result;
      });
    }
  }
}

// Rows that begin with a time component are never aligned to 16 bytes.
template <class Formula, class T>
bool aligned_rows(const RowArguments& a) {
  bool aligned = true;
  for (int v = 0; v < Formula::kInfo.vectors.size; ++v) {
    aligned = aligned && a.width[v] % kPack<T, true> == 0 && aligned_to_16(a.vector[v]) && aligned_to_16(a.grad_vector[v]);
  }
  return aligned && aligned_to_16(a.result) && aligned_to_16(a.grad);
}

template <class Formula, class T, bool forward, bool aligned>
void launch_formula_lanes(const RowArguments& a, int64_t rows, cudaStream_t stream) {
  constexpr bool number = forward && Formula::kInfo.gives_number;
  constexpr bool shares = number || kShares<Formula, aligned>;
  constexpr bool separate = kSeparate<typename Formula::Layout>;
  const int64_t longest = separate && a.width[1] > a.width[0] ? a.width[1] : a.width[0];
  const int64_t packs = longest / kPack<T, aligned>;
  if constexpr (shares) {
    // More lanes cost little where rows share their coefficients, and single elements want them side by side.
    const int lanes = aligned ? lanes_for_rows(packs, true) : lanes_that_keep(packs, kKeptSingle, 16);
    const int turns = turns_for(rows, lanes, number ? 8 : 4);
    const int blocks = blocks_for((rows + turns - 1) / turns, lanes);
    if constexpr (number) {
      launch(formula_number<Formula, T, aligned>, blocks, stream, a, rows, lanes, turns);
    } else {
      launch(formula_shared<Formula, T, aligned, !forward>, blocks, stream, a, rows, lanes, turns);
    }
  } else {
    const int lanes = lanes_for_rows(packs, aligned);
    const int blocks = blocks_for(rows, lanes);
    if constexpr (forward) {
      launch(formula_forward<Formula, T, aligned>, blocks, stream, a, rows, lanes);
    } else {
      launch(formula_backward<Formula, T, aligned>, blocks, stream, a, rows, lanes);
    }
  }
}

template <class Formula, class T, bool forward>
void launch_formula_typed(const RowArguments& a, int64_t rows, cudaStream_t stream) {
  if constexpr (!Formula::kInfo.time_in && !Formula::kInfo.time_out) {
    if (aligned_rows<Formula, T>(a)) return launch_formula_lanes<Formula, T, forward, true>(a, rows, stream);
  }
  launch_formula_lanes<Formula, T, forward, false>(a, rows, stream);
}

template <class Formula, bool forward>
void launch_formula(const RowArguments& a, int64_t rows, cudaStream_t stream) {
  switch (a.element) {
    case Element::kFloat32:
      return launch_formula_typed<Formula, float, forward>(a, rows, stream);
    case Element::kFloat64:
      return launch_formula_typed<Formula, double, forward>(a, rows, stream);
    case Element::kBFloat16:
      return launch_formula_typed<Formula, BFloat16, forward>(a, rows, stream);
    case Element::kFloat16:
      return launch_formula_typed<Formula, Half, forward>(a, rows, stream);
  }
}

}  // namespace stone::cuda

// Makes a formula's two kernels available to cuda/launch.cpp.
#define STONE_CUDA_FORMULA(Formula)                                                                              \
  template <>                                                                                                    \
  void stone::cuda::RowKernels<stone::portable::Formula>::forward(const RowArguments& a, int64_t rows,           \
                                                                  cudaStream_t stream) {                         \
    launch_formula<stone::portable::Formula, true>(a, rows, stream);                                             \
  }                                                                                                              \
  template <>                                                                                                    \
  void stone::cuda::RowKernels<stone::portable::Formula>::backward(const RowArguments& a, int64_t rows,          \
                                                                   cudaStream_t stream) {                        \
    launch_formula<stone::portable::Formula, false>(a, rows, stream);                                            \
  }
