// butterfly and hyper_butterfly, forward, over rows of any element type.
#pragma once

#include "butterfly/butterfly_block.h"
#include "rows/row_sums.h"
#include "stone/expmap0.h"
#include "stone/logmap0.h"

namespace STONE_NAMESPACE {

struct ScaleBlock {
  double before[kBlock];  // squared norm of x
  double after[kBlock];   // and of its image
  double c[kBlock];
  double factor[kBlock];
};

// Not part of the loop over rows, whose own variables would keep it from becoming vector code.
STONE_FUNCTION void scale_row(ScaleBlock& b, const RadialGuards& of_log, const RadialGuards& of_exp, double c, int r) {
  const double log = radial_factor<Logmap0>(b.before[r], c, of_log);
  b.factor[r] = log * radial_factor<Expmap0>(log * log * b.after[r], c, of_exp);
}

// With `shared` all rows have the curvature of the first.
template <bool shared>
inline void scale_rows(ScaleBlock& b, const RadialGuards& of_log, const RadialGuards& of_exp, int padded) {
  const double c = b.c[0];
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    scale_row(b, of_log, of_exp, shared ? c : b.c[r], r);
  }
}

// exp0(B log0(x)) = factor * B x: the stages are linear, so that the logarithm's factor waits for the exponential's.
template <class T>
inline void scale_to_ball(const ButterflyArguments& arguments, const Block& block, const T* x,
                          typename Compute<T>::type* image) {
  const int64_t dim = arguments.dim;
  const RadialGuards of_log = arguments.log, of_exp = arguments.exp;
  ScaleBlock b{};
  read_numbers(b.c, arguments.c, arguments.map, 0, block.first_row, block.rows);
  double* const to[] = {b.before, b.after};
  sum_rows<2>(to, block.rows, dim, false, [&](const auto& read, int r, Wide* sum) __attribute__((always_inline)) {
    const int64_t at = (r < block.rows ? r : 0) * dim;
    const Wide entries = read(x + at), images = read(image + at);
    sum[0] += entries * entries;
    sum[1] += images * images;
  });
  const auto scale_all = shares_number(arguments.map, 0) ? scale_rows<true> : scale_rows<false>;
  scale_all(b, of_log, of_exp, whole_vectors(block.rows));
  for (int r = 0; r < block.rows; ++r) {
    scale(image + r * dim, b.factor[r], image + r * dim, dim);
  }
}

template <class T>
void butterfly_forward(const ButterflyArguments& arguments, int64_t begin, int64_t end, void* scratch) {
  using C = typename Compute<T>::type;
  const ButterflyPlan plan = butterfly_plan<C>(arguments);
  const int64_t dim = arguments.dim;
  const int64_t lines = block_lines<C>(plan, dim, 2);
  for (int64_t at = begin * dim; at < end * dim; at += lines * plan.width) {
    const Block block = block_at<T>(plan, dim, at, end * dim, lines);
    const T* x = static_cast<const T*>(arguments.x) + at;
    T* y = static_cast<T*>(arguments.y) + at;
    C* to = static_cast<C*>(scratch);
    const C* from = to;
    if (block.in_place) {
      to = reinterpret_cast<C*>(y);
      from = reinterpret_cast<const C*>(x);
    } else {
      load_block(to, x, block.entries, block.lines * plan.width);
    }
    run_block(to, from, arguments.arranged, plan, block.lines);
    if (arguments.hyperbolic) {
      scale_to_ball(arguments, block, x, to);
    }
    if (!block.in_place) {
      store_block(y, to, block.entries);
    }
  }
}

}  // namespace STONE_NAMESPACE
