// add_time, forward and backward, over rows of any element type.
#pragma once

#include "rows/rows.h"
#include "stone/add_time.h"
#include "stone/broadcast.h"
#include "stone/curvature.h"
#include "stone/linear_epilogue_arguments.h"

namespace STONE_NAMESPACE {

template <class T>
void add_time_forward(const AddTimeArguments& arguments, int64_t begin, int64_t end) {
  const int64_t dim = arguments.dim;
  for (int64_t row = begin; row < end; ++row) {
    const T* space = static_cast<const T*>(arguments.space) + row * dim;
    T* y = static_cast<T*>(arguments.y) + row * (dim + 1);
    const double c = curvature_at(arguments.c, source_row(arguments.map, 0, row));
    y[0] = store<T>(static_cast<typename Compute<T>::type>(time_of(dot(space, space, dim), c)));
    memcpy(y + 1, space, static_cast<size_t>(dim) * sizeof(T));
  }
}

template <class T>
void add_time_backward(const AddTimeArguments& arguments, int64_t begin, int64_t end) {
  using C = typename Compute<T>::type;
  const int64_t dim = arguments.dim;
  for (int64_t row = begin; row < end; ++row) {
    const T* space = static_cast<const T*>(arguments.space) + row * dim;
    const T* grad = static_cast<const T*>(arguments.grad) + row * (dim + 1);
    const double c = curvature_at(arguments.c, source_row(arguments.map, 0, row));
    const TimeGradient g = time_gradient(dot(space, space, dim), static_cast<double>(load(grad[0])), c);
    combine_two(static_cast<T*>(arguments.y) + row * dim, 1.0, grad + 1, g.along, space, dim);
    static_cast<C*>(arguments.grad_c)[row] = static_cast<C>(g.curvature);
  }
}

}  // namespace STONE_NAMESPACE
