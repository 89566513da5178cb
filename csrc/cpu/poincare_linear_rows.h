// What follows the product in poincare_linear, forward and backward, over rows of any element type.
#pragma once

#include "rows.h"
#include "stone/broadcast.h"
#include "stone/curvature.h"
#include "stone/poincare_linear.h"

namespace STONE_NAMESPACE {

template <class T>
inline void combine_three(T* w, double of_x, const T* x, double of_y, const T* y, double of_z, const T* z,
                          int64_t dim) {
  using C = typename Compute<T>::type;
  const C a = static_cast<C>(of_x);
  const C b = static_cast<C>(of_y);
  const C c = static_cast<C>(of_z);
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) {
    w[i] = store<T>(a * load(x[i]) + b * load(y[i]) + c * load(z[i]));
  }
}

template <class T>
inline void add_three(double* sum, double of_x, const T* x, double of_y, const T* y, double of_z, const T* z,
                      int64_t dim) {
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) {
    sum[i] += of_x * static_cast<double>(load(x[i])) + of_y * static_cast<double>(load(y[i])) +
              of_z * static_cast<double>(load(z[i]));
  }
}

template <class T>
void poincare_linear_forward(const PoincareLinearArguments& arguments, int64_t begin, int64_t end) {
  const int64_t in = arguments.in;
  const int64_t out = arguments.out;
  const PoincareLinearGuards guards = arguments.guards;
  const T* bias = static_cast<const T*>(arguments.bias);
  const int64_t step = block_rows(out, sizeof(T), 2);
  const double bb = bias == nullptr ? 0.0 : dot(bias, bias, out);
  PoincareLinearSums sums[kBlock] = {};
  double c[kBlock] = {};
  double of_product[kBlock];
  double of_bias[kBlock];
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    for (int r = 0; r < count; ++r) {
      const T* x = static_cast<const T*>(arguments.x) + (first + r) * in;
      const T* product = static_cast<const T*>(arguments.product) + (first + r) * out;
      const PairOfDots dots = dot_two(product, bias == nullptr ? product : bias, out);
      sums[r] = {dot(x, x, in), dots.xx, bias == nullptr ? 0.0 : dots.xy, bb};
      c[r] = curvature_at(arguments.c, source_row(arguments.map, 0, first + r));
    }
#pragma omp simd
    for (int r = 0; r < count; ++r) {
      const PoincareLinearFactors f = poincare_linear_factors(sums[r], c[r], guards);
      of_product[r] = f.of_product;
      of_bias[r] = f.of_bias;
    }
    for (int r = 0; r < count; ++r) {
      const int64_t at = (first + r) * out;
      const T* product = static_cast<const T*>(arguments.product) + at;
      T* y = static_cast<T*>(arguments.y) + at;
      if (bias == nullptr) {
        scale(y, of_product[r], product, out);
      } else {
        combine_two(y, of_product[r], product, of_bias[r], bias, out);
      }
    }
  }
}

struct FourDots {
  double mm;
  double mb;
  double gm;
  double gb;
};

template <class T>
inline FourDots dot_four(const T* m, const T* b, const T* g, int64_t dim) {
  double mm = 0.0;
  double mb = 0.0;
  double gm = 0.0;
  double gb = 0.0;
#pragma omp simd reduction(+ : mm, mb, gm, gb)
  for (int64_t i = 0; i < dim; ++i) {
    const double u = static_cast<double>(load(m[i]));
    const double v = static_cast<double>(load(b[i]));
    const double w = static_cast<double>(load(g[i]));
    mm += u * u;
    mb += u * v;
    gm += w * u;
    gb += w * v;
  }
  return {mm, mb, gm, gb};
}

// Chunks of rows, each with a gradient of the bias of its own.
template <class T>
void poincare_linear_backward(const PoincareLinearArguments& arguments, int64_t begin, int64_t end) {
  using C = typename Compute<T>::type;
  const int64_t in = arguments.in;
  const int64_t out = arguments.out;
  const PoincareLinearGuards guards = arguments.guards;
  const T* bias = static_cast<const T*>(arguments.bias);
  const int64_t step = block_rows(out, sizeof(T), 3);
  const double bb = bias == nullptr ? 0.0 : dot(bias, bias, out);
  const int64_t rows_of_chunk = (arguments.rows + arguments.chunks - 1) / arguments.chunks;
  PoincareLinearSums sums[kBlock] = {};
  PoincareLinearGradient gradient[kBlock];
  double c[kBlock] = {};
  double gm[kBlock] = {};
  double gb[kBlock] = {};
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    double* total = arguments.partial + chunk * out;
    for (int64_t i = 0; bias != nullptr && i < out; ++i) {
      total[i] = 0.0;
    }
    const int64_t last = (chunk + 1) * rows_of_chunk < arguments.rows ? (chunk + 1) * rows_of_chunk : arguments.rows;
    for (int64_t first = chunk * rows_of_chunk; first < last; first += step) {
      const int count = static_cast<int>(last - first < step ? last - first : step);
      for (int r = 0; r < count; ++r) {
        const T* x = static_cast<const T*>(arguments.x) + (first + r) * in;
        const T* product = static_cast<const T*>(arguments.product) + (first + r) * out;
        const T* grad = static_cast<const T*>(arguments.grad) + (first + r) * out;
        const FourDots dots = dot_four(product, bias == nullptr ? product : bias, grad, out);
        sums[r] = {dot(x, x, in), dots.mm, bias == nullptr ? 0.0 : dots.mb, bb};
        gm[r] = dots.gm;
        gb[r] = bias == nullptr ? 0.0 : dots.gb;
        c[r] = curvature_at(arguments.c, source_row(arguments.map, 0, first + r));
      }
#pragma omp simd
      for (int r = 0; r < count; ++r) {
        gradient[r] = poincare_linear_gradient(sums[r], gm[r], gb[r], c[r], guards);
      }
      for (int r = 0; r < count; ++r) {
        const PoincareLinearGradient g = gradient[r];
        const T* x = static_cast<const T*>(arguments.x) + (first + r) * in;
        const T* product = static_cast<const T*>(arguments.product) + (first + r) * out;
        const T* grad = static_cast<const T*>(arguments.grad) + (first + r) * out;
        T* grad_product = static_cast<T*>(arguments.y) + (first + r) * out;
        scale(static_cast<T*>(arguments.grad_x) + (first + r) * in, g.along, x, in);
        static_cast<C*>(arguments.grad_c)[first + r] = static_cast<C>(g.curvature);
        if (bias == nullptr) {
          combine_two(grad_product, g.m_of_grad, grad, g.m_of_m, product, out);
        } else {
          combine_three(grad_product, g.m_of_grad, grad, g.m_of_m, product, g.m_of_b, bias, out);
          add_three(total, g.b_of_grad, grad, g.b_of_m, product, g.b_of_b, bias, out);
        }
      }
    }
  }
}

template <class T>
void collect_bias_gradient(const PoincareLinearArguments& arguments) {
  for (int64_t i = 0; i < arguments.out; ++i) {
    double sum = 0.0;
    for (int64_t chunk = 0; chunk < arguments.chunks; ++chunk) {
      sum += arguments.partial[chunk * arguments.out + i];
    }
    static_cast<T*>(arguments.grad_bias)[i] = store<T>(static_cast<typename Compute<T>::type>(sum));
  }
}

}  // namespace STONE_NAMESPACE
