// The arguments of butterfly and hyper_butterfly over all rows, on either device.
#pragma once

#include "stone/types.h"

namespace stone {

// x, grad, y (or grad_x): [rows, dim]; weight, grad_weight: [stages, dim / 2, 2]; all contiguous. `dim` is a power of
// two, 2 or more. Operand 0 of `map` is the curvature; it, the guards and grad_c count where `hyperbolic` is set.
struct ButterflyArguments {
  Element element;
  int64_t dim;
  int64_t stages;
  int64_t rows;
  const void* x;
  const void* weight;
  const void* grad;   // backward only
  void* y;            // the result, or grad_x
  void* grad_weight;  // backward only
  void* grad_c;       // backward only: one a row, float64 for float64 rows, else float32
  bool hyperbolic;
  Curvature c;
  RadialGuards log;
  RadialGuards exp;
  RowMap map;
  void* arranged;  // the weight as the kernels of one device want it
  void* partial;   // gradients of the weight, [chunks, ...]: summed in order, whatever the number of threads
  int64_t chunks;
};

}  // namespace stone
