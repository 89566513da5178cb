// Vector registers of the instruction set at hand, as the compiler's own vector types.
#pragma once

#include "stone/macros.h"

namespace STONE_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;
#endif

template <class C>
struct VectorOf;

template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef float in_memory __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
};

template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef double in_memory __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
};

template <class C>
using Vector = typename VectorOf<C>::type;

template <class C>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(C));

constexpr int log2_of(int64_t power) {
  int exponent = 0;
  while ((int64_t{1} << exponent) < power) {
    ++exponent;
  }
  return exponent;
}

template <class C>
STONE_FUNCTION Vector<C> read(const C* at) {
  return *reinterpret_cast<const typename VectorOf<C>::in_memory*>(at);
}

template <class C>
STONE_FUNCTION void write(C* at, Vector<C> value) {
  *reinterpret_cast<typename VectorOf<C>::in_memory*>(at) = value;
}

template <int... I>
struct Indices {};

template <int count, int... I>
struct Count : Count<count - 1, count - 1, I...> {};

template <int... I>
struct Count<0, I...> {
  using type = Indices<I...>;
};

template <int stride, class V, int... I>
STONE_FUNCTION V exchanged_at(V v, Indices<I...>) {
  return __builtin_shufflevector(v, v, (I ^ stride)...);
}

// Entry i of the result is entry i ^ stride, for a stride below the width.
template <int stride, class C>
STONE_FUNCTION Vector<C> exchanged(Vector<C> v) {
  if constexpr (stride < kLanes<C>) {
    return exchanged_at<stride>(v, typename Count<kLanes<C>>::type());
  }
  return v;
}

}  // namespace STONE_NAMESPACE
