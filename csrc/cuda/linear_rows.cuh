// The epilogue of hyperbolic linear layers on rows that lanes keep in registers: a group of lanes sums a few rows, then a
// thread works out the factors of one row each (in every lane of a group they would cost more than the memory does), and
// the group writes its rows.
#pragma once

#include "packs.cuh"
#include "stone/broadcast.h"
#include "stone/curvature.h"
#include "stone/poincare_linear.h"

namespace stone::cuda {

// A lane has kPacks packs of each of kRows rows.
template <class T, int kPacks_, int most_rows>
struct KeptRows {
  static constexpr int kPacks = kPacks_;
  // As many rows as the registers hold; long ones are fewer, and have more packs to wait for together.
  static constexpr int kHeld = kPacks >= 8 ? 1 : (kPacks == 4 ? 2 : (kPacks == 2 && sizeof(T) > 2 ? 3 : 4));
  static constexpr int kRows = kHeld < most_rows ? kHeld : most_rows;
  // Blocks on a processor in the forward: while some wait for memory, others work out their factors.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  static constexpr int kBlocks = 2;  // code for older devices needs a few registers more than a third block leaves
#else
  static constexpr int kBlocks = sizeof(T) == 8 || kPacks >= 8 ? 2 : 3;
#endif
  static constexpr int kWidth = kWhole<T>;
  // Groups have kFewestLanes lanes or more, so that a block has at most this many rows.
  static constexpr int kFewestLanes = 8;
  static constexpr int kOfBlock = kThreads / kFewestLanes * kRows;

  int64_t first;
  int64_t rows;
  RowGroup group;

  __device__ explicit KeptRows(int lanes) : first(0), rows(0), group(lanes) {}

  __device__ int of_block(int r) const { return r * group.groups + group.group; }
  __device__ int64_t row(int r) const { return first + of_block(r); }
  // The first entry of pack p of this lane.
  __device__ int64_t entry(int p) const { return (static_cast<int64_t>(p) * group.lanes + group.lane) * kWidth; }

  __device__ void read(Words (&packs)[kRows][kPacks], const void* source, int64_t size) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        packs[r][p] = pack(source, size, r, p);
      }
    }
  }

  __device__ Words pack(const void* source, int64_t size, int r, int p) const {
    Words words = {};
    if (row(r) < rows && entry(p) < size) {
      words = *reinterpret_cast<const Words*>(static_cast<const T*>(source) + row(r) * size + entry(p));
    }
    return words;
  }

  // The entries of a pack of the bias as they are computed with; zeros where there is none.
  template <class V>
  __device__ void bias_of(V (&values)[kWidth], const void* bias, int p, int64_t size) const {
    Words pack = {};
    if (bias != nullptr && entry(p) < size) {
      pack = *reinterpret_cast<const Words*>(static_cast<const T*>(bias) + entry(p));
    }
    widen<T>(values, pack);
  }

  template <class V>
  __device__ static Pack<T, kWidth> narrowed(const V (&values)[kWidth]) {
    ComputeOf<T> narrow[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      narrow[i] = static_cast<ComputeOf<T>>(values[i]);
    }
    return packed<T, kWidth>(narrow);
  }

  // Calls `each(r, k, pack)` for the packs of rows that are not kept; `together` of each row are asked for at once.
  template <int together, class Each>
  __device__ void for_packs(const void* source, int64_t size, Each each) const {
    const int64_t apart = static_cast<int64_t>(group.lanes) * kWidth;
#pragma unroll 1
    for (int64_t k = static_cast<int64_t>(group.lane) * kWidth; k < size; k += together * apart) {
      Words packs[together][kRows];
#pragma unroll
      for (int t = 0; t < together; ++t) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          packs[t][r] = {};
          if (row(r) < rows && k + t * apart < size) {
            packs[t][r] =
                *reinterpret_cast<const Words*>(static_cast<const T*>(source) + row(r) * size + k + t * apart);
          }
        }
      }
