// The image p = factor * x in the Poincare ball of a point x of another model, from ||x||^2 (of its space components
// on the hyperboloid) and c, and how a gradient for p returns to x and c:
//   grad_x = factor * grad_p + along * <x, grad_p> x,  grad_c = curvature * <x, grad_p>.
// Klein: p = x / (1 + sqrt(a)), a = 1 - c||x||^2. Hyperboloid: p = x_space / (1 + sqrt(c) x0), x0 formed from space.
#pragma once

#include <cmath>

#include "stone/macros.h"
#include "stone/types.h"

namespace STONE_NAMESPACE {

struct BallImage {
  double factor;
  double along;
  double curvature;
  double alpha;    // 1 - c||p||^2, without its cancellation
  double squares;  // ||p||^2
  bool clamped;    // whether alpha is held at min_alpha, and has no gradient
};

STONE_FUNCTION BallImage ball_image(Model model, double squares, double c, double min_alpha) {
  if (model == Model::kLorentz) {
    const double time = sqrt(1.0 + c * squares);  // sqrt(c) x0
    const double factor = 1.0 / (1.0 + time);
    const double squared = factor * factor;
    return {factor,        -c * squared / time, -0.5 * squares * squared / time,
            2.0 * factor,  squared * squares,   false};
  }
  const double a = 1.0 - c * squares;
  const bool clamped = (min_alpha > 0.0) & (a < min_alpha);
  const double alpha = clamped ? min_alpha : a;
  if (model == Model::kPoincare) {
    return {1.0, 0.0, 0.0, alpha, squares, clamped};
  }
  const double root = sqrt(alpha);
  const double factor = 1.0 / (1.0 + root);
  const double squared = factor * factor;
  return {factor,
          clamped ? 0.0 : c * squared / root,
          clamped ? 0.0 : 0.5 * squares * squared / root,
          2.0 * root * factor,
          squared * squares,
          clamped};
}

// grad_x = of_sums * sums + of_point * x, where the gradient of the image is sums + along * p.
struct ImageGradient {
  double of_sums;
  double of_point;
};

// `inner` is <x, grad_p>.
STONE_FUNCTION ImageGradient image_gradient(const BallImage& image, double along, double inner) {
  return {image.factor, along * image.factor * image.factor + image.along * inner};
}

}  // namespace STONE_NAMESPACE
