// What a row formula sees of its rows: inner products, and the vectors that its result is a combination of.
//
// An operator maps rows x (and y, v) and numbers of the row (the curvature, a time) to
//   result = of[0] x + of[1] b + of[2] v        or a number, of[0],
// b being y, y - x or x + y, and every coefficient a function of the inner products ("moments") that the layout
// names. Differences and sums of rows are formed before they are squared: that is what keeps neighbours apart.
#pragma once

#include "stone/macros.h"

namespace STONE_NAMESPACE {

constexpr int kMaxMoments = 6;

// Of one entry of the rows, or of a vector of entries.
template <class S>
struct Terms {
  S at[kMaxMoments];
};

// x alone.
struct Single {
  static constexpr int kVectors = 1, kBasis = 1, kMoments = 1;
  static constexpr double kOfX = 0.0, kOfY = 0.0;  // b = kOfX x + kOfY y
  enum { kXX };
  template <class S>
  static STONE_FUNCTION Terms<S> terms(S x, S, S) { return {{x * x}}; }
};

// x and the norm of y, whose rows may have another length.
struct Separate {
  static constexpr int kVectors = 2, kBasis = 1, kMoments = 2;
  static constexpr double kOfX = 0.0, kOfY = 1.0;
  enum { kXX, kYY };
  template <class S>
  static STONE_FUNCTION Terms<S> terms(S x, S y, S) { return {{x * x, y * y}}; }
};

// x and b = y: a point and a tangent vector.
struct Tangent {
  static constexpr int kVectors = 2, kBasis = 2, kMoments = 3;
  static constexpr double kOfX = 0.0, kOfY = 1.0;
  enum { kXX, kYY, kXY };
  template <class S>
  static STONE_FUNCTION Terms<S> terms(S x, S y, S) { return {{x * x, y * y, x * y}}; }
};

// x and b = y - x: two points.
struct Difference {
  static constexpr int kVectors = 2, kBasis = 2, kMoments = 3;
  static constexpr double kOfX = -1.0, kOfY = 1.0;
  enum { kXX, kYY, kBB };
  template <class S>
  static STONE_FUNCTION Terms<S> terms(S x, S y, S) {
    const S b = y - x;
    return {{x * x, y * y, b * b}};
  }
};

struct DifferenceAndInner {
  static constexpr int kVectors = 2, kBasis = 2, kMoments = 4;
  static constexpr double kOfX = -1.0, kOfY = 1.0;
  enum { kXX, kYY, kBB, kXB };
  template <class S>
  static STONE_FUNCTION Terms<S> terms(S x, S y, S) {
    const S b = y - x;
    return {{x * x, y * y, b * b, x * b}};
  }
};

// kSS: the squared norm of x + y.
struct DifferenceAndSum {
  static constexpr int kVectors = 2, kBasis = 2, kMoments = 4;
  static constexpr double kOfX = -1.0, kOfY = 1.0;
  enum { kXX, kYY, kBB, kSS };
  template <class S>
  static STONE_FUNCTION Terms<S> terms(S x, S y, S) {
    const S b = y - x;
    const S s = x + y;
    return {{x * x, y * y, b * b, s * s}};
  }
};

// x and b = x + y.
struct Sum {
  static constexpr int kVectors = 2, kBasis = 2, kMoments = 4;
  static constexpr double kOfX = 1.0, kOfY = 1.0;
  enum { kXX, kYY, kBB, kXB };
  template <class S>
  static STONE_FUNCTION Terms<S> terms(S x, S y, S) {
    const S b = x + y;
    return {{x * x, y * y, b * b, x * b}};
  }
};

// x, b = y - x and v: two points and a tangent vector at the first. The result is linear in v.
struct Transport {
  static constexpr int kVectors = 3, kBasis = 3, kMoments = 6;
  static constexpr double kOfX = -1.0, kOfY = 1.0;
  enum { kXX, kYY, kBB, kXB, kXV, kBV };
  template <class S>
  static STONE_FUNCTION Terms<S> terms(S x, S y, S v) {
    const S b = y - x;
    return {{x * x, y * y, b * b, x * b, x * v, b * v}};
  }
};

// The coefficients of the result along x, b and v, then its time component if it has one; or the one number.
constexpr int kMaxCoefficients = 4;

template <class S, int N>
struct Coefficients {
  S of[N];
};

// The gradient of each row vector is a combination of grad, x, b and v.
struct VectorGradients {
  double of[3][4];
};

// `d` holds the derivatives of the loss for the moments, `of` the coefficients of the result along x, b and v.
template <class Layout>
STONE_FUNCTION VectorGradients vector_gradients(const double* d, const double* of) {
  VectorGradients g;
  STONE_UNROLL
  for (int v = 0; v < 3; ++v) {
    STONE_UNROLL
    for (int i = 0; i < 4; ++i) {
      g.of[v][i] = 0.0;
    }
  }
  double b_of_b = 0.0;  // d(loss)/db = b_of_b b + b_of_x x + b_of_v v, and through the result
  double b_of_x = 0.0;
  double b_of_v = 0.0;
  const double of_b = Layout::kBasis > 1 ? of[1] : 0.0;
  g.of[0][0] = of[0];
  g.of[0][1] = 2.0 * d[Layout::kXX];
  if constexpr (Layout::kVectors > 1) {
    constexpr bool plain = Layout::kOfX == 0.0;
    if constexpr (plain) {
      b_of_b = 2.0 * d[Layout::kYY];
      if constexpr (requires { Layout::kXY; }) {
        b_of_x = d[Layout::kXY];
        g.of[0][2] = d[Layout::kXY];
      }
    } else {
      b_of_b = 2.0 * d[Layout::kBB];
      if constexpr (requires { Layout::kXB; }) {
        b_of_x = d[Layout::kXB];
        g.of[0][2] = d[Layout::kXB];
      }
    }
    if constexpr (requires { Layout::kXV; }) {
      b_of_v = d[Layout::kBV];
      g.of[0][3] = d[Layout::kXV];
      g.of[2][0] = of[2];
      g.of[2][1] = d[Layout::kXV];
      g.of[2][2] = d[Layout::kBV];
    }
    // b = kOfX x + kOfY y carries its gradient to both.
    constexpr double of_x = Layout::kOfX;
    g.of[0][0] += of_x * of_b;
    g.of[0][1] += of_x * b_of_x;
    g.of[0][2] += of_x * b_of_b;
    g.of[0][3] += of_x * b_of_v;
    g.of[1][0] = of_b;
    g.of[1][1] = b_of_x;
    g.of[1][2] = b_of_b;
    g.of[1][3] = b_of_v;
    if constexpr (!plain) {
      // y = b - kOfX x
      g.of[1][1] += -2.0 * of_x * d[Layout::kYY];
      g.of[1][2] += 2.0 * d[Layout::kYY];
    }
    if constexpr (requires { Layout::kSS; }) {
      // x + y = 2 x + b
      g.of[0][1] += 4.0 * d[Layout::kSS];
      g.of[0][2] += 2.0 * d[Layout::kSS];
      g.of[1][1] += 4.0 * d[Layout::kSS];
      g.of[1][2] += 2.0 * d[Layout::kSS];
    }
  }
  return g;
}

}  // namespace STONE_NAMESPACE
