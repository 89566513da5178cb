// butterfly and hyper_butterfly, backward: the stages are run again, and the input of every pass is kept.
#pragma once

#include "butterfly/butterfly_gradient_passes.h"
#include "butterfly/butterfly_rows.h"
#include "machine/chunks.h"

namespace STONE_NAMESPACE {

template <class C>
struct ButterflyScratch {
  C* inputs;    // of every pass but the first, then the image: [passes, block]
  C* x;         // copies, where the arrays themselves cannot be used
  C* grad;
  C* gradient;  // of the coefficients, [stages, 2, width]
  int64_t block;

  ButterflyScratch(void* memory, const ButterflyPlan& plan, int64_t passes, int64_t lines)
      : inputs(static_cast<C*>(memory)), block(lines * plan.width) {
    x = inputs + passes * block;
    grad = x + block;
    gradient = grad + block;
  }
};

template <class C>
inline int64_t gradient_scratch_entries(const ButterflyPlan& plan, int64_t dim) {
  const int64_t passes = count_passes(plan);
  return (passes + 2) * block_lines<C>(plan, dim, passes + 2) * plan.width + plan.stages * 2 * plan.width;
}

// Numbers of the rows of a block, for the two maps around the stages.
struct MapsBlock {
  double c[kBlock];
  double squares[kBlock];    // of x
  double image[kBlock];      // squared norm of the image
  double inner[kBlock];      // of a gradient and its row
  double log[kBlock];        // the factor of log0
  double factor[kBlock];
  double along[kBlock];
  double curvature[kBlock];
};

// Not part of the loops over rows, whose own variables would keep them from becoming vector code.
STONE_FUNCTION void exp_row(MapsBlock& b, const RadialGuards& of_log, const RadialGuards& of_exp, int r) {
  const double log = radial_factor<Logmap0>(b.squares[r], b.c[r], of_log);
  const RadialGradient g = radial_gradient<Expmap0>(log * log * b.image[r], log * b.inner[r], b.c[r], of_exp);
  b.log[r] = log;
  b.factor[r] = log * g.factor;
  b.along[r] = log * log * g.along;
  b.curvature[r] = g.curvature;
}

STONE_FUNCTION void log_row(MapsBlock& b, const RadialGuards& of_log, int r) {
  const RadialGradient g = radial_gradient<Logmap0>(b.squares[r], b.inner[r] / b.log[r], b.c[r], of_log);
  b.along[r] = g.along;
  b.curvature[r] += g.curvature;
}

// Through exp0: from the gradient of a row's image to that of B x, scaled as the row of `x` would be by log0.
template <class T>
inline void pull_through_exp(const ButterflyArguments& arguments, const Block& block, MapsBlock& maps, const T* x,
                             const typename Compute<T>::type* image, const T* grad,
                             typename Compute<T>::type* pulled) {
  const int64_t dim = arguments.dim;
  const RadialGuards of_log = arguments.log, of_exp = arguments.exp;
  read_numbers(maps.c, arguments.c, arguments.map, 0, block.first_row, block.rows);
  for (int r = 0; r < block.rows; ++r) {
    maps.squares[r] = dot(x + r * dim, x + r * dim, dim);
    const PairOfDots dots = dot_two(image + r * dim, grad + r * dim, dim);
    maps.image[r] = dots.xx;
    maps.inner[r] = dots.xy;
  }
  const int padded = whole_vectors(block.rows);
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    exp_row(maps, of_log, of_exp, r);
  }
  for (int r = 0; r < block.rows; ++r) {
    combine_two(pulled + r * dim, maps.factor[r], grad + r * dim, maps.along[r], image + r * dim, dim);
  }
}

// Through log0: `grad` is the gradient of the row log0(x), times the factor of log0.
template <class T>
inline void pull_through_log(const ButterflyArguments& arguments, const Block& block, MapsBlock& maps, const T* x,
                             typename Compute<T>::type* grad) {
  using C = typename Compute<T>::type;
  const int64_t dim = arguments.dim;
  const RadialGuards of_log = arguments.log;
  for (int r = 0; r < block.rows; ++r) {
    maps.inner[r] = dot(grad + r * dim, x + r * dim, dim);
  }
  const int padded = whole_vectors(block.rows);
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    log_row(maps, of_log, r);
  }
  write_numbers(static_cast<C*>(arguments.grad_c) + block.first_row, maps.curvature, block.rows);
  for (int r = 0; r < block.rows; ++r) {
    add_scaled(grad + r * dim, maps.along[r], x + r * dim, dim);
  }
}

