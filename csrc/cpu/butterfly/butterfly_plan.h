// How the stages of a butterfly are grouped into passes over the data, and how the CPU kernels lay out the weight.
#pragma once

#include "stone/butterfly_arguments.h"
#include "stone/storage.h"
#include "machine/vector.h"

namespace STONE_NAMESPACE {

// Rows that go through a pass together, so that each weight is loaded once for all of them.
constexpr int kButterflyRows = 4;

struct ButterflyPlan {
  int64_t stages;
  int levels;     // log2(dim)
  int inner;      // stages of a cycle that pair entries of one vector
  int64_t width;  // entries that are worked on as one row: short rows fill a vector together
};

// Neighbouring stages that one pass applies.
struct Pass {
  int64_t stage;
  int level;  // the stage pairs entries 2^level apart
  int count;
};

template <class C>
inline ButterflyPlan butterfly_plan(const ButterflyArguments& arguments) {
  const int levels = log2_of(arguments.dim);
  const int vector_levels = log2_of(kLanes<C>);
  const int64_t width = arguments.dim < kLanes<C> ? kLanes<C> : arguments.dim;
  return {arguments.stages, levels, levels < vector_levels ? levels : vector_levels, width};
}

// Stages within a vector go together; those above, two by two.
inline Pass pass_at(const ButterflyPlan& plan, int64_t stage) {
  const int level = static_cast<int>(stage % plan.levels);
  const int together = level < plan.inner ? plan.inner : 2;
  const int64_t left = plan.stages - stage;
  int count = together < plan.levels - level ? together : plan.levels - level;
  count = count < left ? count : static_cast<int>(left);
  return {stage, level, count};
}

// The pass that ends before `stage`, which is where one ends.
inline Pass pass_before(const ButterflyPlan& plan, int64_t stage) {
  int64_t begin = stage - 1 - (stage - 1) % plan.levels;
  Pass pass = pass_at(plan, begin);
  while (pass.stage + pass.count < stage) {
    pass = pass_at(plan, pass.stage + pass.count);
  }
  return pass;
}

inline int64_t count_passes(const ButterflyPlan& plan) {
  int64_t count = 0;
  for (int64_t stage = 0; stage < plan.stages; stage += pass_at(plan, stage).count) {
    ++count;
  }
  return count;
}

// The coefficients of a stage: [2, width]. Within a vector, entry i of the image is
// first[i] * x[i] + second[i] * x[i ^ 2^level]; above, `first` and `second` are a and b of each block, [width / 2].
template <class C>
inline C* stage_at(void* arranged, const ButterflyPlan& plan, int64_t stage) {
  return static_cast<C*>(arranged) + stage * 2 * plan.width;
}

template <class T>
void arrange_weight(const ButterflyArguments& arguments) {
  using C = typename Compute<T>::type;
  const ButterflyPlan plan = butterfly_plan<C>(arguments);
  const int64_t half = arguments.dim / 2;
  for (int64_t stage = 0; stage < plan.stages; ++stage) {
    const T* weight = static_cast<const T*>(arguments.weight) + stage * arguments.dim;
    C* first = stage_at<C>(arguments.arranged, plan, stage);
    C* second = first + plan.width;
    const int level = static_cast<int>(stage % plan.levels);
    if (level >= plan.inner) {
      for (int64_t block = 0; block < half; ++block) {
        first[block] = load(weight[2 * block]);
        second[block] = load(weight[2 * block + 1]);
      }
      continue;
    }
    const int64_t stride = int64_t{1} << level;
    for (int64_t i = 0; i < plan.width; ++i) {
      const int64_t entry = i & (arguments.dim - 1);
      const int64_t block = (entry >> (level + 1)) * stride + (entry & (stride - 1));
      const C b = load(weight[2 * block + 1]);
      first[i] = load(weight[2 * block]);
      second[i] = entry & stride ? -b : b;
    }
  }
}

// The gradient of the weight, from gradients of the arranged coefficients: [chunks, stages, 2, width], float64.
template <class T>
void collect_weight_gradient(const ButterflyArguments& arguments) {
  using C = typename Compute<T>::type;
  const ButterflyPlan plan = butterfly_plan<C>(arguments);
  const int64_t half = arguments.dim / 2;
  double* total = static_cast<double*>(arguments.partial);
  const int64_t size = plan.stages * 2 * plan.width;
  for (int64_t chunk = 1; chunk < arguments.chunks; ++chunk) {
    const double* more = total + chunk * size;
    for (int64_t i = 0; i < size; ++i) {
      total[i] += more[i];
    }
  }
  for (int64_t stage = 0; stage < plan.stages; ++stage) {
    T* grad = static_cast<T*>(arguments.grad_weight) + stage * arguments.dim;
    const double* first = total + stage * 2 * plan.width;
    const double* second = first + plan.width;
    const int level = static_cast<int>(stage % plan.levels);
    const int64_t stride = int64_t{1} << level;
    for (int64_t block = 0; block < half; ++block) {
      double a = 0.0;
      double b = 0.0;
      if (level >= plan.inner) {
        a = first[block];
        b = second[block];
      } else {
        const int64_t low = ((block >> level) << (level + 1)) + (block & (stride - 1));
        for (int64_t i = low; i < plan.width; i += arguments.dim) {
          a += first[i] + first[i + stride];
          b += second[i] - second[i + stride];
        }
      }
      grad[2 * block] = store<T>(static_cast<C>(a));
      grad[2 * block + 1] = store<T>(static_cast<C>(b));
    }
  }
}

}  // namespace STONE_NAMESPACE
