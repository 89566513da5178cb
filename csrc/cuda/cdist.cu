// Distance matrices: how scratch memory is divided, and which kernels run for which element type.
#include "cdist_backward.cuh"
#include "cdist_forward.cuh"
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
constexpr int64_t kManyTiles = kMultiprocessors * 3 / 4;

// So many of the other points at least are worth a tile of differences of their own.
constexpr int64_t kLeastOthers = 128;

// Parts that the other points are divided into, so that there is a tile of differences for every multiprocessor.
int64_t parts_of_others(int64_t others, int64_t work) {
  const int64_t wanted = work > 0 ? kMultiprocessors / work : 1, most = others / kLeastOthers;
  const int64_t parts = wanted < most ? wanted : most;
  return parts > 1 ? parts : 1;
}

// Whether rows of `extent` entries begin where four of them can be read at once.
bool by_quads(const void* data, int64_t extent, int64_t size) {
  return extent % 4 == 0 && reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(4 * size) == 0;
}

PairsOnDevice divide(const CdistArguments& a, bool backward, Scratch& memory) {
  PairsOnDevice p{};
  p.a = a;
  const bool many = a.batch * tiles(a.rows, 2 * kTile) * tiles(a.columns, 2 * kTile) >= kManyTiles;
  p.tile = !wide(a) && many && !(backward && a.product != nullptr) ? 2 * kTile : kTile;
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
      const int64_t work = a.batch * tiles(p.points(side), p.tile) * tiles(p.dim);
      p.parts[side] = parts_of_others(p.points(1 - side), work);
      p.sums[side] = memory.next<void>(p.parts[side] * points * p.dim * pairs);
    }
    if (backward) {
      p.along[side] = memory.next<double>(points * (side == 0 ? p.across : p.down) * static_cast<int64_t>(sizeof(double)));
    }
  }
  p.pairs_by_quads = by_quads(backward ? a.grad : a.result, a.columns, element_size(a.element)) &&
                     aligned_to_16(a.product) && aligned_to_16(a.grad_product);
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

template <class T>
void run(const PairsOnDevice& p, bool backward, cudaStream_t stream) {
  launch_images<T>(p, stream);
  const int64_t pairs = p.a.batch * p.down * p.across;
  if (!backward) {
    launch(cdist_forward<T>, blocks(pairs), stream, p);
    return;
  }
  if (pairs > 0) {
    launch(cdist_pairs<T>, blocks(pairs), stream, p);
  }
  for (int side = 0; side < 2; ++side) {
    const int64_t work = p.a.batch * p.parts[side] * tiles(p.points(side)) * tiles(p.dim);
    if (work > 0 && p.a.product == nullptr) {
      launch(cdist_differences<T>, blocks(work), stream, p, side);
    }
    launch_points<T, double>(p, side, stream);
  }
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
  if (!wide(arguments)) {
    return float_cdist(p, backward, stream);
  }
  switch (arguments.element) {
    case Element::kFloat32:
      return run<float>(p, backward, stream);
    case Element::kFloat64:
      return run<double>(p, backward, stream);
    case Element::kBFloat16:
      return run<BFloat16>(p, backward, stream);
    case Element::kFloat16:
      return run<Half>(p, backward, stream);
  }
}

}  // namespace stone::cuda
