// The arguments of what follows the matrix product in hyperbolic linear layers, over all rows.
#pragma once

#include "stone/types.h"

namespace stone {

// `min_norm` and the limits act as those of logmap0 and expmap0; `project_limit` bounds sqrt(c) ||y||.
struct PoincareLinearGuards {
  RadialGuards log;
  RadialGuards exp;
  MobiusGuards mobius;
  double project_limit;
  bool adds;  // whether there is a point to add: the guards of the addition act on any
};

// x: [rows, in]; product, grad, y (or grad_product): [rows, out]; bias: [out] or null; all contiguous. Operand 0 of
// `map` is the curvature.
struct PoincareLinearArguments {
  Element element;
  int64_t in;
  int64_t out;
  int64_t rows;
  const void* x;
  const void* product;
  const void* bias;
  const void* grad;  // backward only
  void* y;           // the result, or grad_product
  void* grad_x;      // backward only
  void* grad_bias;   // backward only: [out]
  void* grad_c;      // backward only: one a row, float64 for float64 rows, else float32
  double* partial;   // backward only: [chunks, out], summed in order
  int64_t chunks;
  Curvature c;
  PoincareLinearGuards guards;
  RowMap map;
};

// space: [rows, dim]; y: [rows, dim + 1] with time first. In the backward, grad is laid out as y and `y` as space.
struct AddTimeArguments {
  Element element;
  int64_t dim;
  const void* space;
  const void* grad;  // backward only
  void* y;           // the result, or grad_space
  void* grad_c;      // backward only, as above
  Curvature c;
  RowMap map;
};

}  // namespace stone
