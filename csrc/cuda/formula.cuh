// Row formulas on the GPU: one group of lanes a row, which is read for the inner products and again, from cache, for
// the result. Every lane works out the coefficients of its row.
#pragma once

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

template <class Layout>
__device__ inline double basis_of(double x, double y) {
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

  __device__ Packs packs(int64_t i) const {
    Packs p;
#pragma unroll
    for (int v = 0; v < kShared; ++v) {
      p.at[v] = reinterpret_cast<const P*>(start[v] + kSkipped)[i];
    }
    return p;
  }

  // Adds the terms of this lane's packs; `grad` is null, or the gradient whose inner products follow the moments.
  template <int M>
  __device__ void add(double (&sums)[M], const RowArguments& a, const RowGroup& group, int64_t count,
                      const T* grad) const {
    for (int64_t i = group.lane; i < count; i += group.lanes) {
      const Packs p = packs(i);
      P g;
      if constexpr (M > Layout::kMoments) {
        g = reinterpret_cast<const P*>(grad)[i];
      }
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
        if constexpr (M > Layout::kMoments) {
          const double d = load(g.at[e]);
          sums[Layout::kMoments] += d * x;
          if constexpr (Layout::kBasis > 1) sums[Layout::kMoments + 1] += d * basis_of<Layout>(x, y);
          if constexpr (Layout::kBasis > 2) sums[Layout::kMoments + 2] += d * v;
        }
      }
    }
    if constexpr (kSeparate<Layout>) {
      const int64_t others = count > 0 ? a.width[1] : 0;
      for (int64_t i = group.lane; i < others; i += group.lanes) {
        const double y = load(start[1][i]);
        sums[Layout::kYY] += y * y;
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

template <class Formula, class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 1)
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
    double sums[Layout::kMoments] = {};
    row.add(sums, a, group, active ? packs : 0, nullptr);
    group.sum(sums);
    row.keep(sums);
    T* out = static_cast<T*>(a.result) + index * a.result_width;
    if constexpr (portable::kReachesFar<Formula>) {
      const bool far = active && row.is_far();
      if (__syncthreads_or(far)) {
        const FarRow<Layout, T, false> apart(row.space().at, nullptr, row.quantity, far ? packs : 0, group);
        if (far) {
          const portable::FarValues values =
              Formula::Far::values(apart.sums, row.quantity + Sizes::kMoments, a.guard);
          if (group.lane == 0) {
            out[0] = store<T>(static_cast<C>(Formula::kInfo.gives_number ? values.of[0] : values.time));
          }
          if constexpr (!Formula::kInfo.gives_number) {
            apart.combine(out + Row::kLeading, values.of, packs, group);
          }
          continue;
        }
      }
    }
    if (!active) {
      continue;
    }
    const auto result =
        Formula::template of<double>(row.quantity, row.quantity + Sizes::kMoments, a.guard);
    if constexpr (Formula::kInfo.gives_number || Formula::kInfo.time_out) {
      if (group.lane == 0) {
        out[0] = store<T>(static_cast<C>(result.of[Formula::kInfo.gives_number ? 0 : Layout::kBasis]));
      }
    }
    if constexpr (!Formula::kInfo.gives_number) {
      for (int64_t i = group.lane; i < packs; i += group.lanes) {
        const typename Row::Packs p = row.packs(i);
        P sum;
#pragma unroll
        for (int e = 0; e < Row::N; ++e) {
          const double x = p.entry(0, e);
          double value = result.of[0] * x;
          if constexpr (Layout::kBasis > 1) value += result.of[1] * basis_of<Layout>(x, p.entry(1, e));
          if constexpr (Layout::kBasis > 2) value += result.of[2] * p.entry(2, e);
          sum.at[e] = store<T>(static_cast<C>(value));
        }
        reinterpret_cast<P*>(out + Row::kLeading)[i] = sum;
      }
    }
  }
}

template <class Formula, class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 1)
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
    double sums[Layout::kMoments + (with_grad ? Layout::kBasis : 0)] = {};
    row.add(sums, a, group, active ? packs : 0, grad + Row::kLeading);
    group.sum(sums);
    row.keep(sums);
    T* out[Layout::kVectors];
