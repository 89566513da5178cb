// Signed distances to hyperplanes on the GPU: a group of lanes a row; gradients for the hyperplanes by columns.
#include "kernels.h"
#include "packs.cuh"
#include "stone/curvature.h"
#include "stone/hyperplanes.h"

namespace stone::cuda {

namespace {

using portable::load;
using portable::store;

// From so many rows on, blocks of kHyperplaneBlock rows keep a device at work.
constexpr int64_t kManyRows = kHyperplaneBlock * kMultiprocessors / 2;

// Packs of a row that a lane keeps in registers, with 16 elements at most: what is computed from them must fit too.
template <class T, bool aligned>
constexpr int kHeld = aligned && sizeof(T) != sizeof(float) ? 2 : kKept;

// A pack as it lies in memory, which takes the fewest registers until it is unpacked.
template <class P, bool whole = sizeof(P) == sizeof(Words)>
struct InMemory {
  P as_read;

  __device__ P pack() const { return as_read; }
};
template <class P>
struct InMemory<P, true> {
  Words as_read;

  __device__ P pack() const {
    Words words = as_read;
    keep_packed(words);
    P pack;
    memcpy(&pack, words.at, sizeof pack);
    return pack;
  }
};

// Elements of a row by packs, of which a lane keeps the first.
template <class T, bool aligned>
struct RowOf {
  using Each = Pack<T, kPack<T, aligned>>;
  using Stored = InMemory<Each>;

  const Stored* packs;
  Stored kept[kHeld<T, aligned>];

  // Begins to read the row; what follows waits for it where it uses the packs.
  __device__ RowOf(const void* matrix, int64_t row, int64_t width, const RowGroup& group)
      : packs(reinterpret_cast<const Stored*>(static_cast<const T*>(matrix) + row * width)) {
#pragma unroll
    for (int i = 0; i < kHeld<T, aligned>; ++i) {
      const int64_t at = group.lane + i * static_cast<int64_t>(group.lanes);
      kept[i] = at < width / kPack<T, aligned> ? packs[at] : Stored{};
    }
  }

  // Pack `at`, which is the i-th of the lane's.
  __device__ Stored stored(int64_t at, int i) const { return i < kHeld<T, aligned> ? kept[i] : packs[at]; }
};

// act(index of a pack, which of those that are kept, or `held`) for the packs of a lane.
template <int held, class Act>
__device__ inline void for_packs(int64_t count, const RowGroup& group, bool active, const Act& act) {
  const int64_t end = active ? count : 0;
#pragma unroll
  for (int i = 0; i < held; ++i) {
    const int64_t at = group.lane + i * static_cast<int64_t>(group.lanes);
    if (at < end) {
      act(at, i);
    }
  }
#pragma unroll 1
  for (int64_t at = group.lane + held * static_cast<int64_t>(group.lanes); at < end; at += group.lanes) {
    act(at, held);
  }
}

template <class T, bool aligned>
__device__ inline double squares_of_row(const RowOf<T, aligned>& x, int64_t dim, const RowGroup& group, bool active) {
  constexpr int kAtOnce = kPack<T, aligned>, held = kHeld<T, aligned>;
  double squares[1] = {};
  for_packs<held>(dim / kAtOnce, group, active, [&](int64_t at, int i) {
    const auto pack = x.stored(at, i).pack();
#pragma unroll
    for (int e = 0; e < kAtOnce; ++e) {
      const double value = load(pack.at[e]);
      squares[0] += value * value;
    }
  });
  group.sum(squares);
  return squares[0];
}

template <class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 3) hyperplanes_forward(const HyperplaneArguments a, const int lanes) {
  using C = typename portable::Compute<T>::type;
  using Row = RowOf<T, aligned>;
  constexpr int kAtOnce = kPack<T, aligned>, held = kHeld<T, aligned>;
  const RowGroup group(lanes);
  const double c = portable::curvature_at(a.c, 0);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < a.rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const bool active = first + group.group < a.rows;
    const int64_t row = active ? first + group.group : 0;
    const Row product(a.product, row, a.planes, group);
    const Row x(a.x, row, a.dim, group);
    const portable::PointFactors f = portable::point_factors(squares_of_row(x, a.dim, group, active), c, a.min_alpha);
    const C inverse = static_cast<C>(f.inverse), lift = static_cast<C>(f.lift);
    auto* const result = reinterpret_cast<typename Row::Each*>(static_cast<T*>(a.result) + row * a.planes);
    for_packs<held>(a.planes / kAtOnce, group, active, [&](int64_t at, int i) {
      const auto offsets = static_cast<const typename Row::Stored*>(a.offset)[at];
      const auto scales = static_cast<const typename Row::Stored*>(a.scale)[at];
      const auto p = product.stored(at, i).pack(), offset = offsets.pack(), scale = scales.pack();
      C distances[kAtOnce];
#pragma unroll
      for (int e = 0; e < kAtOnce; ++e) {
        distances[e] = portable::hyperplane_distance<C>(load(p.at[e]), load(offset.at[e]), load(scale.at[e]), inverse,
                                                        lift);
      }
      result[at] = packed<T>(distances);
    });
  }
}

