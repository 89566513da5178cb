// Row formulas on the GPU: one group of lanes a row. Every lane works out the coefficients of its row, so a row has as few
// lanes as keep it; where that is dear, several rows share it (shared_rows.cuh).
#pragma once

#include <type_traits>

#include "row_on_device.cuh"
#include "shared_rows.cuh"

namespace stone::cuda {

// Whether several rows share the working out of coefficients, and are read again, from a cache, for their results: where
// a row needs many lanes because it is not aligned. Aligned rows in float32 took a quarter longer so on an H100.
template <class Formula, bool aligned>
constexpr bool kShares = !kSeparate<typename Formula::Layout> && !aligned;

template <class Formula, class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 2)
    formula_forward(const RowArguments a, const int64_t rows, const int lanes) {
  static_assert(!portable::kReachesFar<Formula>, "rows far out are taken apart in shared_rows.cuh alone");
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
  static_assert(!portable::kReachesFar<Formula>, "rows far out are taken apart in shared_rows.cuh alone");
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
      launch(formula_shared<Formula, T, !forward>, blocks, stream, a, rows, lanes, turns);
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
