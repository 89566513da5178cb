// Distance matrices: how scratch memory is divided, and which kernels run for which element type.
#include "cdist_backward.cuh"
#include "cdist_forward.cuh"
#include "float_forward.cuh"
#include "kernels.h"
#include "scratch.h"

namespace stone::cuda {

namespace {

int64_t element_size(Element element) {
  return element == Element::kFloat64 ? 8 : element == Element::kFloat32 ? 4 : 2;
}

// The images of points of the other models, and float64 points, need float64 for their pairs.
bool wide(const CdistArguments& a) { return a.element == Element::kFloat64 || a.model != Model::kPoincare; }

// A tile of 128 has a multiprocessor for itself: with fewer of them than this, tiles of 64 keep more at work.
constexpr int64_t kManyTiles = 96;

bool by_quads(const void* data, int64_t extent, int64_t size) {
  return extent % kQuad == 0 && reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(kQuad * size) == 0;
}

PairsOnDevice divide(const CdistArguments& a, bool backward, Scratch& memory) {
  PairsOnDevice p{};
  p.a = a;
  const bool many = a.batch * tiles(a.rows, 2 * kTile) * tiles(a.columns, 2 * kTile) >= kManyTiles;
  p.tile = !backward && !wide(a) && many ? 2 * kTile : kTile;
  p.down = tiles(a.rows, p.tile);
  p.across = tiles(a.columns, p.tile);
  p.start = a.model == Model::kLorentz ? 1 : 0;
  p.dim = a.dim - p.start;
  p.guarded = portable::changes_denominator(a.guards);
  const int64_t pairs = wide(a) ? sizeof(double) : sizeof(float);
  for (int side = 0; side < 2; ++side) {
    const int64_t points = a.batch * p.points(side);
    p.images[side] = memory.next<portable::BallImage>(points * static_cast<int64_t>(sizeof(portable::BallImage)));
    p.by_quads[side] = by_quads(p.source(side), a.dim, element_size(a.element));
    if (!wide(a)) {
      p.sides[side] = memory.next<FloatSide>(points * static_cast<int64_t>(sizeof(FloatSide)));
    }
    if (backward && a.product == nullptr) {
      p.sums[side] = memory.next<void>(points * p.dim * pairs);
    }
    if (backward) {
      p.along[side] = memory.next<double>(points * (side == 0 ? p.across : p.down) * static_cast<int64_t>(sizeof(double)));
    }
  }
  p.results_by_quads = by_quads(a.result, a.columns, element_size(a.element)) && aligned_to_16(a.product);
  if (!wide(a)) {
    p.scales = memory.next<portable::PairScale<float>>(a.batch * static_cast<int64_t>(sizeof(*p.scales)));
  }
  if (backward && a.product == nullptr) {
    p.weights = memory.next<void>(a.batch * a.rows * a.columns * pairs);
  }
  if (backward && a.model == Model::kLorentz) {
    p.far = memory.next<bool>(a.batch * a.rows * a.columns);
    for (int side = 0; side < 2; ++side) {
      p.far_sums[side] =
          memory.next<double>(a.batch * p.points(side) * p.dim * static_cast<int64_t>(sizeof(double)));
    }
  }
  if (backward) {
    p.of_pairs = memory.next<double>(a.batch * a.rows * p.across * static_cast<int64_t>(sizeof(double)));
  }
  return p;
}

int blocks(int64_t count) { return static_cast<int>(count < (1 << 20) ? count : (1 << 20)); }

template <class T, class C>
void forward(const PairsOnDevice& p, cudaStream_t stream) {
  const int count = blocks(p.a.batch * p.down * p.across);
  if constexpr (sizeof(C) == sizeof(double)) {
    launch(cdist_forward<T>, count, stream, p);
  } else if (p.a.product != nullptr) {
    const int64_t strips = tiles(p.a.rows, kStripRows) * tiles(p.a.columns, kStripColumns);
    launch(product_cdist_forward<T>, blocks(p.a.batch * strips), stream, p);
  } else if (p.tile > kTile) {
    launch(float_cdist_forward<T, 8>, count, stream, p);
  } else {
    launch(float_cdist_forward<T, 4>, count, stream, p);
  }
}

template <class T, class C>
void run(const PairsOnDevice& p, bool backward, cudaStream_t stream) {
  const CdistArguments& a = p.a;
  const int lanes = lanes_for(p.dim);
  for (int side = 0; side < 2; ++side) {
    const int64_t points = a.batch * p.points(side);
    if (points > 0) {
      launch(point_images<T>, blocks_for(points, lanes), stream, p, side, lanes);
    }
  }
  const int64_t pairs = a.batch * p.down * p.across;
  if (!backward) {
    return forward<T, C>(p, stream);
  }
  if (pairs > 0) {
    launch(cdist_pairs<T, C>, blocks(pairs), stream, p);
  }
  for (int side = 0; side < 2; ++side) {
    const int64_t points = a.batch * p.points(side);
    const int64_t work = a.batch * tiles(p.points(side)) * tiles(p.dim);
    if (work > 0 && a.product == nullptr) {
      launch(cdist_differences<T, C>, blocks(work), stream, p, side);
    }
    if (points > 0) {
      launch(cdist_points<T, C>, blocks_for(points, lanes), stream, p, side, lanes);
    }
  }
}

template <class T>
void run_of(const PairsOnDevice& p, bool backward, cudaStream_t stream) {
  wide(p.a) ? run<T, double>(p, backward, stream) : run<T, float>(p, backward, stream);
}

}  // namespace

int64_t cdist_scratch_bytes(const CdistArguments& arguments, bool backward) {
  Scratch count(nullptr);
  divide(arguments, backward, count);
  return count.bytes();
}

void cdist(const CdistArguments& arguments, bool backward, void* scratch, cudaStream_t stream) {
  Scratch memory(scratch);
  const PairsOnDevice p = divide(arguments, backward, memory);
  switch (arguments.element) {
    case Element::kFloat32:
      return run_of<float>(p, backward, stream);
    case Element::kFloat64:
      return run<double, double>(p, backward, stream);
    case Element::kBFloat16:
      return run_of<BFloat16>(p, backward, stream);
    case Element::kFloat16:
      return run_of<Half>(p, backward, stream);
  }
}

}  // namespace stone::cuda