// The gradients for the hyperplanes of the packs of a lane that are kept, summed over the rows of a group.
template <class C, int kAtOnce, int held, bool sums>
struct PlaneSums {
  __device__ void add(int, int, C, C) {}
};
template <class C, int kAtOnce, int held>
struct PlaneSums<C, kAtOnce, held, true> {
  C of[2][held][kAtOnce] = {};  // of offset and of scale

  __device__ void add(int i, int e, C of_offset, C of_scale) {
    of[0][i][e] += of_offset;
    of[1][i][e] += of_scale;
  }
};

// Gradients of one row: of the products, the point and the curvature. Returns what all hyperplanes share.
template <class T, bool aligned, class Sums>
__device__ inline portable::PointFactors gradients_of_row(const HyperplaneArguments& a, int64_t row, bool active,
                                                          const RowGroup& group, double c, Sums& planes) {
  using C = typename portable::Compute<T>::type;
  using Row = RowOf<T, aligned>;
  constexpr int kAtOnce = kPack<T, aligned>, held = kHeld<T, aligned>;
  const Row product(a.product, row, a.planes, group);
  const Row grad(a.grad, row, a.planes, group);
  const double squares = squares_of_row(Row(a.x, row, a.dim, group), a.dim, group, active);
  const portable::PointFactors f = portable::point_factors(squares, c, a.min_alpha);
  const C inverse = static_cast<C>(f.inverse), lift = static_cast<C>(f.lift);
  auto* const grad_product = reinterpret_cast<typename Row::Each*>(static_cast<T*>(a.result) + row * a.planes);
  double sums[2] = {};  // of the gradient's products with the products, and with the offsets
  for_packs<held>(a.planes / kAtOnce, group, active, [&](int64_t at, int i) {
    const auto offsets = static_cast<const typename Row::Stored*>(a.offset)[at];
    const auto scales = static_cast<const typename Row::Stored*>(a.scale)[at];
    const auto products = product.stored(at, i).pack(), grads = grad.stored(at, i).pack();
    const auto offset = offsets.pack(), scale = scales.pack();
    C of_products[kAtOnce];
    C with_products = C(0), with_offsets = C(0);
#pragma unroll
    for (int e = 0; e < kAtOnce; ++e) {
      const C p = load(products.at[e]), o = load(offset.at[e]);
      const auto g = portable::hyperplane_gradient<C>(load(grads.at[e]), p, o, load(scale.at[e]), inverse, lift);
      of_products[e] = g.of_argument * inverse;
      with_products += g.of_argument * p;
      with_offsets += g.of_argument * o;
      planes.add(i, e, -g.of_argument * lift, g.of_scale);
    }
    grad_product[at] = packed<T>(of_products);
    sums[0] += static_cast<double>(with_products);
    sums[1] += static_cast<double>(with_offsets);
  });
  group.sum(sums);
  const double along = portable::point_gradient(f, sums[0], sums[1]);
  const C factor = static_cast<C>(2.0 * c * along);
  auto* const grad_x = reinterpret_cast<typename Row::Each*>(static_cast<T*>(a.grad_x) + row * a.dim);
  // The point is read again, from the cache: in registers there is no room for it.
  const auto* const x = reinterpret_cast<const typename Row::Stored*>(static_cast<const T*>(a.x) + row * a.dim);
  for_packs<held>(a.dim / kAtOnce, group, active, [&](int64_t at, int) {
    const auto values = x[at].pack();
    C result[kAtOnce];
#pragma unroll
    for (int e = 0; e < kAtOnce; ++e) {
      result[e] = factor * static_cast<C>(load(values.at[e]));
    }
    grad_x[at] = packed<T>(result);
  });
  if (active && group.lane == 0) {
    static_cast<C*>(a.grad_c)[row] = static_cast<C>(along * squares);
  }
  return f;
}

