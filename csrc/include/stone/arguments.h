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

// x: [*its batch, rows, dim], y: [*its batch, columns, dim], contiguous; operands of `map`: x, y, curvature, and its
// rows are matrices. The result, or grad: [batch, rows, columns].
struct CdistArguments {
  Element element;
  Model model;
  int64_t batch;
  int64_t rows;
  int64_t columns;
  int64_t dim;
  const void* x;
  const void* y;
  const void* grad;  // backward only
  void* result;      // the distances, or grad_x: [batch, rows, dim]
  void* grad_y;      // backward only: [batch, columns, dim]
  double* grad_c;    // backward only: [batch, rows + columns], one for each row of x, then of y
  // The inner products of the points, [batch, rows, columns], in the type that rows are computed in; null where
  // differences are formed. Its gradient then stands for the weighted differences.
  const void* product;
  void* grad_product;  // backward only
  Curvature c;
  CdistGuards guards;
  RowMap map;
};

// Rows whose gradients for the hyperplanes are summed together.
constexpr int64_t kHyperplaneBlock = 64;

// product, grad and the result: [rows, planes]; x: [rows, dim]; offset and scale: [planes]; all contiguous.
struct HyperplaneArguments {
  Element element;
  int64_t rows;
  int64_t planes;
  int64_t dim;
  const void* product;
  const void* x;
  const void* offset;
  const void* scale;
  const void* grad;    // backward only
  void* result;        // the distances, or grad_product
  void* grad_x;        // backward only
  void* grad_planes;   // backward only: [blocks, 2, planes], of offset and of scale, in the type computed in
  void* grad_c;        // backward only: one a row, in the type computed in
  Curvature c;
  double min_alpha;
};

// Row vectors are [rows, width], contiguous; operands of `map`: the vectors, then the scalars.
struct RowArguments {
  Element element;
  int64_t width[kMaxVectors];
  int64_t result_width;
  const void* vector[kMaxVectors];
  Curvature scalar[kMaxScalars];  // read as a curvature is: of any floating type, or one number
  const void* grad;               // backward only
  void* result;                   // forward only
  void* grad_vector[kMaxVectors];
  void* grad_scalar[kMaxScalars];  // one a row, float64 for float64 rows, else float32
  double guard[kMaxGuards];
  RowMap map;
};

}  // namespace stone
