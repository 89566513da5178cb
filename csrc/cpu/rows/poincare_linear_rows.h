// What follows the product in poincare_linear, forward and backward, over rows of any element type.
#pragma once

#include "machine/chunks.h"
#include "rows/rows.h"
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

// sum += of_x * x + of_y * y + of_z * z.
template <class T>
inline void add_three(double* sum, double of_x, const T* x, double of_y, const T* y, double of_z, const T* z,
                      int64_t dim) {
  map_wide(dim, [&](const auto& read, const auto& write) __attribute__((always_inline)) {
    write(sum, read(sum) + of_x * read(x) + of_y * read(y) + of_z * read(z));
  });
}

struct PoincareLinearBlock {
  double xx[kBlock], mm[kBlock], mb[kBlock], gm[kBlock], gb[kBlock], c[kBlock];
  double of_product[kBlock], of_bias[kBlock];
  double m_of_grad[kBlock], m_of_m[kBlock], m_of_b[kBlock];
  double b_of_grad[kBlock], b_of_m[kBlock], b_of_b[kBlock];
  double along[kBlock], curvature[kBlock];
};

// Not part of the loops over rows, whose own variables would keep them from becoming vector code.
template <bool adds>
STONE_FUNCTION void poincare_linear_row(PoincareLinearBlock& b, double bb, const PoincareLinearGuards& guards, int r) {
  const PoincareLinearFactors f = poincare_linear_factors<adds>({b.xx[r], b.mm[r], b.mb[r], bb}, b.c[r], guards);
  b.of_product[r] = f.of_product;
  b.of_bias[r] = f.of_bias;
}

template <bool adds>
STONE_FUNCTION void poincare_linear_gradient_row(PoincareLinearBlock& b, double bb, const PoincareLinearGuards& guards,
                                                 int r) {
  const PoincareLinearGradient g =
      poincare_linear_gradient<adds>({b.xx[r], b.mm[r], b.mb[r], bb}, b.gm[r], b.gb[r], b.c[r], guards);
  b.m_of_grad[r] = g.m_of_grad;
  b.m_of_m[r] = g.m_of_m;
  b.m_of_b[r] = g.m_of_b;
  b.b_of_grad[r] = g.b_of_grad;
  b.b_of_m[r] = g.b_of_m;
  b.b_of_b[r] = g.b_of_b;
  b.along[r] = g.along;
  b.curvature[r] = g.curvature;
}

template <bool adds>
inline void poincare_linear_block(PoincareLinearBlock& block, double bb, const PoincareLinearGuards& guards,
                                  int count) {
  const int padded = whole_vectors(count);
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    poincare_linear_row<adds>(block, bb, guards, r);
  }
}

template <bool adds>
inline void poincare_linear_gradient_block(PoincareLinearBlock& block, double bb, const PoincareLinearGuards& guards,
                                           int count) {
  const int padded = whole_vectors(count);
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    poincare_linear_gradient_row<adds>(block, bb, guards, r);
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
  PoincareLinearBlock block{};
  for (int64_t first = begin; first < end; first += step) {
    const int count = static_cast<int>(end - first < step ? end - first : step);
    read_numbers(block.c, arguments.c, arguments.map, 0, first, count);
    for (int r = 0; r < count; ++r) {
      const T* x = static_cast<const T*>(arguments.x) + (first + r) * in;
      const T* product = static_cast<const T*>(arguments.product) + (first + r) * out;
      const PairOfDots dots = dot_two(product, bias == nullptr ? product : bias, out);
      block.xx[r] = dot(x, x, in);
      block.mm[r] = dots.xx;
      block.mb[r] = bias == nullptr ? 0.0 : dots.xy;
    }
    if (guards.adds) {
      poincare_linear_block<true>(block, bb, guards, count);
    } else {
      poincare_linear_block<false>(block, bb, guards, count);
    }
    for (int r = 0; r < count; ++r) {
      const int64_t at = (first + r) * out;
      const T* product = static_cast<const T*>(arguments.product) + at;
      T* y = static_cast<T*>(arguments.y) + at;
      if (bias == nullptr) {
        scale(y, block.of_product[r], product, out);
      } else {
        combine_two(y, block.of_product[r], product, block.of_bias[r], bias, out);
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
  Wide mm{}, mb{}, gm{}, gb{};
  for_wide(dim, [&](const auto& read) __attribute__((always_inline)) {
    const Wide u = read(m), v = read(b), w = read(g);
    mm += u * u;
    mb += u * v;
    gm += w * u;
    gb += w * v;
  });
  return {sum_of(mm), sum_of(mb), sum_of(gm), sum_of(gb)};
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
  PoincareLinearBlock block{};
  for (int64_t index = begin; index < end; ++index) {
    const Chunk chunk = chunk_at(index, arguments.chunks, arguments.rows);
    double* total = arguments.partial + index * out;
    for (int64_t i = 0; bias != nullptr && i < out; ++i) {
      total[i] = 0.0;
    }
    for (int64_t first = chunk.first; first < chunk.last; first += step) {
      const int count = static_cast<int>(chunk.last - first < step ? chunk.last - first : step);
      read_numbers(block.c, arguments.c, arguments.map, 0, first, count);
      for (int r = 0; r < count; ++r) {
        const T* x = static_cast<const T*>(arguments.x) + (first + r) * in;
        const T* product = static_cast<const T*>(arguments.product) + (first + r) * out;
        const T* grad = static_cast<const T*>(arguments.grad) + (first + r) * out;
        const FourDots dots = dot_four(product, bias == nullptr ? product : bias, grad, out);
        block.xx[r] = dot(x, x, in);
        block.mm[r] = dots.mm;
        block.mb[r] = bias == nullptr ? 0.0 : dots.mb;
        block.gm[r] = dots.gm;
        block.gb[r] = bias == nullptr ? 0.0 : dots.gb;
      }
      if (guards.adds) {
        poincare_linear_gradient_block<true>(block, bb, guards, count);
      } else {
        poincare_linear_gradient_block<false>(block, bb, guards, count);
      }
      write_numbers(static_cast<C*>(arguments.grad_c) + first, block.curvature, count);
      for (int r = 0; r < count; ++r) {
        const T* x = static_cast<const T*>(arguments.x) + (first + r) * in;
        const T* product = static_cast<const T*>(arguments.product) + (first + r) * out;
        const T* grad = static_cast<const T*>(arguments.grad) + (first + r) * out;
        T* grad_product = static_cast<T*>(arguments.y) + (first + r) * out;
        scale(static_cast<T*>(arguments.grad_x) + (first + r) * in, block.along[r], x, in);
        if (bias == nullptr) {
          combine_two(grad_product, block.m_of_grad[r], grad, block.m_of_m[r], product, out);
        } else {
          combine_three(grad_product, block.m_of_grad[r], grad, block.m_of_m[r], product, block.m_of_b[r], bias, out);
          add_three(total, block.b_of_grad[r], grad, block.b_of_m[r], product, block.b_of_b[r], bias, out);
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