// `factors`: [rows, 2], what all hyperplanes share.
template <class T, bool aligned>
__global__ void __launch_bounds__(kThreads, 2)
    hyperplanes_rows(const HyperplaneArguments a, typename portable::Compute<T>::type* const factors, const int lanes) {
  using C = typename portable::Compute<T>::type;
  const RowGroup group(lanes);
  const double c = portable::curvature_at(a.c, 0);
  PlaneSums<C, kPack<T, aligned>, kHeld<T, aligned>, false> none;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < a.rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const bool active = first + group.group < a.rows;
    const int64_t row = active ? first + group.group : 0;
    const portable::PointFactors f = gradients_of_row<T, aligned>(a, row, active, group, c, none);
    if (active && group.lane == 0) {
      factors[2 * row] = static_cast<C>(f.inverse);
      factors[2 * row + 1] = static_cast<C>(f.lift);
    }
  }
}

// All gradients in one pass, where the hyperplanes are no more than a warp keeps: a block takes a block of rows, of
// which each of its warps sums some, and then adds up what its warps have.
template <class T>
__global__ void __launch_bounds__(kThreads, 2) hyperplanes_at_once(const HyperplaneArguments a) {
  using C = typename portable::Compute<T>::type;
  constexpr int kAtOnce = kPack<T, true>, held = kHeld<T, true>, kWarps = kThreads / 32;
  __shared__ C partial[kWarps][held][kAtOnce][32];
  const RowGroup group(32);
  const double c = portable::curvature_at(a.c, 0);
  for (int64_t block = blockIdx.x; block * kHyperplaneBlock < a.rows; block += gridDim.x) {
    PlaneSums<C, kAtOnce, held, true> planes;
#pragma unroll 1
    for (int i = 0; i < kHyperplaneBlock / kWarps; ++i) {
      const int64_t row = block * kHyperplaneBlock + i * kWarps + group.group;
      gradients_of_row<T, true>(a, row < a.rows ? row : 0, row < a.rows, group, c, planes);
    }
#pragma unroll
    for (int which = 0; which < 2; ++which) {
#pragma unroll
      for (int i = 0; i < held; ++i) {
#pragma unroll
        for (int e = 0; e < kAtOnce; ++e) {
          partial[group.group][i][e][group.lane] = planes.of[which][i][e];
        }
      }
      __syncthreads();
      C* const result = static_cast<C*>(a.grad_planes) + (block * 2 + which) * a.planes;
      for (int64_t j = threadIdx.x; j < a.planes; j += kThreads) {
        const int pack = static_cast<int>(j) / kAtOnce, e = static_cast<int>(j) % kAtOnce;
        C sum = C(0);
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          sum += partial[w][pack / 32][e][pack % 32];
        }
        result[j] = sum;
      }
      __syncthreads();
    }
  }
}