#pragma unroll
    for (int v = 0; v < Layout::kVectors; ++v) {
      out[v] = static_cast<T*>(a.grad_vector[v]) + index * a.width[v];
    }
    if constexpr (portable::kReachesFar<Formula>) {
      const bool far = active && row.is_far();
      if (__syncthreads_or(far)) {
        const FarRow<Layout, T, with_grad> apart(row.space().at, grad + Row::kLeading, row.quantity, far ? packs : 0,
                                                group);
        if (far) {
          const double of_number = load(grad[0]);
          const portable::FarGradients g =
              Formula::Far::gradients(apart.sums, of_number, row.quantity + Sizes::kMoments, a.guard);
          if (group.lane == 0) {
#pragma unroll
            for (int s = 0; s < Sizes::kScalars; ++s) {
              static_cast<C*>(a.grad_scalar[s])[index] = static_cast<C>(g.scalar[s]);
            }
          }
#pragma unroll
          for (int v = 0; v < Layout::kVectors; ++v) {
            if (group.lane == 0) {
              out[v][0] = store<T>(static_cast<C>(0.0));
            }
            apart.combine(out[v] + Row::kSkipped, g.of[v], packs, group);
          }
          continue;
        }
      }
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
    for (int64_t i = group.lane; i < packs; i += group.lanes) {
      const typename Row::Packs p = row.packs(i);
      P of[Row::kShared];
      P d;
      if constexpr (with_grad) {
        d = reinterpret_cast<const P*>(grad + Row::kLeading)[i];
      }
#pragma unroll
      for (int e = 0; e < Row::N; ++e) {
        const double x = p.entry(0, e);
        const double b = Row::kShared > 1 ? basis_of<Layout>(x, p.entry(1, e)) : 0.0;
        const double v = Row::kShared > 2 ? p.entry(2, e) : 0.0;
        const double r = with_grad ? static_cast<double>(load(d.at[e])) : 0.0;
#pragma unroll
        for (int k = 0; k < Row::kShared; ++k) {
          const double* c = g.vectors.of[k];
          of[k].at[e] = store<T>(static_cast<C>(c[0] * r + c[1] * x + c[2] * b + c[3] * v));
        }
      }
#pragma unroll
      for (int k = 0; k < Row::kShared; ++k) {
        reinterpret_cast<P*>(out[k] + Row::kSkipped)[i] = of[k];
      }
    }
    if constexpr (kSeparate<Layout>) {
      for (int64_t i = group.lane; i < a.width[1]; i += group.lanes) {
        out[1][i] = store<T>(static_cast<C>(g.vectors.of[1][2] * static_cast<double>(load(row.start[1][i]))));
      }
    }
  }
}

// Rows that begin with a time component are never aligned to 16 bytes.
template <class Formula, class T>
bool aligned_rows(const RowArguments& a) {
  bool aligned = a.width[0] % kPack<T, true> == 0;
  for (int v = 0; v < (kSeparate<typename Formula::Layout> ? 1 : Formula::kInfo.vectors.size); ++v) {
    aligned = aligned && aligned_to_16(a.vector[v]) && aligned_to_16(a.grad_vector[v]);
  }
  return aligned && aligned_to_16(a.result) && aligned_to_16(a.grad);
}

template <class Formula, class T, bool forward>
void launch_formula_typed(const RowArguments& a, int64_t rows, cudaStream_t stream) {
  constexpr bool may_align = !Formula::kInfo.time_in && !Formula::kInfo.time_out;
  const bool aligned = may_align && aligned_rows<Formula, T>(a);
  const int lanes = lanes_for(a.width[0] / (aligned ? kPack<T, true> : 1));
  const int blocks = blocks_for(rows, lanes);
  if constexpr (may_align) {
    if (aligned) {
      if constexpr (forward) {
        return launch(formula_forward<Formula, T, true>, blocks, stream, a, rows, lanes);
      } else {
        return launch(formula_backward<Formula, T, true>, blocks, stream, a, rows, lanes);
      }
    }
  }
  if constexpr (forward) {
    launch(formula_forward<Formula, T, false>, blocks, stream, a, rows, lanes);
  } else {
    launch(formula_backward<Formula, T, false>, blocks, stream, a, rows, lanes);
  }
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
