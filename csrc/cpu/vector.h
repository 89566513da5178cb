// Vectors of the width that the instruction set has.
#pragma once

#include "stone/macros.h"

namespace STONE_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class C>
struct Vector;

template <>
struct Vector<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef float in_memory __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
};

template <>
struct Vector<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef double in_memory __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
};

template <class C>
constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(C));

constexpr int log2_of(int64_t power) {
  int exponent = 0;
  while ((int64_t{1} << exponent) < power) {
    ++exponent;
  }
  return exponent;
}

template <class C>
STONE_FUNCTION typename Vector<C>::type read(const C* at) {
  return *reinterpret_cast<const typename Vector<C>::in_memory*>(at);
}

template <class C>
STONE_FUNCTION void write(C* at, typename Vector<C>::type value) {
  *reinterpret_cast<typename Vector<C>::in_memory*>(at) = value;
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
STONE_FUNCTION typename Vector<C>::type exchanged(typename Vector<C>::type v) {
  if constexpr (stride < kWidth<C>) {
    return exchanged_at<stride>(v, typename Count<kWidth<C>>::type());
  }
  return v;
}

}  // namespace STONE_NAMESPACE
