// Signed distances to hyperplanes on the GPU: a group of lanes a row; gradients for the hyperplanes by columns.
#include "kernels.h"
#include "row_group.cuh"
#include "stone/curvature.h"
#include "stone/hyperplanes.h"

namespace stone::cuda {

namespace {

using portable::load;
using portable::store;

template <class T>
__device__ inline double squares_of_row(const HyperplaneArguments& a, const RowGroup& group, int64_t row, bool active) {
  const T* x = static_cast<const T*>(a.x) + row * a.dim;
  double squares[1] = {};
  for (int64_t k = group.lane; active && k < a.dim; k += group.lanes) {
    const double value = load(x[k]);
    squares[0] += value * value;
  }
  group.sum(squares);
  return squares[0];
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) hyperplanes_forward(const HyperplaneArguments a, const int lanes) {
  using C = typename portable::Compute<T>::type;
  const RowGroup group(lanes);
  const double c = portable::curvature_at(a.c, 0);
  const T* offset = static_cast<const T*>(a.offset);
  const T* scale = static_cast<const T*>(a.scale);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < a.rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const bool active = first + group.group < a.rows;
    const int64_t row = active ? first + group.group : 0;
    const portable::PointFactors f = portable::point_factors(squares_of_row<T>(a, group, row, active), c, a.min_alpha);
    const C inverse = static_cast<C>(f.inverse), lift = static_cast<C>(f.lift);
    const T* product = static_cast<const T*>(a.product) + row * a.planes;
    T* result = static_cast<T*>(a.result) + row * a.planes;
    for (int64_t j = group.lane; active && j < a.planes; j += group.lanes) {
      result[j] = store<T>(
          portable::hyperplane_distance<C>(load(product[j]), load(offset[j]), load(scale[j]), inverse, lift));
    }
  }
}

// Gradients of the products, the point and the curvature; `factors`: [rows, 2], what all hyperplanes share.
template <class T, class C>
__global__ void __launch_bounds__(kThreads, 1)
    hyperplanes_rows(const HyperplaneArguments a, C* const factors, const int lanes) {
  const RowGroup group(lanes);
  const double c = portable::curvature_at(a.c, 0);
  const T* offset = static_cast<const T*>(a.offset);
  const T* scale = static_cast<const T*>(a.scale);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < a.rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const bool active = first + group.group < a.rows;
    const int64_t row = active ? first + group.group : 0;
    const double squares = squares_of_row<T>(a, group, row, active);
    const portable::PointFactors f = portable::point_factors(squares, c, a.min_alpha);
    const C inverse = static_cast<C>(f.inverse), lift = static_cast<C>(f.lift);
    const T* product = static_cast<const T*>(a.product) + row * a.planes;
    const T* grad = static_cast<const T*>(a.grad) + row * a.planes;
    T* grad_product = static_cast<T*>(a.result) + row * a.planes;
    double sums[2] = {};  // of the gradient's products with the products, and with the offsets
    for (int64_t j = group.lane; active && j < a.planes; j += group.lanes) {
      const C p = load(product[j]), o = load(offset[j]);
      const auto g = portable::hyperplane_gradient<C>(load(grad[j]), p, o, load(scale[j]), inverse, lift);
      grad_product[j] = store<T>(g.of_argument * inverse);
      sums[0] += static_cast<double>(g.of_argument) * static_cast<double>(p);
      sums[1] += static_cast<double>(g.of_argument) * static_cast<double>(o);
    }
    group.sum(sums);
    if (!active) {
      continue;
    }
    const double along = portable::point_gradient(f, sums[0], sums[1]);
    const T* x = static_cast<const T*>(a.x) + row * a.dim;
    T* grad_x = static_cast<T*>(a.grad_x) + row * a.dim;
    const C factor = static_cast<C>(2.0 * c * along);
    for (int64_t k = group.lane; k < a.dim; k += group.lanes) {
      grad_x[k] = store<T>(factor * static_cast<C>(load(x[k])));
    }
    if (group.lane == 0) {
      static_cast<C*>(a.grad_c)[row] = static_cast<C>(along * squares);
      factors[2 * row] = inverse;
      factors[2 * row + 1] = lift;
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

template <class T>
void run(const HyperplaneArguments& a, bool backward, void* scratch, cudaStream_t stream) {
  using C = typename portable::Compute<T>::type;
  const int lanes = lanes_for(a.planes > a.dim ? a.planes : a.dim);
  const int blocks = blocks_for(a.rows, lanes);
  if (!backward) {
    launch(hyperplanes_forward<T>, blocks, stream, a, lanes);
    return;
  }
  C* factors = static_cast<C*>(scratch);
  launch(hyperplanes_rows<T, C>, blocks, stream, a, factors, lanes);
  const int64_t sums = (a.rows + kHyperplaneBlock - 1) / kHyperplaneBlock * a.planes;
  if (sums > 0) {
    launch(hyperplanes_columns<T, C>, blocks_for(sums, 1), stream, a, static_cast<const C*>(factors));
  }
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
