// Butterflies of rows in registers: a thread holds entries of a few rows and takes them through all stages whose pairs
// it holds; between such phases the entries change hands through shared memory.
#pragma once

#include "butterfly.cuh"
#include "packs.cuh"

namespace stone::cuda {

// Where the entries of a row lie, as bits of their index: `lane` says most of them, the place in registers the others.
//   outer (begin < 0): the places are the kLow lowest bits, which are 16 bytes of a row, and the kHigh highest ones;
//   inner:             they are the bits from `begin` upwards.
// Rows are loaded, stored and taken through the lowest and the highest levels in the outer layout.
constexpr int kOuter = -1;

// Entries and rows of a thread: kRows rows, 2^kBits entries of each.
// At once there are as many blocks on a processor as leave the entries in registers.
template <class T, int kBits_, int kRows_, int buffers = (kThreads << kBits_) <= 4096 ? 2 : 1,
          int blocks = (kBits_ > 4 ? 1 : (kRows_ > 1 ? 2 : 4))>
struct RegisterShape {
  static constexpr int kBits = kBits_;
  static constexpr int kRows = kRows_;
  static constexpr int kEntries = 1 << kBits;
  static constexpr int kLow = sizeof(T) == 2 ? 3 : 2;
  static constexpr int kHigh = kBits - kLow;
  // Entries that a block exchanges at once, and buffers for them: with two, a row is written while another is read.
  static constexpr int kExchanged = kThreads * kEntries;
  static constexpr int kBuffers = buffers;
  static constexpr int kBlocks = blocks;
};

// Entries lie in shared memory so that the lanes of a warp meet different banks in every layout: the 5 lowest bits of an
// index are changed by the higher ones, each of which must count, beside the lowest bits that a layout leaves to lanes.
__device__ inline int bank_of(int index) {
  const int high = index >> 5;
  return index ^ (high & 7) ^ ((high & 14) << 1) ^ (high & 16) ^ ((high & 16) >> 1);
}

// The same number, of which the compiler forgets what it has worked out from it: it would keep that in registers.
__device__ inline int64_t again(int64_t number) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+l"(number));
#endif
  return number;
}

__device__ inline int again(int number) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+r"(number));
#endif
  return number;
}

template <class T, class S>
struct RegisterRows {
  using C = float;
  C v[S::kRows][S::kEntries];

  int levels;
  int lanes;       // of a row: dim / kEntries
  int lane;
  int group;       // which of the rows that a block works on at once
  int groups;
  int begin = kOuter;

  __device__ RegisterRows(int levels_)
      : levels(levels_),
        lanes(1 << (levels_ - S::kBits)),
        lane(threadIdx.x & (lanes - 1)),
        group(threadIdx.x >> (levels_ - S::kBits)),
        groups(kThreads >> (levels_ - S::kBits)) {}

  __device__ int64_t row(int64_t first, int r) const { return first + r * groups + group; }

  // Waits for the lanes of a row.
  __device__ void wait() const {
    if (lanes > 32) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  }

  // Calls `each(r, first place, offset in the row)` for the 16 bytes that lie together in the outer layout.
  template <class Each>
  __device__ void for_packs(Each each) const {
#pragma unroll
    for (int r = 0; r < S::kRows; ++r) {
#pragma unroll
      for (int high = 0; high < 1 << S::kHigh; ++high) {
        each(r, high << S::kLow, (lane << S::kLow) + (high << (levels - S::kHigh)));
      }
    }
  }

  __device__ void read(const T* source, int64_t first, int64_t rows) {
    for_packs([&](int r, int place, int offset) {
      Pack<T, kWhole<T>> pack = {};
      if (row(first, r) < rows) {
        pack = *reinterpret_cast<const Pack<T, kWhole<T>>*>(source + (row(first, r) << levels) + offset);
      }
      C values[kWhole<T>];
      unpack(values, pack);
#pragma unroll
      for (int i = 0; i < kWhole<T>; ++i) {
        v[r][place + i] = values[i];
      }
    });
  }

