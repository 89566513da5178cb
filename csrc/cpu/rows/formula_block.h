// A row formula over a block of rows: values, or exact gradients by dual numbers. Only float64 numbers of the row are
// seen here, so that one compiled loop serves every element type.
#pragma once

#include "rows/rows.h"
#include "stone/formula_row.h"

namespace STONE_NAMESPACE {

constexpr int kMaxSlots = kMaxMoments + 2;  // moments, and the times of x and y

// Numbers of the rows of a block, a row of this table for each.
struct RowBlock {
  double moment[kMaxSlots][kBlock];
  double scalar[kMaxScalars][kBlock];
  double dot[kMaxCoefficients][kBlock];  // backward: the gradient along x, b, v and time; or that of the number
  double of[kMaxCoefficients][kBlock];   // forward: the coefficients
  double gradient[kMaxVectors][4][kBlock];
  double time_gradient[2][kBlock];
  double scalar_gradient[kMaxScalars][kBlock];
};

// What is the same for all rows of a block. It is read before the loop over rows: a number that might lie in the block
// would be read anew for each row, and a guard that is read where a condition holds keeps the loop from becoming vector
// code.
template <class Formula>
struct BlockConstants {
  double guard[kMaxGuards];
  double scalar[kMaxScalars];
};

template <class Formula>
STONE_FUNCTION BlockConstants<Formula> read_constants(const RowBlock& block, const double* guard) {
  BlockConstants<Formula> constants;
  STONE_UNROLL
  for (int i = 0; i < Slots<Formula>::kGuards; ++i) {
    constants.guard[i] = guard[i];
  }
  STONE_UNROLL
  for (int i = 0; i < Slots<Formula>::kScalars; ++i) {
    constants.scalar[i] = block.scalar[i][0];
  }
  return constants;
}

// One row of the block. The loops over rows hold nothing but this call: variables of the loop body itself would be
// made arrays over the rows, which keeps the loop from becoming vector code.
template <class Formula>
struct RowInput {
  double quantity[Slots<Formula>::kQuantities];
};

template <class Formula, bool shared>
STONE_FUNCTION RowInput<Formula> read_row(const RowBlock& block, const BlockConstants<Formula>& constants, int r) {
  using Sizes = Slots<Formula>;
  RowInput<Formula> input;
  STONE_UNROLL
  for (int i = 0; i < Sizes::kMoments; ++i) {
    input.quantity[i] = block.moment[i][r];
  }
  STONE_UNROLL
  for (int i = 0; i < Sizes::kScalars; ++i) {
    input.quantity[Sizes::kMoments + i] = shared ? constants.scalar[i] : block.scalar[i][r];
  }
  return input;
}

template <class Formula, bool shared>
STONE_FUNCTION void row_values(RowBlock& block, const BlockConstants<Formula>& constants, int r) {
  using Sizes = Slots<Formula>;
  const RowInput<Formula> input = read_row<Formula, shared>(block, constants, r);
  const auto result =
      Formula::template of<double>(input.quantity, input.quantity + Sizes::kMoments, constants.guard);
  STONE_UNROLL
  for (int i = 0; i < Sizes::kResults; ++i) {
    block.of[i][r] = result.of[i];
  }
}

template <class Formula, bool shared>
STONE_FUNCTION void row_gradients(RowBlock& block, const BlockConstants<Formula>& constants, int r) {
  using Sizes = Slots<Formula>;
  const RowInput<Formula> input = read_row<Formula, shared>(block, constants, r);
  double dot[Sizes::kResults];
  STONE_UNROLL
  for (int i = 0; i < Sizes::kResults; ++i) {
    dot[i] = block.dot[i][r];
  }
  const RowGradients<Formula> g = gradients_of_row<Formula>(input.quantity, dot, constants.guard);
  STONE_UNROLL
  for (int v = 0; v < Sizes::Layout::kVectors; ++v) {
    STONE_UNROLL
    for (int i = 0; i < 4; ++i) {
      block.gradient[v][i][r] = g.vectors.of[v][i];
    }
  }
  STONE_UNROLL
  for (int i = 0; i < Sizes::kTimes; ++i) {
    block.time_gradient[i][r] = g.quantity[Sizes::Layout::kMoments + i];
  }
  STONE_UNROLL
  for (int i = 0; i < Sizes::kScalars; ++i) {
    block.scalar_gradient[i][r] = g.quantity[Sizes::kMoments + i];
  }
}

template <class Formula>
STONE_FUNCTION double reach_of_row(const RowBlock& block, int r) {
  using Sizes = Slots<Formula>;
  const RowInput<Formula> input = read_row<Formula, false>(block, {}, r);
  return Formula::reach(input.quantity, input.quantity + Sizes::kMoments);
}

// Tells which rows reach beyond `near_times`; false where none does.
template <class Formula>
bool block_far(const RowBlock& block, bool* far, double near_times, int count) {
  double rows = 0.0;
  const int padded = whole_vectors(count);
#pragma omp simd reduction(+ : rows)
  for (int r = 0; r < padded; ++r) {
    rows += is_far(reach_of_row<Formula>(block, r), near_times) ? 1.0 : 0.0;
  }
  if (rows == 0.0) {
    return false;
  }
  for (int r = 0; r < count; ++r) {
    far[r] = is_far(reach_of_row<Formula>(block, r), near_times);
  }
  return true;
}

// With `shared` all rows have the numbers of the first.
template <class Formula, bool shared>
void block_values(RowBlock& block, const double* guard, int count) {
  const BlockConstants<Formula> constants = read_constants<Formula>(block, guard);
  const int padded = whole_vectors(count);
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    row_values<Formula, shared>(block, constants, r);
  }
}

template <class Formula, bool shared>
void block_gradients(RowBlock& block, const double* guard, int count) {
  const BlockConstants<Formula> constants = read_constants<Formula>(block, guard);
  const int padded = whole_vectors(count);
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    row_gradients<Formula, shared>(block, constants, r);
  }
}

}  // namespace STONE_NAMESPACE