#pragma unroll
      for (int t = 0; t < together; ++t) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (k + t * apart < size) {
            each(r, k + t * apart, packs[t][r]);
          }
        }
      }
    }
  }

  // sums[r] = ||x||^2.
  template <int together>
  __device__ void squares(double (&sums)[kRows], const void* x, int64_t size) const {
    for_packs<together>(x, size, [&](int r, int64_t, const Words& pack) {
      double values[kWidth];
      widen<T>(values, pack);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        sums[r] += values[i] * values[i];
      }
    });
  }

  // Over the groups, into `result` by the rows of the block.
  __device__ void share(double (&sums)[kRows], double* result) const {
    group.sum(sums);
    if (group.lane == 0) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        result[of_block(r)] = sums[r];
      }
    }
  }

  // Calls `each(row of the block)` with a thread for each row. The warps that do so differ between blocks: a warp is bound
  // to a quarter of a processor, and so to a quarter of its float64 units.
  template <class Each>
  __device__ void for_rows(Each each) const {
    const int count = kRows * group.groups;
    for (int t = static_cast<int>((threadIdx.x + 32 * (blockIdx.x % 8)) % kThreads); t < count; t += kThreads) {
      if (first + t < rows) {
        each(t);
      }
    }
  }
};

__device__ inline portable::PoincareLinearFactors factors_of(const portable::PoincareLinearSums& sums, double c,
                                                             const PoincareLinearGuards& guards) {
  return guards.adds ? portable::poincare_linear_factors<true>(sums, c, guards)
                     : portable::poincare_linear_factors<false>(sums, c, guards);
}

__device__ inline portable::PoincareLinearGradient gradient_of(const portable::PoincareLinearSums& sums, double gm,
                                                               double gb, double c,
                                                               const PoincareLinearGuards& guards) {
  return guards.adds ? portable::poincare_linear_gradient<true>(sums, gm, gb, c, guards)
                     : portable::poincare_linear_gradient<false>(sums, gm, gb, c, guards);
}

// How often blocks take rows, all of them together. They go from the last row to the first: the product was written just
// before, and its last rows are still in the cache.
template <class K>
__device__ inline int64_t turns_of(const K& kept, int64_t rows) {
  const int64_t together = K::kRows * kept.group.groups;
  return (rows + together - 1) / together;
}

// The result of a row in the type V. Rows of 2 bytes an entry take float32 where it holds all terms: each conversion to
// float64 costs as much as eight multiplications.
template <class V, class T, class K>
__device__ inline void write_pack(const K& kept, const PoincareLinearArguments& a, const Words& product,
                                  const V (&bias)[K::kWidth], double of_product, double of_bias, int r, int p) {
  const V by = static_cast<V>(of_product), by_bias = static_cast<V>(of_bias);
  V values[K::kWidth];
  widen<T>(values, product);
#pragma unroll
  for (int i = 0; i < K::kWidth; ++i) {
    values[i] = by * values[i] + (a.bias != nullptr ? by_bias * bias[i] : V(0));
  }
  *reinterpret_cast<Pack<T, K::kWidth>*>(static_cast<T*>(a.y) + kept.row(r) * a.out + kept.entry(p)) =
      K::narrowed(values);
}

