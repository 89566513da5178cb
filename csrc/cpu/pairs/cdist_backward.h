// Gradients of distance matrices: for each panel of one operand, sums over all points of the other. Nothing is kept
// of the forward pass, and no matrix is made.
#pragma once

#include "pairs/cdist_forward.h"

namespace STONE_NAMESPACE {

// What the pairs of one point sum to, beside the weighted differences.
struct PairSums {
  double along;
  double curvature;
};

// A tile's row at its full length, beyond which `grad` is 0; `weights` come in as squared distances.
template <bool guarded, class C>
__attribute__((noinline)) PairSums row_gradients(C* __restrict weights, const C* __restrict grad,
                                                 const PairSide<C> side, const Panel<C>& y,
                                                 const PairScale<C> scale) {
  C along = C(0), curvature = C(0);
#pragma omp simd reduction(+ : along, curvature)
  for (int j = 0; j < kTile; ++j) {
    const PairGradient<C> g =
        pair_gradient<guarded>(grad[j], weights[j], side, PairSide<C>{y.weight[j], y.excess[j], y.passes[j]}, scale);
    weights[j] = g.weight;
    along += g.along;
    curvature += g.curvature;
  }
  return {static_cast<double>(along), static_cast<double>(curvature)};
}

// `weights` come in as squared distances.
template <bool guarded, class C>
inline PairSums weigh_pairs(C* weights, const C* grad, const Panel<C>& x, int i, const Panel<C>& y, int64_t dim,
                            const PairScale<C>& scale, double c, const CdistArguments& a) {
  double wide[kTile];
  if (a.product == nullptr && wide_squares(wide, weights, x, i, y, dim)) {
    const PairScale<double> exact = pair_scale<double>(c, a.guards);
    PairSums sums{0.0, 0.0};
    for (int j = 0; j < y.count; ++j) {
      const PairGradient<double> g = pair_gradient<guarded>(static_cast<double>(grad[j]), wide[j], wide_side(x, i, c),
                                                            wide_side(y, j, c), exact);
      weights[j] = static_cast<C>(g.weight);
      sums.along += g.along;
      sums.curvature += g.curvature;
    }
    return sums;
  }
  return row_gradients<guarded>(weights, grad, x.side(i), y, scale);
}

// From the gradient sums + along * image to that of the point, to which `more` is added where it is not null; returns
// the part of c, without that of `more`.
template <class T, class C>
inline double pull_back(T* result, const C* sums, double along, const C* point, const double* more,
                        const BallImage& image, Model model, int64_t dim) {
  double inner = 0.0;  // <image, sums>
  if (model != Model::kPoincare) {
#pragma omp simd reduction(+ : inner)
    for (int64_t k = 0; k < dim; ++k) {
      inner += static_cast<double>(sums[k]) * static_cast<double>(point[k]);
    }
  }
  const ImageGradient g = image_gradient(image, along, inner / image.factor);
  const double of_point = g.of_point / image.factor;
#pragma omp simd
  for (int64_t k = 0; k < dim; ++k) {
    const double value = g.of_sums * static_cast<double>(sums[k]) + of_point * static_cast<double>(point[k]) +
                         (more != nullptr ? more[k] : 0.0);
    result[k] = store<T>(static_cast<typename Compute<T>::type>(value));
  }
  return g.of_c;
}

// The sum of weight (x - y) is that of the weights times x, and of the products' gradient, -weight, times y.
template <class C>
inline void add_weights(PairSums* totals, const C* weights, int rows, int columns) {
  for (int i = 0; i < rows; ++i) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < columns; ++j) {
      sum += static_cast<double>(weights[i * kTile + j]);
    }
    totals[i].along += sum;
  }
}

