// Rows of operands whose batch dimensions broadcast: where row `r` of the result finds its rows.
#pragma once

#include "stone/macros.h"
#include "stone/types.h"

namespace STONE_NAMESPACE {

STONE_FUNCTION int64_t source_row(const RowMap& map, int operand, int64_t row) {
  if (map.depth == 1) {
    return row * map.stride[operand][0];
  }
  int64_t source = 0;
  for (int d = map.depth - 1; d > 0; --d) {
    const int64_t outer = row / map.extent[d];
    source += (row - outer * map.extent[d]) * map.stride[operand][d];
    row = outer;
  }
  return source + row * map.stride[operand][0];
}

}  // namespace STONE_NAMESPACE
