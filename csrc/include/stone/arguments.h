// The arguments of a kernel over all rows, on either device.
#pragma once

#include "stone/types.h"

namespace stone {

// x, grad, y (or grad_x): [rows, dim], contiguous. Operand 0 of `map` is the curvature.
struct RadialArguments {
  Element element;
  int64_t dim;
  const void* x;
  const void* grad;     // backward only
  void* y;              // the result, or grad_x
  void* grad_c;         // backward only: one a row, float64 for float64 rows, else float32
  Curvature c;
  RadialGuards guards;
  RowMap map;
};

// grad and the results: [rows, dim], contiguous. Operands of `map`: x, y, curvature.
struct MobiusArguments {
  Element element;
  int64_t dim;
  const void* x;
  const void* y;
  const void* grad;     // backward only
  void* z;              // the result, or grad_x
  void* grad_y;         // backward only
  void* grad_c;         // backward only, as above
  Curvature c;
  MobiusGuards guards;
  RowMap map;
};

}  // namespace stone
