// Rows of any element type as vectors of float64. What a compiler makes of a loop that widens its elements and sums
// them is several times slower: it takes vectors apart to widen them and adds up the lanes one by one.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "stone/storage.h"
#include "machine/vector.h"

namespace STONE_NAMESPACE {

using Wide = Vector<double>;
constexpr int kWide = kLanes<double>;

STONE_FUNCTION Wide read_wide(const double* at) { return read(at); }
STONE_FUNCTION void write_wide(double* at, Wide value) { write(at, value); }

#if defined(__AVX512F__)
// With the mask of all lanes: the plain forms start from a register that is not set, of which compilers warn.
STONE_FUNCTION Wide read_wide(const float* at) {
  return reinterpret_cast<Wide>(_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(at)));
}
STONE_FUNCTION void write_wide(float* at, Wide value) {
  _mm256_storeu_ps(at, _mm512_maskz_cvtpd_ps(0xff, reinterpret_cast<__m512d>(value)));
}
#elif defined(__AVX2__)
STONE_FUNCTION Wide read_wide(const float* at) { return reinterpret_cast<Wide>(_mm256_cvtps_pd(_mm_loadu_ps(at))); }
STONE_FUNCTION void write_wide(float* at, Wide value) {
  _mm_storeu_ps(at, _mm256_cvtpd_ps(reinterpret_cast<__m256d>(value)));
}
#else
STONE_FUNCTION Wide read_wide(const float* at) {
  Wide value;
  for (int i = 0; i < kWide; ++i) {
    value[i] = static_cast<double>(at[i]);
  }
  return value;
}
STONE_FUNCTION void write_wide(float* at, Wide value) {
  for (int i = 0; i < kWide; ++i) {
    at[i] = static_cast<float>(value[i]);
  }
}
#endif

// Half-precision elements go through float32, which holds them exactly.
template <class T>
STONE_FUNCTION Wide read_wide(const T* at) {
  float single[kWide];
#pragma omp simd
  for (int i = 0; i < kWide; ++i) {
    single[i] = load(at[i]);
  }
  return read_wide(single);
}
template <class T>
STONE_FUNCTION void write_wide(T* at, Wide value) {
  float single[kWide];
  write_wide(single, value);
#pragma omp simd
  for (int i = 0; i < kWide; ++i) {
    at[i] = store<T>(single[i]);
  }
}

// The first `count` elements, fewer than a vector holds; 0 in the other lanes.
template <class T>
STONE_FUNCTION Wide read_part(const T* at, int64_t count) {
  T part[kWide] = {};
  memcpy(part, at, static_cast<size_t>(count) * sizeof(T));
  return read_wide(part);
}
template <class T>
STONE_FUNCTION void write_part(T* at, Wide value, int64_t count) {
  T part[kWide];
  write_wide(part, value);
  memcpy(at, part, static_cast<size_t>(count) * sizeof(T));
}

// Going through memory costs more than the rest of a short row.
#if defined(__AVX512F__)
STONE_FUNCTION __mmask8 first_lanes(int64_t count) { return static_cast<__mmask8>((1u << count) - 1u); }
STONE_FUNCTION Wide read_part(const float* at, int64_t count) {
  return reinterpret_cast<Wide>(_mm512_maskz_cvtps_pd(0xff, _mm256_maskz_loadu_ps(first_lanes(count), at)));
}
STONE_FUNCTION Wide read_part(const double* at, int64_t count) {
  return reinterpret_cast<Wide>(_mm512_maskz_loadu_pd(first_lanes(count), at));
}
STONE_FUNCTION void write_part(float* at, Wide value, int64_t count) {
  _mm256_mask_storeu_ps(at, first_lanes(count), _mm512_maskz_cvtpd_ps(0xff, reinterpret_cast<__m512d>(value)));
}
STONE_FUNCTION void write_part(double* at, Wide value, int64_t count) {
  _mm512_mask_storeu_pd(at, first_lanes(count), reinterpret_cast<__m512d>(value));
}
#elif defined(__AVX2__)
STONE_FUNCTION __m128i first_lanes(int64_t count) {
  return _mm_cmpgt_epi32(_mm_set1_epi32(static_cast<int>(count)), _mm_setr_epi32(0, 1, 2, 3));
}
STONE_FUNCTION Wide read_part(const float* at, int64_t count) {
  return reinterpret_cast<Wide>(_mm256_cvtps_pd(_mm_maskload_ps(at, first_lanes(count))));
}
STONE_FUNCTION Wide read_part(const double* at, int64_t count) {
  return reinterpret_cast<Wide>(_mm256_maskload_pd(at, _mm256_cvtepi32_epi64(first_lanes(count))));
}
STONE_FUNCTION void write_part(float* at, Wide value, int64_t count) {
  _mm_maskstore_ps(at, first_lanes(count), _mm256_cvtpd_ps(reinterpret_cast<__m256d>(value)));
}
STONE_FUNCTION void write_part(double* at, Wide value, int64_t count) {
  _mm256_maskstore_pd(at, _mm256_cvtepi32_epi64(first_lanes(count)), reinterpret_cast<__m256d>(value));
}
#endif

template <int half, class V>
STONE_FUNCTION double sum_of_lanes(V v) {
  const V sum = v + exchanged<half, double>(v);
  if constexpr (half > 1) {
    return sum_of_lanes<half / 2>(sum);
  } else {
    return sum[0];
  }
}
STONE_FUNCTION double sum_of(Wide v) { return sum_of_lanes<kWide / 2>(v); }

// A vector of a row: `read(x)` is that of the row x, with zeros beyond its end. With `far`, `read(x, ahead)` asks for what
// lies `ahead` elements further too: what the hardware fetches ahead ends with a page, and an address beyond the array
// does no harm.
template <bool far>
struct WholePart {
  int64_t at;
  template <class T>
  STONE_FUNCTION Wide operator()(const T* x, int64_t ahead = 0) const {
    if constexpr (far) __builtin_prefetch(x + at + ahead);
    return read_wide(x + at);
  }
};

template <bool far>
struct LastPart {
  int64_t at;
  int64_t count;
  template <class T>
  STONE_FUNCTION Wide operator()(const T* x, int64_t ahead = 0) const {
    if constexpr (far) __builtin_prefetch(x + at + ahead);
    return read_part(x + at, count);
  }
};

// Calls `step(read)` for each vector of a row.
template <bool far = false, class Step>
STONE_FUNCTION void for_wide(int64_t dim, const Step& step) {
  int64_t i = 0;
  for (; i + kWide <= dim; i += kWide) {
    step(WholePart<far>{i});
  }
  if (i < dim) {
    step(LastPart<far>{i, dim - i});
  }
}

// The same, with `write(y, value)` beside `read`.
template <class Step>
STONE_FUNCTION void map_wide(int64_t dim, const Step& step) {
  int64_t i = 0;
  for (; i + kWide <= dim; i += kWide) {
    step(WholePart<false>{i}, [i](auto* y, Wide value) __attribute__((always_inline)) { write_wide(y + i, value); });
  }
  if (i < dim) {
    const int64_t count = dim - i;
    step(LastPart<false>{i, count},
         [i, count](auto* y, Wide value) __attribute__((always_inline)) { write_part(y + i, value, count); });
  }
}

}  // namespace STONE_NAMESPACE
