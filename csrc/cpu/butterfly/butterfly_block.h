// Rows of a butterfly as blocks of the type that is computed in: in place where the memory allows it, else copied.
#pragma once

#include "butterfly/butterfly_passes.h"
#include "rows/rows.h"

namespace STONE_NAMESPACE {

// The weight's gradient is summed in the type of computation over this many rows, and then in float64.
constexpr int64_t kRowsBetweenFlushes = 128;

// Lines of `width` entries in a block: few enough for the first-level cache, many enough for vector formulas.
template <class C>
inline int64_t block_lines(const ButterflyPlan& plan, int64_t dim, int64_t buffers) {
  const int64_t most = kBlock * dim / plan.width;
  const int64_t fitting = 24576 / (plan.width * static_cast<int64_t>(sizeof(C)) * buffers);
  const int64_t lines = (fitting < most ? fitting : most) / kButterflyRows * kButterflyRows;
  return lines < kButterflyRows ? kButterflyRows : lines;
}

template <class T>
constexpr bool kComputesInPlace = sizeof(T) == sizeof(typename Compute<T>::type);

// `entries` of a row-major array and zeros up to `padded`, as the type of computation.
template <class T>
inline void load_block(typename Compute<T>::type* to, const T* from, int64_t entries, int64_t padded) {
#pragma omp simd
  for (int64_t i = 0; i < entries; ++i) {
    to[i] = load(from[i]);
  }
  for (int64_t i = entries; i < padded; ++i) {
    to[i] = 0;
  }
}

template <class T>
inline void store_block(T* to, const typename Compute<T>::type* from, int64_t entries) {
#pragma omp simd
  for (int64_t i = 0; i < entries; ++i) {
    to[i] = store<T>(from[i]);
  }
}

// A block of `lines` lines that starts at an entry of the arrays; the last line may be short.
struct Block {
  int64_t at;
  int64_t entries;
  int64_t lines;
  int64_t first_row;
  int rows;
  bool in_place;
};

template <class T>
inline Block block_at(const ButterflyPlan& plan, int64_t dim, int64_t at, int64_t end, int64_t lines) {
  Block block;
  block.at = at;
  block.entries = end - at < lines * plan.width ? end - at : lines * plan.width;
  block.lines = (block.entries + plan.width - 1) / plan.width;
  block.first_row = at / dim;
  block.rows = static_cast<int>(block.entries / dim);
  block.in_place = kComputesInPlace<T> && block.entries % plan.width == 0 && plan.stages > 0;
  return block;
}

template <class C>
inline void run_block(C* to, const C* from, void* arranged, const ButterflyPlan& plan, int64_t lines) {
  for (int64_t line = 0; line < lines; line += kButterflyRows) {
    const int count = static_cast<int>(lines - line < kButterflyRows ? lines - line : kButterflyRows);
    run_stages(to + line * plan.width, from + line * plan.width, arranged, plan, count);
  }
}

}  // namespace STONE_NAMESPACE
