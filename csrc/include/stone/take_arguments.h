// The arguments of "take columns": each row of the target is entries of a row of the source, in another order.
#pragma once

#include "stone/types.h"

namespace stone {

// target[row, k] = source[row, column(k)], plus bias[k] or what the target held. On the CPU `column` is `columns[k]`
// itself. On the GPU column(k) is columns[k] below `split`, and columns[k] + `shift` from there on: the second part of a
// source row may begin where it is aligned; a column outside [0, limit) gives NaN.
struct TakeArguments {
  Element element;
  int64_t rows;
  int64_t count;          // entries of a target row
  int64_t source_stride;  // from row to row, in elements; so is the next
  int64_t target_stride;
  const void* source;
  void* target;
  const int32_t* columns;
  const void* bias;  // or null
  bool adds;         // to what the target held; then there is no bias
  const void* plan;  // CPU only: how whole vectors of a row are picked, or null
  int64_t split;     // GPU only, as are those below
  int64_t shift;
  int64_t limit;
};

}  // namespace stone
