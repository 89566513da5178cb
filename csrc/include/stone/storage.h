// Element types as they lie in memory, and their conversion to and from the type that is computed in: by an
// instruction of the GPU there, and by bits elsewhere, so that a loop becomes vector code.
#pragma once

#include "stone/macros.h"
#include "stone/types.h"

namespace STONE_NAMESPACE {

STONE_FUNCTION float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

STONE_FUNCTION uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// The type that elements of a row are multiplied in; sums over a row are float64 for all of them.
template <class T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};

STONE_FUNCTION float load(float x) { return x; }
STONE_FUNCTION double load(double x) { return x; }
STONE_FUNCTION float load(BFloat16 x) { return float_from_bits(static_cast<uint32_t>(x.bits) << 16); }

STONE_FUNCTION float load(Half x) {
#if defined(__CUDA_ARCH__)
  float converted;
  asm("cvt.f32.f16 %0, %1;" : "=f"(converted) : "h"(x.bits));
  return converted;
#else
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  // Moving the exponent by a product handles subnormals; infinity and NaN need their exponent restored.
  const float moved = float_from_bits(magnitude) * 5.192296858534828e33f;  // 2^112
  const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
  return float_from_bits(float_to_bits(moved) | special | sign);
#endif
}

template <class T>
STONE_FUNCTION T store(typename Compute<T>::type value) {
  return value;
}

template <>
STONE_FUNCTION BFloat16 store<BFloat16>(float value) {
#if defined(__CUDA_ARCH__)
  BFloat16 result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
#else
  const uint32_t bits = float_to_bits(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {static_cast<uint16_t>(value == value ? rounded : 0x7fc0u)};
#endif
}

template <>
STONE_FUNCTION Half store<Half>(float value) {
#if defined(__CUDA_ARCH__)
  Half result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
#else
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Normal range: move the exponent by 112 and round the 13 dropped bits to even.
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14: adding 1/2 lets the float adder round to a multiple of 2^-24.
  const uint32_t small = float_to_bits(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
  uint32_t result = magnitude < 0x38800000u ? small : normal;
  result = magnitude >= 0x477ff000u ? 0x7c00u : result;
  result = magnitude > 0x7f800000u ? 0x7e00u : result;
  return {static_cast<uint16_t>(sign | result)};
#endif
}

}  // namespace STONE_NAMESPACE
