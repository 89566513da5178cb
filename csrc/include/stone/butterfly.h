// One block of a butterfly stage, [[a, b], [-b, a]] on a pair of entries; V is a number or a vector of numbers.
#pragma once

#include "stone/macros.h"

namespace STONE_NAMESPACE {

template <class V>
STONE_FUNCTION void rotate(const V& a, const V& b, V& low, V& high) {
  const V first = a * low + b * high;
  high = a * high - b * low;
  low = first;
}

// The gradient of the pair, from that of its image: the transposed block.
template <class V>
STONE_FUNCTION void rotate_back(const V& a, const V& b, V& grad_low, V& grad_high) {
  const V first = a * grad_low - b * grad_high;
  grad_high = a * grad_high + b * grad_low;
  grad_low = first;
}

// Adds the gradients of a and b; `low` and `high` are the pair before the stage.
template <class V>
STONE_FUNCTION void add_block_gradient(V& grad_a, V& grad_b, const V& grad_low, const V& grad_high, const V& low,
                                       const V& high) {
  grad_a += grad_low * low + grad_high * high;
  grad_b += grad_low * high - grad_high * low;
}

}  // namespace STONE_NAMESPACE