  // Writes the rows, each multiplied by `factor(r)`.
  template <class Factor>
  __device__ void write(T* target, int64_t first, int64_t rows, Factor factor) const {
    for_packs([&](int r, int place, int offset) {
      if (row(first, r) < rows) {
        C values[kWhole<T>];
        const C by = factor(r);
#pragma unroll
        for (int i = 0; i < kWhole<T>; ++i) {
          values[i] = by * v[r][place + i];
        }
        *reinterpret_cast<Pack<T, kWhole<T>>*>(target + (row(first, r) << levels) + offset) =
            packed<T, kWhole<T>>(values);
      }
    });
  }

  // result[r * groups + group] = <v, of> for each row r of this group. Every thread must call it.
  __device__ void inner(double* result, const C (&of)[S::kRows][S::kEntries],
                        double (&partial)[S::kRows][kThreads / 32]) const {
    double sums[S::kRows] = {};
#pragma unroll
    for (int r = 0; r < S::kRows; ++r) {
#pragma unroll
      for (int j = 0; j < S::kEntries; ++j) {
        sums[r] += static_cast<double>(v[r][j]) * static_cast<double>(of[r][j]);
      }
    }
    for (int offset = (lanes < 32 ? lanes : 32) / 2; offset > 0; offset /= 2) {
#pragma unroll
      for (int r = 0; r < S::kRows; ++r) {
        sums[r] += __shfl_xor_sync(0xffffffffu, sums[r], offset);
      }
    }
    if (lanes > 32) {
      if (threadIdx.x % 32 == 0) {
#pragma unroll
        for (int r = 0; r < S::kRows; ++r) {
          partial[r][threadIdx.x / 32] = sums[r];
        }
      }
      __syncthreads();
      const int warps = lanes / 32, first = group * warps;
#pragma unroll
      for (int r = 0; r < S::kRows; ++r) {
        sums[r] = 0.0;
#pragma unroll 1
        for (int w = 0; w < warps; ++w) {
          sums[r] += partial[r][first + w];
        }
      }
    }
    if (lane == 0) {
#pragma unroll
      for (int r = 0; r < S::kRows; ++r) {
        result[r * groups + group] = sums[r];
      }
    }
    __syncthreads();
  }

  // v = factor * v + along * of, by rows; without factors, v + along * of.
  __device__ void combine(const double* factor, const double* along, const C (&of)[S::kRows][S::kEntries]) {
#pragma unroll
    for (int r = 0; r < S::kRows; ++r) {
      const int t = r * groups + group;
      const double by = factor == nullptr ? 1.0 : factor[t];
#pragma unroll
      for (int j = 0; j < S::kEntries; ++j) {
        v[r][j] = static_cast<C>(by * static_cast<double>(v[r][j]) + along[t] * static_cast<double>(of[r][j]));
      }
    }
  }

  // What one layout needs to find an entry in shared memory: that of place j is base ^ the `of_bit` of the bits of j.
  struct Places {
    int base;
    int of_bit[S::kBits];

    __device__ int at(int j) const {
      int place = base;
#pragma unroll
      for (int k = 0; k < S::kBits; ++k) {
        place ^= (j >> k & 1) != 0 ? of_bit[k] : 0;
      }
      return place;
    }
  };

  __device__ Places places() const {
    Places p;
    const int of_group = group << levels;
    if (begin == kOuter) {
      p.base = bank_of(of_group + (lane << S::kLow));
#pragma unroll
      for (int k = 0; k < S::kBits; ++k) {
        p.of_bit[k] = bank_of(1 << (k < S::kLow ? k : levels - S::kBits + k));
      }
    } else {
      p.base = bank_of(of_group + (lane & ((1 << begin) - 1)) + ((lane >> begin) << (begin + S::kBits)));
#pragma unroll
      for (int k = 0; k < S::kBits; ++k) {
        p.of_bit[k] = bank_of(1 << (begin + k));
      }
    }
    return p;
  }

