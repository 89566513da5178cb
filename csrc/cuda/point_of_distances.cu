// point_of_distances on the GPU: a warp, part of one or a block a row. Entries are read again in each pass, from cache.
#include "kernels.h"
#include "row_group.cuh"
#include "stone/broadcast.h"
#include "stone/curvature.h"
#include "stone/point_of_distances.h"

namespace stone::cuda {

using portable::load;
using portable::store;

namespace {

__device__ double sinh_of(double t, double shift) {
  return shift > 0.0 ? portable::shifted_sinh<true>(t, shift) : portable::shifted_sinh<false>(t, 0.0);
}

template <class T, bool with_grad>
__global__ void __launch_bounds__(kThreads, 1) point_rows(const RowArguments a, const int64_t rows, const int lanes) {
  using C = typename portable::Compute<T>::type;
  const RowGroup group(lanes);
  const int64_t dim = a.width[0];
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const bool active = first + group.group < rows;
    const int64_t row = active ? first + group.group : 0;
    const int64_t count = active ? dim : 0;
    const T* v = static_cast<const T*>(a.vector[0]) + portable::source_row(a.map, 0, row) * dim;
    const T* grad = with_grad ? static_cast<const T*>(a.grad) + row * dim : nullptr;
    const double c = portable::curvature_at(a.scalar[0], portable::source_row(a.map, 1, row));
    const double root = sqrt(c);
    double largest = 0.0;
    for (int64_t i = group.lane; i < count; i += group.lanes) {
      const double size = fabs(static_cast<double>(load(v[i])));
      largest = size > largest ? size : largest;
    }
    const double shift = portable::shift_of(root * group.largest(largest));
    double sums[2] = {0.0, 0.0};  // squares, and the gradient's inner product
    for (int64_t i = group.lane; i < count; i += group.lanes) {
      const double sinh = sinh_of(root * static_cast<double>(load(v[i])), shift);
      sums[0] += sinh * sinh;
      if constexpr (with_grad) sums[1] += sinh * static_cast<double>(load(grad[i]));
    }
    group.sum(sums);
    const portable::PointRow p = portable::point_row(sums[0], shift, c, a.guard[0]);
    if constexpr (!with_grad) {
      T* y = static_cast<T*>(a.result) + row * dim;
      const double factor = p.shrink * p.inverse / p.root;
      for (int64_t i = group.lane; i < count; i += group.lanes) {
        y[i] = store<T>(static_cast<C>(factor * sinh_of(root * static_cast<double>(load(v[i])), shift)));
      }
    } else {
      const double inner = sums[1] * p.inverse;
      const portable::PointGradient g = portable::point_gradient(p, inner);
      T* grad_v = static_cast<T*>(a.grad_vector[0]) + row * dim;
      double of_v[1] = {0.0};
      for (int64_t i = group.lane; i < count; i += group.lanes) {
        const double distance = load(v[i]);
        const double entry = p.inverse * sinh_of(root * distance, shift);
        const double along = g.of_grad * static_cast<double>(load(grad[i])) + g.of_a * entry;
        const double value = sqrt(p.whole * p.whole + entry * entry) * along;
        of_v[0] += value * distance;
        grad_v[i] = store<T>(static_cast<C>(value));
      }
      group.sum(of_v);
      if (active && group.lane == 0) {
        static_cast<C*>(a.grad_scalar[0])[row] =
            static_cast<C>(portable::point_gradient_of_curvature(p, g, inner, of_v[0], c));
      }
    }
  }
}

template <bool with_grad>
void launch_points(const RowArguments& a, int64_t rows, cudaStream_t stream) {
  const int lanes = lanes_for(a.width[0]);
  const int blocks = blocks_for(rows, lanes);
  switch (a.element) {
    case Element::kFloat32:
      return launch(point_rows<float, with_grad>, blocks, stream, a, rows, lanes);
    case Element::kFloat64:
      return launch(point_rows<double, with_grad>, blocks, stream, a, rows, lanes);
    case Element::kBFloat16:
      return launch(point_rows<BFloat16, with_grad>, blocks, stream, a, rows, lanes);
    case Element::kFloat16:
      return launch(point_rows<Half, with_grad>, blocks, stream, a, rows, lanes);
  }
}

}  // namespace

void point_of_distances(const RowArguments& arguments, int64_t rows, cudaStream_t stream) {
  launch_points<false>(arguments, rows, stream);
}

void point_of_distances_backward(const RowArguments& arguments, int64_t rows, cudaStream_t stream) {
  launch_points<true>(arguments, rows, stream);
}

}  // namespace stone::cuda
