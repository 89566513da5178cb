// The stages of a butterfly backwards: from the gradient of a pass's image and its input to that of its input, and
// the gradient of its coefficients, laid out as they are.
#pragma once

#include "butterfly/butterfly_passes.h"

namespace STONE_NAMESPACE {

template <class C, int stride>
inline Vector<C> step_within_vector(Vector<C> first, Vector<C> second, Vector<C> x) {
  return first * x + second * exchanged<stride, C>(x);
}

template <class C, int stride>
inline void step_back_within_vector(Vector<C> first, Vector<C> second, Vector<C> x, Vector<C>& grad,
                                    Vector<C>& grad_first, Vector<C>& grad_second) {
  grad_first += grad * x;
  grad_second += grad * exchanged<stride, C>(x);
  // `second` of the partner is minus that of the entry.
  grad = first * grad - second * exchanged<stride, C>(grad);
}

template <class C, int count>
inline void pass_back_within_vectors(C* to, const C* from, const C* x, C* gradient, const C* coefficients,
                                     int64_t width, int rows) {
  using V = Vector<C>;
  for (int64_t i = 0; i < width; i += kLanes<C>) {
    V first[count];
    V second[count];
    V grad_first[count];
    V grad_second[count];
    for (int s = 0; s < count; ++s) {
      first[s] = read(coefficients + s * 2 * width + i);
      second[s] = read(coefficients + (s * 2 + 1) * width + i);
      grad_first[s] = read(gradient + s * 2 * width + i);
      grad_second[s] = read(gradient + (s * 2 + 1) * width + i);
    }
    for (int r = 0; r < rows; ++r) {
      V before[count];
      before[0] = read(x + r * width + i);
      if constexpr (count > 1) {
        before[1] = step_within_vector<C, 1>(first[0], second[0], before[0]);
      }
      if constexpr (count > 2) {
        before[2] = step_within_vector<C, 2>(first[1], second[1], before[1]);
      }
      if constexpr (count > 3) {
        before[3] = step_within_vector<C, 4>(first[2], second[2], before[2]);
      }
      V grad = read(from + r * width + i);
      if constexpr (count > 3) {
        step_back_within_vector<C, 8>(first[3], second[3], before[3], grad, grad_first[3], grad_second[3]);
      }
      if constexpr (count > 2) {
        step_back_within_vector<C, 4>(first[2], second[2], before[2], grad, grad_first[2], grad_second[2]);
      }
      if constexpr (count > 1) {
        step_back_within_vector<C, 2>(first[1], second[1], before[1], grad, grad_first[1], grad_second[1]);
      }
      step_back_within_vector<C, 1>(first[0], second[0], before[0], grad, grad_first[0], grad_second[0]);
      write(to + r * width + i, grad);
    }
    for (int s = 0; s < count; ++s) {
      write(gradient + s * 2 * width + i, grad_first[s]);
      write(gradient + (s * 2 + 1) * width + i, grad_second[s]);
    }
  }
}

template <class C>
inline void pass_back_of_two(C* to, const C* from, const C* x, C* gradient, const C* coefficients, int64_t width,
                             int64_t stride, int rows) {
  using V = Vector<C>;
  for (int64_t group = 0; group < width; group += 4 * stride) {
    for (int64_t offset = 0; offset < stride; offset += kLanes<C>) {
      const int64_t block = group / 2 + offset;
      const FourEntries<C> four = four_entries(coefficients, width, block, stride);
      FourEntries<C> sums = four_entries<C>(gradient, width, block, stride);
      for (int r = 0; r < rows; ++r) {
        const int64_t at = r * width + group + offset;
        V x0 = read(x + at), x1 = read(x + at + stride);
        V x2 = read(x + at + 2 * stride), x3 = read(x + at + 3 * stride);
        V m0 = x0, m1 = x1, m2 = x2, m3 = x3;
        rotate(four.a[0], four.b[0], m0, m1);
        rotate(four.a[1], four.b[1], m2, m3);
        V g0 = read(from + at), g1 = read(from + at + stride);
        V g2 = read(from + at + 2 * stride), g3 = read(from + at + 3 * stride);
        add_block_gradient(sums.a[2], sums.b[2], g0, g2, m0, m2);
        add_block_gradient(sums.a[3], sums.b[3], g1, g3, m1, m3);
        rotate_back(four.a[2], four.b[2], g0, g2);
        rotate_back(four.a[3], four.b[3], g1, g3);
        add_block_gradient(sums.a[0], sums.b[0], g0, g1, x0, x1);
        add_block_gradient(sums.a[1], sums.b[1], g2, g3, x2, x3);
        rotate_back(four.a[0], four.b[0], g0, g1);
        rotate_back(four.a[1], four.b[1], g2, g3);
        write(to + at, g0);
        write(to + at + stride, g1);
        write(to + at + 2 * stride, g2);
        write(to + at + 3 * stride, g3);
      }
      for (int k = 0; k < 4; ++k) {
        C* a = gradient + (k / 2) * 2 * width + block + (k % 2) * stride;
        write(a, sums.a[k]);
        write(a + width, sums.b[k]);
      }
    }
  }
}

template <class C>
inline void pass_back_of_one(C* to, const C* from, const C* x, C* gradient, const C* coefficients, int64_t width,
                             int64_t stride, int rows) {
  using V = Vector<C>;
  for (int64_t group = 0; group < width; group += 2 * stride) {
    for (int64_t offset = 0; offset < stride; offset += kLanes<C>) {
      const int64_t block = group / 2 + offset;
      const V a = read(coefficients + block);
      const V b = read(coefficients + width + block);
      V grad_a = read(gradient + block);
      V grad_b = read(gradient + width + block);
      for (int r = 0; r < rows; ++r) {
        const int64_t at = r * width + group + offset;
        V low = read(from + at), high = read(from + at + stride);
        add_block_gradient(grad_a, grad_b, low, high, read(x + at), read(x + at + stride));
        rotate_back(a, b, low, high);
        write(to + at, low);
        write(to + at + stride, high);
      }
      write(gradient + block, grad_a);
      write(gradient + width + block, grad_b);
    }
  }
}

// `x` is the input of the pass, `from` the gradient of its image, `to` that of its input; `gradient` is added to.
template <class C>
inline void run_pass_back(C* to, const C* from, const C* x, C* gradient, const C* coefficients,
                          const ButterflyPlan& plan, const Pass& pass, int rows) {
  if (pass.level < plan.inner) {
    switch (pass.count) {
      case 1:
        return pass_back_within_vectors<C, 1>(to, from, x, gradient, coefficients, plan.width, rows);
      case 2:
        return pass_back_within_vectors<C, 2>(to, from, x, gradient, coefficients, plan.width, rows);
      case 3:
        return pass_back_within_vectors<C, 3>(to, from, x, gradient, coefficients, plan.width, rows);
      default:
        return pass_back_within_vectors<C, 4>(to, from, x, gradient, coefficients, plan.width, rows);
    }
  }
  const int64_t stride = int64_t{1} << pass.level;
  if (pass.count == 2) {
    pass_back_of_two(to, from, x, gradient, coefficients, plan.width, stride, rows);
  } else {
    pass_back_of_one(to, from, x, gradient, coefficients, plan.width, stride, rows);
  }
}

}  // namespace STONE_NAMESPACE
