// A row formula over a block of rows: values, or exact gradients by dual numbers. Only float64 numbers of the row are
// seen here, so that one compiled loop serves every element type.
#pragma once

#include "rows.h"
#include "stone/formula_row.h"

namespace STONE_NAMESPACE {

constexpr int kMaxSlots = kMaxMoments + 2;  // moments, and the times of x and y where they are read

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

// One row of the block. The loops over rows hold nothing but this call: variables of the loop body itself would be
// made arrays over the rows, which keeps the loop from becoming vector code. So would a guard that is read where a
// condition holds: all are read first.
template <class Formula>
struct RowInput {
  double quantity[Slots<Formula>::kQuantities];
  double guard[kMaxGuards];
};

template <class Formula>
STONE_FUNCTION RowInput<Formula> read_row(const RowBlock& block, const double* guard, int r) {
  using Sizes = Slots<Formula>;
  RowInput<Formula> input;
  STONE_UNROLL
  for (int i = 0; i < Sizes::kMoments; ++i) {
    input.quantity[i] = block.moment[i][r];
  }
  STONE_UNROLL
  for (int i = 0; i < Sizes::kScalars; ++i) {
    input.quantity[Sizes::kMoments + i] = block.scalar[i][r];
  }
  STONE_UNROLL
  for (int i = 0; i < Sizes::kGuards; ++i) {
    input.guard[i] = guard[i];
  }
  return input;
}

template <class Formula>
STONE_FUNCTION void row_values(RowBlock& block, const double* guard, int r) {
  using Sizes = Slots<Formula>;
  const RowInput<Formula> input = read_row<Formula>(block, guard, r);
  const auto result =
      Formula::template of<double>(input.quantity, input.quantity + Sizes::kMoments, input.guard);
  STONE_UNROLL
  for (int i = 0; i < Sizes::kResults; ++i) {
    block.of[i][r] = result.of[i];
  }
}

template <class Formula>
STONE_FUNCTION void row_gradients(RowBlock& block, const double* guard, int r) {
  using Sizes = Slots<Formula>;
  const RowInput<Formula> input = read_row<Formula>(block, guard, r);
  double dot[Sizes::kResults];
  STONE_UNROLL
  for (int i = 0; i < Sizes::kResults; ++i) {
    dot[i] = block.dot[i][r];
  }
  const RowGradients<Formula> g = gradients_of_row<Formula>(input.quantity, dot, input.guard);
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
void block_values(RowBlock& block, const double* guard, int count) {
  const int padded = whole_vectors(count);
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    row_values<Formula>(block, guard, r);
  }
}

template <class Formula>
void block_gradients(RowBlock& block, const double* guard, int count) {
  const int padded = whole_vectors(count);
#pragma omp simd
  for (int r = 0; r < padded; ++r) {
    row_gradients<Formula>(block, guard, r);
  }
}

}  // namespace STONE_NAMESPACE
