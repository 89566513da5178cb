// Entries of rows in another order: one at a time, or whole vectors where the order merges two ascending runs.
#pragma once

#include "stone/storage.h"
#include "stone/take_arguments.h"
#include "machine/vector.h"

namespace STONE_NAMESPACE {

template <int bytes>
struct WordOf;
template <>
struct WordOf<2> {
  using type = uint16_t;
  typedef uint16_t vector __attribute__((vector_size(kVectorBytes)));
  typedef uint16_t in_memory __attribute__((vector_size(kVectorBytes), aligned(2), may_alias));
};
template <>
struct WordOf<4> {
  using type = uint32_t;
  typedef uint32_t vector __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t in_memory __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
};
template <>
struct WordOf<8> {
  using type = uint64_t;
  typedef uint64_t vector __attribute__((vector_size(kVectorBytes)));
  typedef uint64_t in_memory __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
};

// One vector of the target: its lanes are picked from two vectors of the source, which start at `first` and `second`.
template <class T>
struct alignas(kVectorBytes) MergeStep {
  typename WordOf<sizeof(T)>::type lane[kLanes<T>];
  int32_t first;
  int32_t second;
};

template <class T>
STONE_FUNCTION typename WordOf<sizeof(T)>::vector pick(const T* row, const MergeStep<T>& step) {
  using Word = WordOf<sizeof(T)>;
  const auto a = *reinterpret_cast<const typename Word::in_memory*>(row + step.first);
  const auto b = *reinterpret_cast<const typename Word::in_memory*>(row + step.second);
  const auto lanes = *reinterpret_cast<const typename Word::in_memory*>(step.lane);
#if defined(__clang__)
  typename Word::vector picked;
  for (int i = 0; i < kLanes<T>; ++i) {
    picked[i] = lanes[i] < kLanes<T> ? a[lanes[i]] : b[lanes[i] - kLanes<T>];
  }
  return picked;
#else
  return __builtin_shuffle(typename Word::vector(a), typename Word::vector(b), typename Word::vector(lanes));
#endif
}

// The entries [from, count) of a row, one at a time.
template <class T>
STONE_FUNCTION void take_each(const TakeArguments& a, const T* source, T* target, int64_t from) {
  const int32_t* columns = a.columns;
  const int64_t count = a.count;
  if (a.adds) {
#pragma omp simd
    for (int64_t k = from; k < count; ++k) {
      target[k] = store<T>(load(target[k]) + load(source[columns[k]]));
    }
  } else if (a.bias != nullptr) {
    const T* bias = static_cast<const T*>(a.bias);
#pragma omp simd
    for (int64_t k = from; k < count; ++k) {
      target[k] = store<T>(load(source[columns[k]]) + load(bias[k]));
    }
  } else {
#pragma omp simd
    for (int64_t k = from; k < count; ++k) {
      target[k] = source[columns[k]];
    }
  }
}

STONE_FUNCTION void add_bias(float* target, const float* bias, WordOf<4>::vector picked) {
  write(target, reinterpret_cast<Vector<float>>(picked) + read(bias));
}
STONE_FUNCTION void add_bias(double* target, const double* bias, WordOf<8>::vector picked) {
  write(target, reinterpret_cast<Vector<double>>(picked) + read(bias));
}
template <class T>
STONE_FUNCTION void add_bias(T* target, const T* bias, typename WordOf<2>::vector picked) {
  T row[kLanes<T>];
  memcpy(row, &picked, sizeof row);
#pragma omp simd
  for (int i = 0; i < kLanes<T>; ++i) {
    target[i] = store<T>(load(row[i]) + load(bias[i]));
  }
}

template <class T>
void take_rows(const TakeArguments& a, int64_t begin, int64_t end, T* copy) {
  constexpr int lanes = kLanes<T>;
  const int64_t whole = a.plan == nullptr ? 0 : a.count / lanes;
  const MergeStep<T>* steps = static_cast<const MergeStep<T>*>(a.plan);
  const T* bias = static_cast<const T*>(a.bias);
  for (int64_t row = begin; row < end; ++row) {
    const T* source = static_cast<const T*>(a.source) + row * a.source_stride;
    T* target = static_cast<T*>(a.target) + row * a.target_stride;
    if (copy != nullptr) {
      memcpy(copy, source, static_cast<size_t>(a.count) * sizeof(T));
      source = copy;
    }
    if (bias != nullptr) {
      for (int64_t s = 0; s < whole; ++s) {
        add_bias(target + s * lanes, bias + s * lanes, pick(source, steps[s]));
      }
    } else {
      for (int64_t s = 0; s < whole; ++s) {
        *reinterpret_cast<typename WordOf<sizeof(T)>::in_memory*>(target + s * lanes) = pick(source, steps[s]);
      }
    }
    take_each(a, source, target, whole * lanes);
  }
}

// Fills `steps`, count / lanes of them; false where a vector of the target needs more than two of the source, one on
// each side of column `split`. Up to a vector is read beyond the end of a row.
template <class T>
bool plan_merge(const TakeArguments& a, int64_t split, void* memory) {
  constexpr int lanes = kLanes<T>;
  MergeStep<T>* steps = static_cast<MergeStep<T>*>(memory);
  bool fits = true;
  for (int64_t s = 0; s < a.count / lanes; ++s) {
    const int32_t* columns = a.columns + s * lanes;
    int32_t first = INT32_MAX, second = INT32_MAX;
    for (int i = 0; i < lanes; ++i) {
      const bool below = columns[i] < split;
      first = below && columns[i] < first ? columns[i] : first;
      second = !below && columns[i] < second ? columns[i] : second;
    }
    // A vector without entries of one side reads the other twice.
    first = first == INT32_MAX ? second : first;
    second = second == INT32_MAX ? first : second;
    MergeStep<T>& step = steps[s];
    step.first = first;
    step.second = second;
    for (int i = 0; i < lanes; ++i) {
      const bool below = columns[i] < split;
      const int32_t lane = columns[i] - (below ? first : second);
      fits = fits && lane < lanes;
      step.lane[i] = static_cast<typename WordOf<sizeof(T)>::type>(below ? lane : lane + lanes);
    }
  }
  return fits;
}

}  // namespace STONE_NAMESPACE
