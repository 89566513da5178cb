// poincare_hyperplanes over rows. Compiled once for each instruction set, as table.cpp is.
#include "pairs/hyperplane_kernels.h"
#include "rows/rows.h"
#include "stone/curvature.h"
#include "stone/hyperplanes.h"

namespace STONE_NAMESPACE {

namespace {

template <class T>
void forward_rows(const HyperplaneArguments& a, int64_t begin, int64_t end) {
  using C = typename Compute<T>::type;
  const double c = curvature_at(a.c, 0);
  const T* offset = static_cast<const T*>(a.offset);
  const T* scale = static_cast<const T*>(a.scale);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(a.x) + row * a.dim;
    const T* product = static_cast<const T*>(a.product) + row * a.planes;
    T* result = static_cast<T*>(a.result) + row * a.planes;
    const PointFactors f = point_factors(dot(x, x, a.dim), c, a.min_alpha);
    const C inverse = static_cast<C>(f.inverse), lift = static_cast<C>(f.lift);
#pragma omp simd
    for (int64_t j = 0; j < a.planes; ++j) {
      result[j] = store<T>(hyperplane_distance<C>(load(product[j]), load(offset[j]), load(scale[j]), inverse, lift));
    }
  }
}

template <class T>
void backward_blocks(const HyperplaneArguments& a, int64_t begin, int64_t end) {
  using C = typename Compute<T>::type;
  const double c = curvature_at(a.c, 0);
  const T* offset = static_cast<const T*>(a.offset);
  const T* scale = static_cast<const T*>(a.scale);
  for (int64_t block = begin; block < end; ++block) {
    C* of_offset = static_cast<C*>(a.grad_planes) + block * 2 * a.planes;
    C* of_scale = of_offset + a.planes;
    memset(of_offset, 0, static_cast<size_t>(2 * a.planes) * sizeof(C));
    const int64_t last = (block + 1) * kHyperplaneBlock;
    for (int64_t row = block * kHyperplaneBlock; row < (last < a.rows ? last : a.rows); ++row) {
      const T* x = static_cast<const T*>(a.x) + row * a.dim;
      const T* product = static_cast<const T*>(a.product) + row * a.planes;
      const T* grad = static_cast<const T*>(a.grad) + row * a.planes;
      T* grad_product = static_cast<T*>(a.result) + row * a.planes;
      const double squares = dot(x, x, a.dim);
      const PointFactors f = point_factors(squares, c, a.min_alpha);
      const C inverse = static_cast<C>(f.inverse), lift = static_cast<C>(f.lift);
      C of_products = C(0), of_offsets = C(0);
#pragma omp simd reduction(+ : of_products, of_offsets)
      for (int64_t j = 0; j < a.planes; ++j) {
        const C p = load(product[j]), o = load(offset[j]);
        const HyperplaneGradient<C> g = hyperplane_gradient<C>(load(grad[j]), p, o, load(scale[j]), inverse, lift);
        grad_product[j] = store<T>(g.of_argument * inverse);
        of_products += g.of_argument * p;
        of_offsets += g.of_argument * o;
        of_offset[j] -= g.of_argument * lift;
        of_scale[j] += g.of_scale;
      }
      const double along = point_gradient(f, static_cast<double>(of_products), static_cast<double>(of_offsets));
      STONE_NAMESPACE::scale(static_cast<T*>(a.grad_x) + row * a.dim, 2.0 * c * along, x, a.dim);
      static_cast<C*>(a.grad_c)[row] = static_cast<C>(along * squares);
    }
  }
}

void forward(const HyperplaneArguments& a, int64_t begin, int64_t end) {
  switch (a.element) {
    case Element::kFloat32:
      return forward_rows<float>(a, begin, end);
    case Element::kFloat64:
      return forward_rows<double>(a, begin, end);
    case Element::kBFloat16:
      return forward_rows<BFloat16>(a, begin, end);
    case Element::kFloat16:
      return forward_rows<Half>(a, begin, end);
  }
}

void backward(const HyperplaneArguments& a, int64_t begin, int64_t end) {
  switch (a.element) {
    case Element::kFloat32:
      return backward_blocks<float>(a, begin, end);
    case Element::kFloat64:
      return backward_blocks<double>(a, begin, end);
    case Element::kBFloat16:
      return backward_blocks<BFloat16>(a, begin, end);
    case Element::kFloat16:
      return backward_blocks<Half>(a, begin, end);
  }
}

}  // namespace

extern const HyperplaneKernels kHyperplanes = {forward, backward};

}  // namespace STONE_NAMESPACE
