// Row formulas on the GPU whose coefficients, some hundreds of float64 instructions, are worked out once for several rows:
// those that give a number of the row, and rows that are not aligned, which take many lanes.
#pragma once

#include <type_traits>

#include "far_row.cuh"
#include "row_on_device.cuh"

namespace stone::cuda {

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

// The same for results that are vectors, and for gradients, of rows that are not aligned: the coefficients go through shared
// memory to the lanes that read the rows again.
template <class Formula, class T, bool backward>
__global__ void __launch_bounds__(kThreads, 2)
    formula_shared(const RowArguments a, const int64_t rows, const int lanes, const int turns) {
  using Row = RowOnDevice<Formula, T, false>;
  using Layout = typename Row::Layout;
  using Sizes = typename Row::Sizes;
  using P = typename Row::P;
  using C = typename Row::C;
  constexpr bool number = Formula::kInfo.gives_number;
  constexpr bool with_grad = backward && !number;
  constexpr int kSums = Layout::kMoments + (with_grad ? Layout::kBasis : 0);
  constexpr int kResults = backward ? Row::kShared : 1;
  constexpr int kLead = backward ? Row::kSkipped : Row::kLeading;
  // Results along one vector are combined in float32 where that holds their factor.
  constexpr bool in_single = !backward && kScales<Formula, T>;
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

}  // namespace stone::cuda
