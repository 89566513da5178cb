// Distance matrices of points of the ball that are computed in float32: which kernels run.
#include "cdist_backward.cuh"
#include "float_backward.cuh"
#include "float_forward.cuh"

namespace stone::cuda {

namespace {

template <class T>
void forward(const PairsOnDevice& p, cudaStream_t stream) {
  const int64_t pairs = p.a.batch * p.down * p.across;
  if (p.a.product != nullptr) {
    const int64_t strips = tiles(p.a.rows, kStripRows) * tiles(p.a.columns, kStripColumns);
    launch(product_cdist_forward<T>, blocks(p.a.batch * strips), stream, p);
  } else if (p.tile > kTile) {
    launch(float_cdist_forward<T, 8>, blocks(pairs), stream, p);
  } else {
    launch(float_cdist_forward<T, 4>, blocks(pairs), stream, p);
  }
}

template <class T, int side>
void differences(const PairsOnDevice& p, cudaStream_t stream) {
  const int64_t work = p.a.batch * p.parts[side] * tiles(p.points(side), p.tile) * tiles(p.dim, kGroup);
  if (work > 0 && p.a.product == nullptr) {
    launch(p.tile > kTile ? float_cdist_differences<T, 8, side> : float_cdist_differences<T, 4, side>, blocks(work),
           stream, p);
  }
  launch_points<T, float>(p, side, stream);
}

template <class T>
void run_float(const PairsOnDevice& p, bool backward, cudaStream_t stream) {
  launch_images<T>(p, stream);
  if (!backward) {
    return forward<T>(p, stream);
  }
  const int64_t pairs = p.a.batch * p.down * p.across;
  if (pairs > 0) {
    launch(p.tile > kTile ? float_cdist_pairs<T, 8> : float_cdist_pairs<T, 4>, blocks(pairs), stream, p);
  }
  differences<T, 0>(p, stream);
  differences<T, 1>(p, stream);
}

}  // namespace

void float_cdist(const PairsOnDevice& p, bool backward, cudaStream_t stream) {
  switch (p.a.element) {
    case Element::kFloat32:
      return run_float<float>(p, backward, stream);
    case Element::kBFloat16:
      return run_float<BFloat16>(p, backward, stream);
    case Element::kFloat16:
      return run_float<Half>(p, backward, stream);
    case Element::kFloat64:
      return;  // never: those are computed in float64
  }
}

}  // namespace stone::cuda