template <class T, class K>
__global__ void __launch_bounds__(kThreads, K::kBlocks)
    linear_forward_kept(const PoincareLinearArguments a, const int lanes) {
  __shared__ double shared[3][K::kOfBlock];
  __shared__ bool single[K::kOfBlock];
  __shared__ double of_bias_alone;
  K kept(lanes);
  kept.rows = a.rows;
  const int64_t together = K::kRows * kept.group.groups;
  for (int64_t turn = turns_of(kept, a.rows) - 1 - blockIdx.x; turn >= 0; turn -= gridDim.x) {
    kept.first = turn * together;
    Words m[K::kRows][K::kPacks];  // read once more below, from the nearest cache: the factors need the registers
    kept.read(m, a.product, a.out);
    double xx[K::kRows] = {}, mm[K::kRows] = {}, mb[K::kRows] = {}, bb[1] = {};
    kept.template squares<(K::kRows > 1 ? 2 : 4)>(xx, a.x, a.in);
#pragma unroll
    for (int p = 0; p < K::kPacks; ++p) {
      double b[K::kWidth];
      kept.bias_of(b, a.bias, p, a.out);
#pragma unroll
      for (int i = 0; i < K::kWidth; ++i) {
        bb[0] += b[i] * b[i];
      }
#pragma unroll
      for (int r = 0; r < K::kRows; ++r) {
        double values[K::kWidth];
        widen<T>(values, m[r][p]);
#pragma unroll
        for (int i = 0; i < K::kWidth; ++i) {
          mm[r] += values[i] * values[i];
          mb[r] += values[i] * b[i];
        }
      }
    }
    kept.share(xx, shared[0]);
    kept.share(mm, shared[1]);
    kept.share(mb, shared[2]);
    kept.group.sum(bb);
    if (threadIdx.x == 0) {
      of_bias_alone = bb[0];
    }
    __syncthreads();
    kept.for_rows([&](int t) {
      const double c = portable::curvature_at(a.c, portable::source_row(a.map, 0, kept.first + t));
      const portable::PoincareLinearSums of_row{shared[0][t], shared[1][t], shared[2][t], of_bias_alone};
      const portable::PoincareLinearFactors f = factors_of(of_row, c, a.guards);
      single[t] = sizeof(T) == 2 && single_holds(f.of_product) && single_holds(f.of_bias) &&
                  single_holds_squares(of_row.mm) && single_holds_squares(of_row.bb);
      shared[0][t] = f.of_product;
      shared[1][t] = f.of_bias;
    });
    __syncthreads();
    kept.read(m, a.product, a.out);
#pragma unroll
    for (int p = 0; p < K::kPacks; ++p) {
      using V = ComputeOf<T>;
      V b[K::kWidth];
      kept.bias_of(b, a.bias, p, a.out);
#pragma unroll
      for (int r = 0; r < K::kRows; ++r) {
        if (kept.row(r) < a.rows && kept.entry(p) < a.out) {
          const int t = kept.of_block(r);
          if (single[t]) {
            write_pack<V, T>(kept, a, m[r][p], b, shared[0][t], shared[1][t], r, p);
          } else {
            double wide[K::kWidth];
#pragma unroll
            for (int i = 0; i < K::kWidth; ++i) {
              wide[i] = static_cast<double>(b[i]);
            }
            write_pack<double, T>(kept, a, m[r][p], wide, shared[0][t], shared[1][t], r, p);
          }
        }
      }
    }
    __syncthreads();
  }
}

// The gradient of a pack of the product, and its part of that of the bias; `of` has the coefficients of the row, of which
// the first is that of x.
template <class V, class T, class K, class Part>
__device__ inline void write_gradient(const K& kept, const PoincareLinearArguments& a, const Words& product,
                                      const Words& grad, const V (&bias)[K::kWidth], const V (*of)[K::kOfBlock],
                                      Part (*of_bias)[kThreads], int r, int p) {
  const int t = kept.of_block(r);
  V of_m[K::kWidth], of_g[K::kWidth], values[K::kWidth];
  widen<T>(of_m, product);
  widen<T>(of_g, grad);
#pragma unroll
  for (int i = 0; i < K::kWidth; ++i) {
    values[i] = of[1][t] * of_g[i] + of[2][t] * of_m[i];
    values[i] += a.bias != nullptr ? of[3][t] * bias[i] : V(0);
    of_bias[p * K::kWidth + i][threadIdx.x] += static_cast<Part>(of[4][t] * of_g[i] + of[5][t] * of_m[i]);
  }
  *reinterpret_cast<Pack<T, K::kWidth>*>(static_cast<T*>(a.y) + kept.row(r) * a.out + kept.entry(p)) =
      K::narrowed(values);
}

