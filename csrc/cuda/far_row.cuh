// A row far from the origin of the hyperboloid on the GPU: what stone/far_rows.h needs summed, and its results.
#pragma once

#include "row_group.cuh"
#include "stone/far_rows.h"

namespace stone::cuda {

// One thread that works on a row alone, in place of a RowGroup.
struct OneLane {
  static constexpr int lanes = 1;
  static constexpr int lane = 0;
  template <int N>
  __device__ void sum(double (&)[N]) const {}
  __device__ double largest(double value) const { return value; }
};

// The row of a group taken apart along the farther point and across it; `vector` and `gradient` point to the first
// space components. Every thread of a RowGroup's block must make one, with `count` 0 where its row is not far.
template <class Layout, class T, bool with_grad, class Group = RowGroup>
struct FarRow {
  static constexpr int kOthers = Layout::kVectors - 1 + (with_grad ? 1 : 0);

  const T* far;
  const T* other[portable::kMaxOthers];
  double pivot;    // the largest entry of f
  double inverse;  // of it
  double at_pivot[portable::kMaxOthers];
  double shift[portable::kMaxOthers];
  portable::FarSums sums;

  __device__ FarRow(const T* const* vector, const T* gradient, const double* moment, int64_t count,
                    const Group& group)
      : sums(portable::begin_far<Layout>(moment)) {
    far = vector[sums.second ? 1 : 0];
    other[0] = vector[sums.second ? 0 : 1];
    if constexpr (Layout::kVectors > 2) other[1] = vector[2];
    if constexpr (with_grad) other[kOthers - 1] = gradient;
    find_pivot(count, group);
    take_apart(count, group);
  }

  __device__ double across(int a, double entry, double of_far) const {
    const auto fused = [](double x, double y, double z) { return fma(x, y, z); };
    return inverse * portable::minor_of(entry, at_pivot[a], of_far, pivot, fused) - shift[a] * of_far;
  }

  // Entry i of of[0] f + of[1] a_across + ... over the others.
  __device__ double entry(const double* of, int64_t i) const {
    const double f = portable::load(far[i]);
    double sum = of[0] * f;
#pragma unroll
    for (int a = 0; a < kOthers; ++a) {
      sum += of[1 + a] * across(a, portable::load(other[a][i]), f);
    }
    return sum;
  }

  __device__ void combine(T* result, const double* of, int64_t count, const Group& group) const {
    using C = typename portable::Compute<T>::type;
    for (int64_t i = group.lane; i < count; i += group.lanes) {
      result[i] = portable::store<T>(static_cast<C>(entry(of, i)));
    }
  }

 private:
  __device__ void find_pivot(int64_t count, const Group& group) {
    double size = 0.0, at = 0.0;
    for (int64_t i = group.lane; i < count; i += group.lanes) {
      const double entry = fabs(static_cast<double>(portable::load(far[i])));
      at = entry > size ? static_cast<double>(i) : at;
      size = entry > size ? entry : size;
    }
    const double largest = group.largest(size);
    const auto index = static_cast<int64_t>(group.largest(size == largest ? at : 0.0));
    // Two points at the origin: nothing lies along or across it.
    pivot = count > 0 && largest > 0.0 ? static_cast<double>(portable::load(far[index])) : 1.0;
    inverse = 1.0 / pivot;
#pragma unroll
    for (int a = 0; a < kOthers; ++a) {
      at_pivot[a] = count > 0 ? static_cast<double>(portable::load(other[a][index])) : 0.0;
      shift[a] = 0.0;
    }
  }

  __device__ void take_apart(int64_t count, const Group& group) {
    double of_far[2 * kOthers] = {}, product[kOthers] = {};
    for (int64_t i = group.lane; i < count; i += group.lanes) {
      const double f = portable::load(far[i]);
#pragma unroll
      for (int a = 0; a < kOthers; ++a) {
        const double entry = portable::load(other[a][i]);
        of_far[a] += f * entry;
        of_far[kOthers + a] += f * across(a, entry, f);
      }
    }
    group.sum(of_far);
#pragma unroll
    for (int a = 0; a < kOthers; ++a) {
      sums.along[a] = of_far[a];
      shift[a] = sums.far_squares > 0.0 ? of_far[kOthers + a] / sums.far_squares : 0.0;
    }
    for (int64_t i = group.lane; i < count; i += group.lanes) {
      const double f = portable::load(far[i]), first = across(0, portable::load(other[0][i]), f);
      product[0] += first * first;
#pragma unroll
      for (int a = 1; a < kOthers; ++a) {
        product[a] += first * across(a, portable::load(other[a][i]), f);
      }
    }
    group.sum(product);
#pragma unroll
    for (int a = 0; a < kOthers; ++a) {
      sums.across[a] = product[a];
    }
  }
};

// A pair of points of a distance matrix.
template <class T, class Group>
using FarPoints = FarRow<portable::DifferenceAndInner, T, false, Group>;

template <class T, class Group>
__device__ inline FarPoints<T, Group> far_points(const T* x, const T* y, int64_t dim, const Group& group) {
  using Layout = portable::DifferenceAndInner;
  double moments[Layout::kMoments] = {};
  for (int64_t k = group.lane; k < dim; k += group.lanes) {
    const auto t = Layout::terms<double>(portable::load(x[k]), portable::load(y[k]), 0.0);
#pragma unroll
    for (int m = 0; m < Layout::kMoments; ++m) {
      moments[m] += t.at[m];
    }
  }
  group.sum(moments);
  const T* const points[] = {x, y};
  return FarPoints<T, Group>(points, nullptr, moments, dim, group);
}

}  // namespace stone::cuda