// One side of the matrix: operand `side` (0: x, 1: y); `begin` and `end` count its panels.
template <class T, class C>
void cdist_backward(const CdistArguments& a, int side, void* scratch, int64_t begin, int64_t end) {
  using P = typename Compute<T>::type;
  const int64_t start = space_start(a.model), dim = a.dim - start, stride = padded<C>(dim);
  const int64_t own = side == 0 ? a.rows : a.columns, others = side == 0 ? a.columns : a.rows;
  const int64_t own_step = side == 0 ? a.columns : 1, other_step = side == 0 ? 1 : a.columns;
  const T* own_points = static_cast<const T*>(side == 0 ? a.x : a.y);
  const T* other_points = static_cast<const T*>(side == 0 ? a.y : a.x);
  CdistScratch<C> space(scratch, dim);
  Panel<C> x, y;
  x.points = space.x;
  x.transposed = nullptr;
  y.points = a.product == nullptr ? space.y : nullptr;
  y.transposed = a.product == nullptr ? space.transposed : nullptr;
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t matrix = panel / tiles(own), row = panel % tiles(own) * kTile;
    const double c = curvature_at(a.c, source_row(a.map, 2, matrix));
    const PairScale<C> scale = pair_scale<C>(c, a.guards);
    const int64_t own_first = source_row(a.map, side, matrix) * own + row;
    const int64_t other_first = source_row(a.map, 1 - side, matrix) * others;
    fill_panel(x, own_points + own_first * a.dim, a.dim, tile_size(own, row), a.model, c, a.guards.min_alpha);
    bool far[kTile] = {};
    memset(space.sums, 0, static_cast<size_t>(x.count * stride) * sizeof(C));
    PairSums totals[kTile] = {};
    for (int64_t column = 0; column < others; column += kTile) {
      fill_panel(y, other_points + (other_first + column) * a.dim, a.dim, tile_size(others, column), a.model, c,
                 a.guards.min_alpha);
      const int64_t first = matrix * a.rows * a.columns + row * own_step + column * other_step;
      load_tile(space.grad, static_cast<const T*>(a.grad) + first, own_step, other_step, x.count, y.count);
      if (a.product == nullptr) {
        square_tile(space.squares, x.points, y.transposed, dim, x.count, y.count);
      } else {
        product_tile(space.squares, static_cast<const P*>(a.product) + first, own_step, other_step, x, y);
      }
      for (int i = 0; i < x.count; ++i) {
        C* pairs = space.squares + i * kTile;
        C* upstream = space.grad + i * kTile;
        if (a.model == Model::kLorentz && any_far_pair<T>(pairs, x, i, y, c)) {
          if (!far[i]) {
            memset(space.far + i * dim, 0, static_cast<size_t>(dim) * sizeof(double));
            far[i] = true;
          }
          totals[i].curvature += c * far_gradients<T>(space.far + i * dim, upstream, pairs, x, i, y, dim, c);
        }
        const PairSums sums = changes_denominator(a.guards)
                                  ? weigh_pairs<true>(pairs, upstream, x, i, y, dim, scale, c, a)
                                  : weigh_pairs<false>(pairs, upstream, x, i, y, dim, scale, c, a);
        totals[i].along += sums.along;
        totals[i].curvature += sums.curvature;
      }
      if (a.product == nullptr) {
        weigh_tile(space.sums, space.squares, x.points, y.points, dim, x.count, y.count);
      } else {
        add_weights(totals, space.squares, x.count, y.count);
        if (side == 0) {
          store_tile(static_cast<P*>(a.grad_product) + first, space.squares, C(-1), a.columns, x.count, y.count);
        }
      }
    }
    for (int i = 0; i < x.count; ++i) {
      T* result = static_cast<T*>(side == 0 ? a.result : a.grad_y) + (matrix * own + row + i) * a.dim;
      if (start == 1) {
        result[0] = store<T>(0);
      }
      const double of_image =
          pull_back(result + start, space.sums + i * stride, totals[i].along, x.points + i * stride,
                    far[i] ? space.far + i * dim : nullptr, x.images[i], a.model, dim);
      // The pairs' own derivative for c is counted once, with x.
      const double of_pairs = side == 0 ? totals[i].curvature / c : 0.0;
      a.grad_c[matrix * (a.rows + a.columns) + (side == 0 ? 0 : a.rows) + row + i] =
          of_pairs + of_image;
    }
  }
}

}  // namespace STONE_NAMESPACE
