// Vector registers of the instruction set at hand, as the compiler's own vector types.
#pragma once

#include "stone/storage.h"

namespace STONE_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
// Registers of a row of a tile: with four rows and what they are computed from, all that there are.
constexpr int kTileVectors = 4;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kTileVectors = 2;
#else
constexpr int kVectorBytes = 16;
constexpr int kTileVectors = 2;
#endif

template <class C>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
};
template <class C>
using Vector = typename VectorOf<C>::type;

template <class C>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(C));

template <class C>
STONE_FUNCTION Vector<C> load_vector(const C* source) {
  Vector<C> value;
  memcpy(&value, source, sizeof value);
  return value;
}

template <class C>
STONE_FUNCTION void store_vector(C* target, Vector<C> value) {
  memcpy(target, &value, sizeof value);
}

}  // namespace STONE_NAMESPACE
