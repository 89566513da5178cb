// Plain data that kernels and launchers share.
#pragma once

#include <cstdint>

namespace stone {

struct BFloat16 {
  uint16_t bits;
};

struct Half {
  uint16_t bits;
};

enum class Element : int { kFloat32, kFloat64, kBFloat16, kFloat16 };

// The curvature operand: any floating type in memory, or one number where `data` is null.
struct Curvature {
  const void* data;
  Element element;
  double value;
};

// What keeps a norm from being zero.
struct NormGuards {
  double square_offset;
  double min_norm;
  double norm_offset;
  double min_scaled;
};

// The guards of expmap0 and logmap0; a limit of 1e308 never takes effect. Where `separate` is set, the norm in the
// argument of tanh or artanh has the guards `argument`, and that in the denominator the others.
struct RadialGuards {
  double square_offset;
  double min_norm;
  double norm_offset;
  double min_scaled;
  double limit;
  bool nan_at_zero;
  bool separate = false;
  NormGuards argument{};
};

struct MobiusGuards {
  double min_denominator;  // 0: no clamp
  double denominator_offset;
  double max_radius;  // of sqrt(c) ||z||; 1e308 never takes effect
};

// min_alpha: 0 is no clamp; atanh_limit: 1 or more is none.
struct CdistGuards {
  double min_alpha;
  double atanh_limit;
  double min_denominator;
  double denominator_offset;
};

// How the points of a distance matrix are given; their distances are those of their images in the Poincare ball.
enum class Model : int { kPoincare, kLorentz, kKlein };

constexpr int kMaxDepth = 6;
constexpr int kMaxOperands = 5;

constexpr int kMaxVectors = 3;
constexpr int kMaxScalars = 2;
constexpr int kMaxGuards = 6;

// The names of operands of one kind, and how many there are.
template <int kMax>
struct Names {
  template <class... Name>
  constexpr Names(Name... name) : size(sizeof...(Name)), of{name...} {}
  constexpr const char* operator[](int index) const { return of[index]; }

  int size;
  const char* of[kMax];
};

// An operator of rows as its schema has it: row vectors, then numbers of the row, then guards.
struct RowFormulaInfo {
  const char* name;
  Names<kMaxVectors> vectors;
  Names<kMaxScalars> scalars = {};
  bool gives_number = false;  // [*batch] and not [*batch, dim]
  bool time_in = false;       // rows begin with a time component
  bool time_out = false;
  Names<kMaxGuards> guards = {};
};

// The batch dimensions of operands that broadcast, neighbours merged where every operand allows it. Strides count
// rows of the operand; 0 repeats one.
struct RowMap {
  int depth;
  int64_t extent[kMaxDepth];
  int64_t stride[kMaxOperands][kMaxDepth];
};

}  // namespace stone