  // From the present layout to the one that begins at `next`.
  __device__ void exchange(int next, C (&buffers)[S::kBuffers][S::kExchanged]) {
    const Places from = places();
    begin = next;
    const Places to = places();
#pragma unroll
    for (int r = 0; r < S::kRows; ++r) {
      C* buffer = buffers[r % S::kBuffers];
#pragma unroll
      for (int j = 0; j < S::kEntries; ++j) {
        buffer[from.at(j)] = v[r][j];
      }
      wait();
#pragma unroll
      for (int j = 0; j < S::kEntries; ++j) {
        v[r][j] = buffer[to.at(j)];
      }
      if (S::kBuffers == 1) {
        wait();
      }
    }
    if (S::kRows % S::kBuffers != 0) {
      wait();  // the next exchange begins with the buffer that was read last
    }
  }

  // Places of the lower entry of block p of a stage over bit k.
  __device__ static constexpr int low_place(int p, int k) { return (p >> k << (k + 1)) | (p & ((1 << k) - 1)); }

  // Calls `each(p, low place, a, b)` for the blocks of the stage over bit k of the place; `weight` is this lane's, and runs
  // of `run` blocks lie `apart` blocks from each other.
  template <int run, class Each>
  __device__ void for_blocks(int k, const T* weight, int apart, Each each) const {
    constexpr int width = 2 * run < kWhole<T> ? 2 * run : kWhole<T>;
#pragma unroll
    for (int p = 0; p < S::kEntries / 2; p += width / 2) {
      // Copied whole: read by elements it would be loaded by elements.
      const Pack<T, width> pack = *reinterpret_cast<const Pack<T, width>*>(weight + 2 * ((p / run) * apart + p % run));
      C w[width];
      unpack(w, pack);
#pragma unroll
      for (int i = 0; i < width / 2; ++i) {
        each(p + i, low_place(p + i, k), w[2 * i], w[2 * i + 1]);
      }
    }
  }

  template <class Each>
  __device__ void for_blocks(int k, const T* weight, Each each) const {
    const T* own = weight + 2 * block_of(begin, k, levels, lane, 0);
    if (begin != kOuter) {
      for_blocks<1>(k, own, 1 << begin, each);
    } else if (k < S::kLow) {
      for_blocks<1 << (S::kLow - 1)>(k, own, 1 << (levels - S::kHigh - 1), each);
    } else {
      for_blocks<1 << S::kLow>(k, own, 1 << (levels - S::kHigh), each);
    }
  }

  // Which block of its stage block p of a lane is.
  __device__ static int block_of(int begin, int k, int levels, int lane, int p) {
    if (begin != kOuter) {
      return (lane & ((1 << begin) - 1)) + ((lane >> begin) << (begin + S::kBits - 1)) + (p << begin);
    }
    const int run = k < S::kLow ? S::kLow - 1 : S::kLow;
    return (lane << run) + (p & ((1 << run) - 1)) + ((p >> run) << (levels - S::kHigh - (k < S::kLow ? 1 : 0)));
  }

  // `count` stages from bit `first` of the place upwards; before each, `keep(k)` is called, and it is left out where that
  // gives false.
  template <class Keep>
  __device__ void stages(const T* weight, int first, int count, Keep keep) {
#pragma unroll
    for (int k = 0; k < S::kBits; ++k) {
      if (k >= first && k < first + count) {
        if (keep(k)) {
          for_blocks(k, weight, [&](int, int low, C a, C b) {
#pragma unroll
            for (int r = 0; r < S::kRows; ++r) {
              portable::rotate(a, b, v[r][low], v[r][low + (1 << k)]);
            }
          });
        }
        weight += int64_t{1} << levels;
      }
    }
  }
};

// Stages that are done without another exchange.
struct Phase {
  int begin;  // the layout
  int first;  // bit of the place of the first stage
  int count;
  int stage = 0;  // the first stage, where phases are listed

  template <class S>
  __host__ __device__ static constexpr Phase at(int level, int levels, int64_t left) {
    const int middle_end = levels - S::kHigh;
    Phase p{};
    int end = 0;
    if (level < S::kLow || level >= middle_end) {
      p.begin = kOuter;
      p.first = level < S::kLow ? level : level - levels + S::kBits;
      end = level < S::kLow && levels > S::kBits ? S::kLow : S::kBits;
    } else {
      p.begin = level < levels - S::kBits ? level : levels - S::kBits;
      p.first = level - p.begin;
      end = p.begin + S::kBits < middle_end ? S::kBits : middle_end - p.begin;
    }
    p.count = end - p.first < left ? end - p.first : static_cast<int>(left);
    return p;
  }
};

