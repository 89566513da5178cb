// The stages of a butterfly on `rows` rows of `width` entries, one behind the other in memory.
#pragma once

#include "butterfly/butterfly_plan.h"
#include "stone/butterfly.h"

namespace STONE_NAMESPACE {

template <int s>
struct Stage {
  static constexpr int value = s;
};

// Calls `step` for the stages 0 .. count - 1 of a cycle.
template <int count, int s = 0, class Step>
STONE_FUNCTION void over_stages(const Step& step) {
  if constexpr (s < count) {
    step(Stage<s>{});
    over_stages<count, s + 1>(step);
  }
}

// Stages 0 .. count - 1 of a cycle, within vectors. `to` may be `from`.
template <class C, int count>
inline void pass_within_vectors(C* to, const C* from, const C* coefficients, int64_t width, int rows) {
  using V = Vector<C>;
  for (int64_t i = 0; i < width; i += kLanes<C>) {
    V first[4];
    V second[4];
    for (int s = 0; s < count; ++s) {
      first[s] = read(coefficients + s * 2 * width + i);
      second[s] = read(coefficients + (s * 2 + 1) * width + i);
    }
    for (int r = 0; r < rows; ++r) {
      V x = read(from + r * width + i);
      over_stages<count>([&](auto stage) __attribute__((always_inline)) {
        constexpr int s = decltype(stage)::value;
        x = first[s] * x + second[s] * exchanged<(1 << s), C>(x);
      });
      write(to + r * width + i, x);
    }
  }
}

// The coefficients of two stages, of the blocks that the entries i, i + stride, i + 2 stride, i + 3 stride form.
template <class C>
struct FourEntries {
  Vector<C> a[4];
  Vector<C> b[4];
};

template <class C>
inline FourEntries<C> four_entries(const C* coefficients, int64_t width, int64_t block, int64_t stride) {
  FourEntries<C> four;
  for (int k = 0; k < 4; ++k) {
    const C* a = coefficients + (k / 2) * 2 * width + block + (k % 2) * stride;
    four.a[k] = read(a);
    four.b[k] = read(a + width);
  }
  return four;
}

// Two stages, `stride` and 2 * stride apart.
template <class C>
inline void pass_of_two(C* to, const C* from, const C* coefficients, int64_t width, int64_t stride, int rows) {
  using V = Vector<C>;
  for (int64_t group = 0; group < width; group += 4 * stride) {
    for (int64_t offset = 0; offset < stride; offset += kLanes<C>) {
      const FourEntries<C> four = four_entries(coefficients, width, group / 2 + offset, stride);
      for (int r = 0; r < rows; ++r) {
        const C* source = from + r * width + group + offset;
        V x0 = read(source), x1 = read(source + stride), x2 = read(source + 2 * stride), x3 = read(source + 3 * stride);
        rotate(four.a[0], four.b[0], x0, x1);
        rotate(four.a[1], four.b[1], x2, x3);
        rotate(four.a[2], four.b[2], x0, x2);
        rotate(four.a[3], four.b[3], x1, x3);
        C* target = to + r * width + group + offset;
        write(target, x0);
        write(target + stride, x1);
        write(target + 2 * stride, x2);
        write(target + 3 * stride, x3);
      }
    }
  }
}

template <class C>
inline void pass_of_one(C* to, const C* from, const C* coefficients, int64_t width, int64_t stride, int rows) {
  using V = Vector<C>;
  for (int64_t group = 0; group < width; group += 2 * stride) {
    for (int64_t offset = 0; offset < stride; offset += kLanes<C>) {
      const V a = read(coefficients + group / 2 + offset);
      const V b = read(coefficients + width + group / 2 + offset);
      for (int r = 0; r < rows; ++r) {
        const C* source = from + r * width + group + offset;
        V low = read(source), high = read(source + stride);
        rotate(a, b, low, high);
        C* target = to + r * width + group + offset;
        write(target, low);
        write(target + stride, high);
      }
    }
  }
}

template <class C>
inline void run_pass(C* to, const C* from, const C* coefficients, const ButterflyPlan& plan, const Pass& pass,
                     int rows) {
  if (pass.level < plan.inner) {
    switch (pass.count) {
      case 1:
        return pass_within_vectors<C, 1>(to, from, coefficients, plan.width, rows);
      case 2:
        return pass_within_vectors<C, 2>(to, from, coefficients, plan.width, rows);
      case 3:
        return pass_within_vectors<C, 3>(to, from, coefficients, plan.width, rows);
      default:
        return pass_within_vectors<C, 4>(to, from, coefficients, plan.width, rows);
    }
  }
  const int64_t stride = int64_t{1} << pass.level;
  if (pass.count == 2) {
    pass_of_two(to, from, coefficients, plan.width, stride, rows);
  } else {
    pass_of_one(to, from, coefficients, plan.width, stride, rows);
  }
}

// Rows of four vectors: `together` of them through the stages within vectors and the two above, without leaving the
// registers. The coefficients of the former are read where they are used, once for all these rows.
template <class C, int together>
STONE_FUNCTION void four_vectors(C* to, const C* from, const C* coefficients, const FourEntries<C>& four) {
  using V = Vector<C>;
  constexpr int lanes = kLanes<C>;
  constexpr int width = 4 * lanes;
  V x[together][4];
  STONE_UNROLL
  for (int k = 0; k < 4; ++k) {
    STONE_UNROLL
    for (int r = 0; r < together; ++r) {
      x[r][k] = read(from + r * width + k * lanes);
    }
  }
  over_stages<log2_of(lanes)>([&](auto stage) __attribute__((always_inline)) {
    constexpr int s = decltype(stage)::value;
    STONE_UNROLL
    for (int k = 0; k < 4; ++k) {
      const V first = read(coefficients + 2 * s * width + k * lanes);
      const V second = read(coefficients + (2 * s + 1) * width + k * lanes);
      STONE_UNROLL
      for (int r = 0; r < together; ++r) {
        x[r][k] = first * x[r][k] + second * exchanged<(1 << s), C>(x[r][k]);
      }
    }
  });
  STONE_UNROLL
  for (int r = 0; r < together; ++r) {
    rotate(four.a[0], four.b[0], x[r][0], x[r][1]);
    rotate(four.a[1], four.b[1], x[r][2], x[r][3]);
    rotate(four.a[2], four.b[2], x[r][0], x[r][2]);
    rotate(four.a[3], four.b[3], x[r][1], x[r][3]);
    STONE_UNROLL
    for (int k = 0; k < 4; ++k) {
      write(to + r * width + k * lanes, x[r][k]);
    }
  }
}

// A whole cycle of stages on rows of four vectors.
template <class C>
inline void pass_of_four_vectors(C* to, const C* from, const C* coefficients, int rows) {
  constexpr int lanes = kLanes<C>;
  constexpr int width = 4 * lanes;
  const FourEntries<C> four = four_entries(coefficients + log2_of(lanes) * 2 * width, width, 0, lanes);
  constexpr int together = kRegisters >= 32 ? 4 : 2;
  int r = 0;
  for (; r + together <= rows; r += together) {
    four_vectors<C, together>(to + r * width, from + r * width, coefficients, four);
  }
  for (; r < rows; ++r) {
    four_vectors<C, 1>(to + r * width, from + r * width, coefficients, four);
  }
}

// All stages: `from` is read by the first pass only.
template <class C>
inline void run_stages(C* to, const C* from, void* arranged, const ButterflyPlan& plan, int rows) {
  const bool in_registers = plan.width == 4 * kLanes<C>;
  for (int64_t stage = 0; stage < plan.stages;) {
    if (in_registers && stage % plan.levels == 0 && plan.stages - stage >= plan.levels) {
      pass_of_four_vectors(to, stage == 0 ? from : to, stage_at<C>(arranged, plan, stage), rows);
      stage += plan.levels;
      continue;
    }
    const Pass pass = pass_at(plan, stage);
    run_pass(to, stage == 0 ? from : to, stage_at<C>(arranged, plan, stage), plan, pass, rows);
    stage += pass.count;
  }
}

}  // namespace STONE_NAMESPACE
