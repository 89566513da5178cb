// The curvature operand: any floating type in memory, or one number, read as float64.
#pragma once

#include "stone/broadcast.h"
#include "stone/storage.h"

namespace STONE_NAMESPACE {

STONE_FUNCTION double curvature_at(const Curvature& c, int64_t index) {
  if (c.data == nullptr) {
    return c.value;
  }
  switch (c.element) {
    case Element::kFloat64:
      return static_cast<const double*>(c.data)[index];
    case Element::kFloat32:
      return load(static_cast<const float*>(c.data)[index]);
    case Element::kBFloat16:
      return load(static_cast<const BFloat16*>(c.data)[index]);
    default:
      return load(static_cast<const Half*>(c.data)[index]);
  }
}

}  // namespace STONE_NAMESPACE
