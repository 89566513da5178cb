// The backward of butterflies of rows in registers: the rows go through the stages once more and leave what each phase
// began with, from which the phases are repeated in turn, last to first, with the gradient.
#pragma once

#include "butterfly_registers.cuh"

namespace stone::cuda {

// Stages whose gradients have a place in shared memory, and so phases at most.
constexpr int kMostStages = 12;

struct ButterflyPhases {
  int count;
  Phase phases[kMostStages];
};

template <class S>
ButterflyPhases phases_of(int levels, int64_t stages) {
  ButterflyPhases all{};
  int level = 0;
  for (int64_t stage = 0; stage < stages; ++all.count) {
    Phase& phase = all.phases[all.count];
    phase = Phase::at<S>(level, levels, stages - stage);
    phase.stage = static_cast<int>(stage);
    stage += phase.count;
    level = (level + phase.count) % levels;
  }
  return all;
}

// The gradient of the weight by stages, entries and threads; each thread adds to its own.
#if defined(__CUDACC__)
extern __shared__ float butterfly_parts[];
#else
inline float butterfly_parts[kMostStages * 16 * kThreads];
#endif

struct RowFactors {
  double squares[kThreads];
  double log[kThreads];
  double factor[kThreads];
  double along[kThreads];
};

// `inputs`: [chunks, phases - 1, kRows * kEntries / 4, kThreads] packs of 4.
template <class T, class S>
__global__ void __launch_bounds__(kThreads, 1)
    butterfly_backward_in_registers(const ButterflyOnDevice b, const ButterflyPhases all) {
  using Kept = Pack<float, 4>;
  constexpr int kPacks = S::kRows * S::kEntries / 4;
  __shared__ float buffers[S::kBuffers][S::kExchanged];
  __shared__ double partial[S::kRows][kThreads / 32];
  __shared__ RowFactors of_row;
  float* const parts = butterfly_parts + threadIdx.x;
  RegisterRows<T, S> rows(b.levels), grads(b.levels);
  const T* const x = static_cast<const T*>(b.a.x);
  const T* const weight = static_cast<const T*>(b.a.weight);
  const int64_t together = S::kRows * rows.groups, turns = (b.a.rows + together - 1) / together;
  const int slots = static_cast<int>(b.a.stages) * S::kEntries;
  // The phase whose image nobody needs: the last, where no map follows.
  const int last = b.a.hyperbolic ? -1 : all.count - 1;
  for (int64_t chunk = blockIdx.x; chunk < b.chunks; chunk += gridDim.x) {
    Kept* const inputs = static_cast<Kept*>(b.inputs) + chunk * (all.count > 0 ? all.count - 1 : 0) * kPacks * kThreads + threadIdx.x;
    for (int i = 0; i < slots; ++i) {
      parts[i * kThreads] = 0.0f;
    }
    for (int64_t turn = chunk; turn < turns; turn += b.chunks) {
      const int64_t first = turn * together, row = first + threadIdx.x;
      const bool has_row = threadIdx.x < together && row < b.a.rows;
      const double c = b.a.hyperbolic && has_row ? curvature_of(b.a, row) : 1.0;
      rows.read(x, first, b.a.rows);
      if (b.a.hyperbolic) {
        rows.inner(of_row.squares, rows.v, partial);
      }
      for (int p = 0; p < all.count; ++p) {
        const Phase phase = all.phases[p];
        if (phase.begin != rows.begin) {
          rows.exchange(phase.begin, buffers);
        }
        if (p > 0) {
#pragma unroll
          for (int i = 0; i < kPacks; ++i) {
            const float* from = rows.v[i * 4 / S::kEntries] + i * 4 % S::kEntries;
            inputs[((p - 1) * kPacks + i) * kThreads] = Kept{{from[0], from[1], from[2], from[3]}};
          }
        }
        if (p != last) {
          rows.stages(weight + (int64_t{phase.stage} << b.levels), phase.first, phase.count, [](int) { return true; });
        }
      }
      if (b.a.hyperbolic && rows.begin != kOuter) {
        rows.exchange(kOuter, buffers);
      }
      grads.read(static_cast<const T*>(b.a.grad), first, b.a.rows);
      double of_exp = 0.0;  // the curvature's gradient through exp0, of this thread's row
      if (b.a.hyperbolic) {
        rows.inner(of_row.factor, rows.v, partial);
        rows.inner(of_row.along, grads.v, partial);
        if (has_row) {
          const int r = threadIdx.x;
          const ImageGradient g = image_gradient(of_row.squares[r], of_row.factor[r], of_row.along[r], c, b.a);
          of_row.log[r] = g.log;
          of_row.factor[r] = g.factor;
          of_row.along[r] = g.along;
          of_exp = g.curvature;
        }
        __syncthreads();
        grads.combine(of_row.factor, of_row.along, rows.v);
      }
      for (int p = all.count - 1; p >= 0; --p) {
        const Phase phase = all.phases[p];
        if (phase.begin != grads.begin) {
          grads.exchange(phase.begin, buffers);
        }
        rows.begin = phase.begin;
        if (p > 0) {
#pragma unroll
          for (int i = 0; i < kPacks; ++i) {
            const Kept kept = inputs[((p - 1) * kPacks + i) * kThreads];
#pragma unroll
            for (int k = 0; k < 4; ++k) {
              rows.v[i * 4 / S::kEntries][i * 4 % S::kEntries + k] = kept.at[k];
            }
          }
        } else {
          rows.read(x, first, b.a.rows);
        }
        // Zeros where a phase has fewer stages: what is not set would be kept from turn to turn.
        float before[S::kBits][S::kRows][S::kEntries] = {};
        const T* const of_phase = weight + (int64_t{phase.stage} << b.levels);
        rows.stages(of_phase, phase.first, phase.count, [&](int k) {
#pragma unroll
          for (int r = 0; r < S::kRows; ++r) {
#pragma unroll
            for (int j = 0; j < S::kEntries; ++j) {
              before[k][r][j] = rows.v[r][j];
            }
          }
          return k + 1 < phase.first + phase.count;
        });
#pragma unroll
        for (int k = S::kBits - 1; k >= 0; --k) {
          if (k < phase.first || k >= phase.first + phase.count) {
            continue;
          }
          const int stage = phase.stage + k - phase.first;
          grads.for_blocks(k, weight + (int64_t{stage} << b.levels), [&](int block, int low, float w, float other) {
            const int high = low + (1 << k);
            float of_w = 0.0f, of_other = 0.0f;
#pragma unroll
            for (int r = 0; r < S::kRows; ++r) {
              if (grads.row(first, r) < b.a.rows) {
                portable::add_block_gradient(of_w, of_other, grads.v[r][low], grads.v[r][high], before[k][r][low],
                                             before[k][r][high]);
              }
              portable::rotate_back(w, other, grads.v[r][low], grads.v[r][high]);
            }
            float* const slot = parts + (stage * S::kEntries + 2 * block) * kThreads;
            slot[0] += of_w;
            slot[kThreads] += of_other;
          });
        }
      }
      if (b.a.hyperbolic) {
        rows.read(x, first, b.a.rows);
        grads.inner(of_row.factor, rows.v, partial);
        if (has_row) {
          const int r = threadIdx.x;
          const portable::RadialGradient g = portable::radial_gradient<portable::Logmap0>(
              of_row.squares[r], of_row.factor[r] / of_row.log[r], c, b.a.log);
          of_row.along[r] = g.along;
          static_cast<float*>(b.a.grad_c)[row] = static_cast<float>(of_exp + g.curvature);
        }
        __syncthreads();
        grads.combine(nullptr, of_row.along, rows.v);
        __syncthreads();
      }
      grads.write(static_cast<T*>(b.a.y), first, b.a.rows, [](int) { return 1.0f; });
    }
    __syncthreads();
    // Over the groups of the block, in order.
    for (int i = threadIdx.x; i < slots * rows.lanes; i += kThreads) {
      const int slot = i / rows.lanes, lane = i % rows.lanes;
      const int stage = slot / S::kEntries, block = slot % S::kEntries / 2;
      int p = all.count - 1;
      while (all.phases[p].stage > stage) {
        --p;
      }
      const Phase phase = all.phases[p];
      const int of_stage =
          RegisterRows<T, S>::block_of(phase.begin, phase.first + stage - phase.stage, b.levels, lane, block);
      double sum = 0.0;
      for (int group = 0; group < rows.groups; ++group) {
        sum += static_cast<double>(butterfly_parts[slot * kThreads + group * rows.lanes + lane]);
      }
      b.partial[chunk * b.a.stages * b.a.dim + (int64_t{stage} << b.levels) + 2 * of_stage + slot % 2] = sum;
    }
    __syncthreads();
  }
}

}  // namespace stone::cuda