template <class T>
inline void butterfly_block_backward(const ButterflyArguments& arguments, const ButterflyPlan& plan,
                                     const Block& block, int64_t passes,
                                     const ButterflyScratch<typename Compute<T>::type>& scratch) {
  using C = typename Compute<T>::type;
  const T* x = static_cast<const T*>(arguments.x) + block.at;
  const T* grad = static_cast<const T*>(arguments.grad) + block.at;
  T* grad_x = static_cast<T*>(arguments.y) + block.at;
  const int64_t padded = block.lines * plan.width;
  const C* first = reinterpret_cast<const C*>(x);
  const C* from = reinterpret_cast<const C*>(grad);
  C* to = reinterpret_cast<C*>(grad_x);
  if (!block.in_place) {
    load_block(scratch.x, x, block.entries, padded);
    first = scratch.x;
    to = scratch.grad;
  }
  if (arguments.hyperbolic) {
    from = scratch.grad;
    for (int64_t i = block.entries; i < padded; ++i) {
      scratch.grad[i] = 0;
    }
  } else if (!block.in_place) {
    load_block(scratch.grad, grad, block.entries, padded);
    from = scratch.grad;
  }
  const auto input = [&](int64_t pass) { return pass == 0 ? first : scratch.inputs + (pass - 1) * scratch.block; };
  const int64_t needed = arguments.hyperbolic ? passes : passes - 1;
  MapsBlock maps{};
  for (int64_t line = 0; line < block.lines; line += kButterflyRows) {
    const int count = static_cast<int>(block.lines - line < kButterflyRows ? block.lines - line : kButterflyRows);
    int64_t stage = 0;
    for (int64_t p = 0; p < needed; ++p) {
      const Pass pass = pass_at(plan, stage);
      run_pass(scratch.inputs + p * scratch.block + line * plan.width, input(p) + line * plan.width,
               stage_at<C>(arguments.arranged, plan, stage), plan, pass, count);
      stage += pass.count;
    }
  }
  if (arguments.hyperbolic) {
    pull_through_exp(arguments, block, maps, x, input(passes), grad, scratch.grad);
  }
  for (int64_t line = 0; line < block.lines; line += kButterflyRows) {
    const int count = static_cast<int>(block.lines - line < kButterflyRows ? block.lines - line : kButterflyRows);
    const C* upstream = from;
    int64_t stage = plan.stages;
    for (int64_t p = passes - 1; p >= 0; --p) {
      const Pass pass = pass_before(plan, stage);
      stage = pass.stage;
      run_pass_back(to + line * plan.width, upstream + line * plan.width, input(p) + line * plan.width,
                    stage_at<C>(scratch.gradient, plan, stage), stage_at<C>(arguments.arranged, plan, stage), plan,
                    pass, count);
      upstream = to;
    }
  }
  if (arguments.hyperbolic) {
    pull_through_log(arguments, block, maps, x, to);
  }
  if (!block.in_place) {
    store_block(grad_x, to, block.entries);
  }
}

// Chunks of rows, each with a gradient of the weight of its own.
template <class T>
void butterfly_backward(const ButterflyArguments& arguments, int64_t begin, int64_t end, void* memory) {
  using C = typename Compute<T>::type;
  const ButterflyPlan plan = butterfly_plan<C>(arguments);
  const int64_t dim = arguments.dim;
  const int64_t passes = count_passes(plan);
  const int64_t lines = block_lines<C>(plan, dim, passes + 2);
  const ButterflyScratch<C> scratch(memory, plan, passes, lines);
  const int64_t size = plan.stages * 2 * plan.width;
  for (int64_t index = begin; index < end; ++index) {
    double* total = static_cast<double*>(arguments.partial) + index * size;
    for (int64_t i = 0; i < size; ++i) {
      total[i] = 0.0;
      scratch.gradient[i] = 0;
    }
    const Chunk chunk = chunk_at(index, arguments.chunks, arguments.rows);
    const int64_t last = chunk.last * dim;
    int64_t since = 0;
    for (int64_t at = chunk.first * dim; at < last; at += lines * plan.width) {
      const Block block = block_at<T>(plan, dim, at, last, lines);
      butterfly_block_backward<T>(arguments, plan, block, passes, scratch);
      since += block.rows;
      if (since >= kRowsBetweenFlushes || at + lines * plan.width >= last) {
        for (int64_t i = 0; i < size; ++i) {
          total[i] += static_cast<double>(scratch.gradient[i]);
          scratch.gradient[i] = 0;
        }
        since = 0;
      }
    }
  }
}

}  // namespace STONE_NAMESPACE