// A thread for each hyperplane and block of rows, which it sums in order.
template <class T, class C>
__global__ void __launch_bounds__(kThreads, 1) hyperplanes_columns(const HyperplaneArguments a, const C* const factors) {
  const int64_t blocks = (a.rows + kHyperplaneBlock - 1) / kHyperplaneBlock;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; index < blocks * a.planes;
       index += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t block = index / a.planes, j = index % a.planes;
    const C o = load(static_cast<const T*>(a.offset)[j]), s = load(static_cast<const T*>(a.scale)[j]);
    const int64_t last = (block + 1) * kHyperplaneBlock < a.rows ? (block + 1) * kHyperplaneBlock : a.rows;
    C of_offset = C(0), of_scale = C(0);
    for (int64_t row = block * kHyperplaneBlock; row < last; ++row) {
      const C p = load(static_cast<const T*>(a.product)[row * a.planes + j]);
      const C grad = load(static_cast<const T*>(a.grad)[row * a.planes + j]);
      const C lift = factors[2 * row + 1];
      const auto g = portable::hyperplane_gradient<C>(grad, p, o, s, factors[2 * row], lift);
      of_offset -= g.of_argument * lift;
      of_scale += g.of_scale;
    }
    C* result = static_cast<C*>(a.grad_planes) + block * 2 * a.planes;
    result[j] = of_offset;
    result[a.planes + j] = of_scale;
  }
}

template <class T, bool aligned>
void run_packs(const HyperplaneArguments& a, bool backward, void* scratch, cudaStream_t stream) {
  using C = typename portable::Compute<T>::type;
  constexpr int kAtOnce = kPack<T, aligned>, held = kHeld<T, aligned>;
  const int lanes = lanes_for((a.planes > a.dim ? a.planes : a.dim) / kAtOnce);
  const int blocks = blocks_for(a.rows, lanes);
  if (!backward) {
    launch(hyperplanes_forward<T, aligned>, blocks, stream, a, lanes);
    return;
  }
  if constexpr (aligned) {
    if (a.rows >= kManyRows && a.planes <= 32 * held * kAtOnce) {
      const int64_t row_blocks = (a.rows + kHyperplaneBlock - 1) / kHyperplaneBlock;
      launch(hyperplanes_at_once<T>, blocks_for(row_blocks, kThreads), stream, a);
      return;
    }
  }
  C* factors = static_cast<C*>(scratch);
  launch(hyperplanes_rows<T, aligned>, blocks, stream, a, factors, lanes);
  const int64_t sums = (a.rows + kHyperplaneBlock - 1) / kHyperplaneBlock * a.planes;
  if (sums > 0) {
    launch(hyperplanes_columns<T, C>, blocks_for(sums, 1), stream, a, static_cast<const C*>(factors));
  }
}

template <class T>
void run(const HyperplaneArguments& a, bool backward, void* scratch, cudaStream_t stream) {
  const int64_t pack = kPack<T, true>;
  bool aligned = a.planes % pack == 0 && a.dim % pack == 0;
  for (const void* each : {a.product, a.x, a.offset, a.scale, a.grad, static_cast<const void*>(a.result),
                           static_cast<const void*>(a.grad_x)}) {
    aligned = aligned && aligned_to_16(each);
  }
  aligned ? run_packs<T, true>(a, backward, scratch, stream) : run_packs<T, false>(a, backward, scratch, stream);
}

}  // namespace

int64_t hyperplane_scratch_bytes(const HyperplaneArguments& arguments, bool backward) {
  return backward ? 2 * arguments.rows * static_cast<int64_t>(sizeof(double)) : 0;
}

void hyperplanes(const HyperplaneArguments& arguments, bool backward, void* scratch, cudaStream_t stream) {
  switch (arguments.element) {
    case Element::kFloat32:
      return run<float>(arguments, backward, scratch, stream);
    case Element::kFloat64:
      return run<double>(arguments, backward, scratch, stream);
    case Element::kBFloat16:
      return run<BFloat16>(arguments, backward, scratch, stream);
    case Element::kFloat16:
      return run<Half>(arguments, backward, scratch, stream);
  }
}

}  // namespace stone::cuda
