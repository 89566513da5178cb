// log(1 + t) and asinh(z) for arguments at least 0, without branches or calls, so that a loop becomes vector code.
#pragma once

#include "stone/scalar.h"
#include "stone/storage.h"

namespace STONE_NAMESPACE {

// sqrt alone would be that of double, whichever the argument. In float32 a GPU has roots and inverses that are right to
// a unit in the last place; those that are right to half of one branch, and keep it from working on many at once.
#if defined(__CUDA_ARCH__)
STONE_FUNCTION float square_root(float x) {
  float root;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(x));
  return root;
}
#else
STONE_FUNCTION float square_root(float x) { return sqrtf(x); }
#endif
STONE_FUNCTION double square_root(double x) { return sqrt(x); }

// For y from 1e-37 to 1e37.
#if defined(__CUDA_ARCH__)
STONE_FUNCTION float quotient(float x, float y) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(y));
  return x * inverse;
}
#else
STONE_FUNCTION float quotient(float x, float y) { return x / y; }
#endif
STONE_FUNCTION double quotient(double x, double y) { return x / y; }

// 1 + t = 2^k m with m in [3/4, 3/2): log1p(t) = k log(2) + log1p(f), f = m - 1 = 2^-k t + (2^-k - 1), which is exact
// for k = 0, so that small t keep their relative accuracy. At most 2 units in the last place; t up to 2^100.
STONE_FUNCTION float log1p_nonnegative(float t) {
  const float u = 1.0f + t;
  const uint32_t k = (float_to_bits(u) - float_to_bits(0.75f)) >> 23;
  const float power = float_from_bits((127u - k) << 23);
  const float f = t * power + (power - 1.0f);
  float p = -4.507711071e-02f;
  p = p * f + 1.046340923e-01f;
  p = p * f - 1.316138993e-01f;
  p = p * f + 1.447840019e-01f;
  p = p * f - 1.664729144e-01f;
  p = p * f + 1.999085769e-01f;
  p = p * f - 2.500009634e-01f;
  p = p * f + 3.333344922e-01f;
  const float f2 = f * f;
  return static_cast<float>(static_cast<int32_t>(k)) * static_cast<float>(kLog2) + (f + f2 * (p * f - 0.5f));
}

// The same with log1p(f) = 2 artanh(w), w = f / (2 + f), |w| <= 1/5; t up to 2^900.
STONE_FUNCTION double log1p_nonnegative(double t) {
  const double u = 1.0 + t;
  const uint64_t k = (to_bits(u) - to_bits(0.75)) >> 52;
  const double exponent = from_bits(k | 0x4330000000000000ULL) - 4503599627370496.0;
  const double power = from_bits((1023 - k) << 52);
  const double f = t * power + (power - 1.0);
  const double w = f / (2.0 + f);
  const double w2 = w * w;
  double p = 1.0 / 25.0;
  p = p * w2 + 1.0 / 23.0;
  p = p * w2 + 1.0 / 21.0;
  p = p * w2 + 1.0 / 19.0;
  p = p * w2 + 1.0 / 17.0;
  p = p * w2 + 1.0 / 15.0;
  p = p * w2 + 1.0 / 13.0;
  p = p * w2 + 1.0 / 11.0;
  p = p * w2 + 1.0 / 9.0;
  p = p * w2 + 1.0 / 7.0;
  p = p * w2 + 1.0 / 5.0;
  p = p * w2 + 1.0 / 3.0;
  return exponent * kLog2 + 2.0 * (w + w * w2 * p);
}

// asinh(z) = log1p(z + z^2 / (1 + sqrt(1 + z^2))), which does not cancel for small z; z^2 must not overflow.
template <class C>
STONE_FUNCTION C asinh_nonnegative(C z) {
  const C q = z * z;
  return log1p_nonnegative(z + quotient(q, C(1) + square_root(C(1) + q)));
}

}  // namespace STONE_NAMESPACE