// That of a pack of x.
template <class V, class T, class K>
__device__ inline void write_multiple(const K& kept, const PoincareLinearArguments& a, const Words& x, V along, int r,
                                      int64_t k) {
  V values[K::kWidth];
  widen<T>(values, x);
#pragma unroll
  for (int i = 0; i < K::kWidth; ++i) {
    values[i] *= along;
  }
  *reinterpret_cast<Pack<T, K::kWidth>*>(static_cast<T*>(a.grad_x) + kept.row(r) * a.in + k) = K::narrowed(values);
}

// The gradients of a chunk of turns, and its part of that of the bias, in the order of the rows. Nothing is kept in
// registers, where the formula of the gradient leaves no place: what was read for the sums is in the nearest cache.
template <class T, class K>
__global__ void __launch_bounds__(kThreads, 2)
    linear_backward_kept(const PoincareLinearArguments a, const int lanes) {
  constexpr int kWidth = K::kWidth;
  constexpr int kTogether = K::kPacks < 2 ? 1 : 2;
  using V = ComputeOf<T>;
  __shared__ double shared[7][K::kOfBlock];
  // The coefficients in float32 of the rows that it holds, where it is enough.
  __shared__ float narrow[6][sizeof(T) == 2 ? K::kOfBlock : 1];
  __shared__ bool single[K::kOfBlock];
  // The gradient of the bias by entries and threads: in registers it would leave none for the factors of a row.
  // Rows of 2 bytes an entry, whose gradient keeps 11 bits at most, have parts in float32: a part is of few rows.
  using Part = std::conditional_t<sizeof(T) == 2, float, double>;
  __shared__ Part of_bias[K::kPacks * kWidth][kThreads];
  __shared__ double of_bias_alone;
  K kept(lanes);
  kept.rows = a.rows;
  double bb[1] = {};
#pragma unroll
  for (int p = 0; p < K::kPacks; ++p) {
    double b[kWidth];
    kept.bias_of(b, a.bias, p, a.out);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      bb[0] += b[i] * b[i];
    }
  }
  kept.group.sum(bb);
  if (threadIdx.x == 0) {
    of_bias_alone = bb[0];
  }
  const int64_t turns = turns_of(kept, a.rows);
  for (int64_t chunk = blockIdx.x; chunk < a.chunks; chunk += gridDim.x) {
#pragma unroll
    for (int i = 0; i < K::kPacks * kWidth; ++i) {
      of_bias[i][threadIdx.x] = Part(0);
    }
    double of_b = 0.0;
    for (int64_t turn = turns - 1 - chunk; turn >= 0; turn -= a.chunks) {
      kept.first = turn * K::kRows * kept.group.groups;
      double sums[5][K::kRows] = {};  // of xx, mm, mb, gm, gb
      kept.template squares<1>(sums[0], a.x, a.in);
#pragma unroll kTogether
      for (int p = 0; p < K::kPacks; ++p) {
        double b[kWidth];
        kept.bias_of(b, a.bias, p, a.out);
#pragma unroll
        for (int r = 0; r < K::kRows; ++r) {
          double of_m[kWidth], of_g[kWidth];
          widen<T>(of_m, kept.pack(a.product, a.out, r, p));
          widen<T>(of_g, kept.pack(a.grad, a.out, r, p));
#pragma unroll
          for (int i = 0; i < kWidth; ++i) {
            sums[1][r] += of_m[i] * of_m[i];
            sums[2][r] += of_m[i] * b[i];
            sums[3][r] += of_g[i] * of_m[i];
            sums[4][r] += of_g[i] * b[i];
          }
        }
      }
#pragma unroll
      for (int s = 0; s < 5; ++s) {
        kept.share(sums[s], shared[s]);
      }
      __syncthreads();
      kept.for_rows([&](int t) {
        const double c = portable::curvature_at(a.c, portable::source_row(a.map, 0, kept.first + t));
        const portable::PoincareLinearSums of_row{shared[0][t], shared[1][t], shared[2][t], of_bias_alone};
        const portable::PoincareLinearGradient d = gradient_of(of_row, shared[3][t], shared[4][t], c, a.guards);
        shared[0][t] = d.along;
        shared[1][t] = d.m_of_grad;
        shared[2][t] = d.m_of_m;
        shared[3][t] = d.m_of_b;
        shared[4][t] = d.b_of_grad;
        shared[5][t] = d.b_of_m;
        shared[6][t] = d.b_of_b;
        if constexpr (sizeof(T) == 2) {
          bool holds = single_holds_squares(of_row.mm) && single_holds_squares(of_row.bb);
#pragma unroll
          for (int i = 0; i < 6; ++i) {
            holds = holds && single_holds(shared[i][t]);
            narrow[i][t] = static_cast<float>(shared[i][t]);
          }
          single[t] = holds;
        }
        static_cast<ComputeOf<T>*>(a.grad_c)[kept.first + t] = static_cast<ComputeOf<T>>(d.curvature);
      });
      __syncthreads();
#pragma unroll kTogether
      for (int p = 0; p < K::kPacks; ++p) {
        V b[kWidth];
        kept.bias_of(b, a.bias, p, a.out);
#pragma unroll
        for (int r = 0; r < K::kRows; ++r) {
          if (kept.row(r) < a.rows && kept.entry(p) < a.out) {
            const Words of_m = kept.pack(a.product, a.out, r, p), of_g = kept.pack(a.grad, a.out, r, p);
            if constexpr (sizeof(T) == 2) {
              if (single[kept.of_block(r)]) {
                write_gradient<float, T>(kept, a, of_m, of_g, b, narrow, of_bias, r, p);
                continue;
              }
            }
            double wide[kWidth];
#pragma unroll
            for (int i = 0; i < kWidth; ++i) {
              wide[i] = static_cast<double>(b[i]);
            }
            write_gradient<double, T>(kept, a, of_m, of_g, wide, shared, of_bias, r, p);
          }
        }
      }
#pragma unroll
      for (int r = 0; r < K::kRows; ++r) {
        of_b += kept.row(r) < a.rows ? shared[6][kept.of_block(r)] : 0.0;
      }
      kept.template for_packs<1>(a.x, a.in, [&](int r, int64_t k, const Words& pack) {
        if (kept.row(r) < a.rows) {
          const int t = kept.of_block(r);
          if constexpr (sizeof(T) == 2) {
            if (single[t]) {
              write_multiple<float, T>(kept, a, pack, narrow[0][t], r, k);
              return;
            }
          }
          write_multiple<double, T>(kept, a, pack, shared[0][t], r, k);
        }
      });
      __syncthreads();
    }
    if (a.bias == nullptr) {
      continue;
    }
#pragma unroll
    for (int p = 0; p < K::kPacks; ++p) {
      double b[kWidth];
      kept.bias_of(b, a.bias, p, a.out);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        of_bias[p * kWidth + i][threadIdx.x] += static_cast<Part>(of_b * b[i]);
      }
    }
    __syncthreads();
    for (int k = threadIdx.x; k < K::kPacks * kWidth * lanes && k < a.out; k += kThreads) {
      // Entry k lies in the pack p of a lane, at place i.
      const int p = k / (kWidth * lanes), lane = k / kWidth % lanes, i = k % kWidth;
      double sum = 0.0;
      for (int group = 0; group < kept.group.groups; ++group) {
        sum += of_bias[p * kWidth + i][group * lanes + lane];
      }
      a.partial[chunk * a.out + k] = sum;
    }
    __syncthreads();
  }
}

}  // namespace stone::cuda