// Any number of stages.
struct AnyStages {
  template <class T, class S>
  __device__ static void run(RegisterRows<T, S>& rows, const ButterflyOnDevice& b,
                             float (&buffers)[S::kBuffers][S::kExchanged]) {
    int level = 0;
    for (int64_t index = 0; index < b.a.stages;) {
      const Phase phase = Phase::at<S>(level, b.levels, b.a.stages - index);
      if (phase.begin != rows.begin) {
        rows.exchange(phase.begin, buffers);
      }
      rows.stages(static_cast<const T*>(b.a.weight) + (index << b.levels), phase.first, phase.count,
                  [](int) { return true; });
      index += phase.count;
      level += phase.count;
      level = level == b.levels ? 0 : level;
    }
    if (rows.begin != kOuter) {
      rows.exchange(kOuter, buffers);
    }
  }

  __device__ static int levels(const ButterflyOnDevice& b) { return b.levels; }
};

// Whole cycles over the levels of rows of one length: everything about places is known when compiled, and takes no
// instructions.
template <int kLevels>
struct WholeCycles {
  template <class T, class S>
  __device__ static void run(RegisterRows<T, S>& rows, const ButterflyOnDevice& b,
                             float (&buffers)[S::kBuffers][S::kExchanged]) {
    const T* weight = static_cast<const T*>(b.a.weight);
    for (int64_t index = 0; index < b.a.stages; index += kLevels) {
      rows.begin = kOuter;  // as it is: a cycle ends with the highest levels
      from<0>(rows, weight + (index << kLevels), buffers);
    }
  }

  template <int level, class T, class S>
  __device__ static void from(RegisterRows<T, S>& rows, const T* weight,
                              float (&buffers)[S::kBuffers][S::kExchanged]) {
    constexpr Phase phase = Phase::at<S>(level, kLevels, kLevels);
    rows.lane = again(rows.lane);
    rows.group = again(rows.group);
    if (phase.begin != rows.begin) {
      rows.exchange(phase.begin, buffers);
    }
    rows.stages(weight + (level << kLevels), phase.first, phase.count, [](int) { return true; });
    if constexpr (level + phase.count < kLevels) {
      from<level + phase.count>(rows, weight, buffers);
    }
  }

  __device__ static int levels(const ButterflyOnDevice&) { return kLevels; }
};

// Every block takes kRows * groups rows.
template <class T, class S, class Stages>
__global__ void __launch_bounds__(kThreads, S::kBlocks) butterfly_forward_in_registers(const ButterflyOnDevice b) {
  __shared__ float buffers[S::kBuffers][S::kExchanged];
  __shared__ double partial[S::kRows][kThreads / 32];
  __shared__ double squares[kThreads];
  __shared__ double images[kThreads];
  RegisterRows<T, S> rows(Stages::levels(b));
  const int64_t together = S::kRows * rows.groups;
  for (int64_t first = blockIdx.x * together; first < b.a.rows; first += gridDim.x * together) {
    rows.read(static_cast<const T*>(b.a.x), first, b.a.rows);
    if (b.a.hyperbolic) {
      rows.inner(squares, rows.v, partial);
    }
    Stages::run(rows, b, buffers);
    if (b.a.hyperbolic) {
      rows.inner(images, rows.v, partial);
      const int64_t row = first + threadIdx.x;
      if (threadIdx.x < together && row < b.a.rows) {
        const double c = curvature_of(b.a, row);
        const double log = portable::radial_factor<portable::Logmap0>(squares[threadIdx.x], c, b.a.log);
        images[threadIdx.x] =
            log * portable::radial_factor<portable::Expmap0>(log * log * images[threadIdx.x], c, b.a.exp);
      }
      __syncthreads();
    }
    rows.write(static_cast<T*>(b.a.y), again(first), b.a.rows, [&](int r) {
      return b.a.hyperbolic ? static_cast<float>(images[r * rows.groups + rows.group]) : 1.0f;
    });
    if (b.a.hyperbolic) {
      __syncthreads();
    }
  }
}

}  // namespace stone::cuda
