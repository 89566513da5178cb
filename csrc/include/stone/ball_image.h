// The image p = factor * x in the Poincare ball of a point x of another model, from ||x||^2 (of its space components
// on the hyperboloid) and c, and how a gradient for p returns to x and c. Where it is sums + along * p:
//   grad_x = factor * sums + (along * inward + bend * <x, sums>) x
//   grad_c = curvature * <x, sums> + curvature_along * along
// Klein: p = x / (1 + sqrt(a)), a = 1 - c||x||^2. Hyperboloid: p = x_space / (1 + sqrt(c) x0), x0 formed from space.
#pragma once

#include <cmath>

#include "stone/macros.h"
#include "stone/types.h"

namespace STONE_NAMESPACE {

struct BallImage {
  double factor;
  double bend;
  double inward;
  double curvature;
  double curvature_along;
  double alpha;    // 1 - c||p||^2, without its cancellation
  double squares;  // ||p||^2
  double excess;   // the derivative of -log(alpha) for log(c) at a fixed p; see below
  bool clamped;    // whether alpha is held at min_alpha, and has no gradient
};

STONE_FUNCTION BallImage ball_image(Model model, double squares, double c, double min_alpha) {
  if (model == Model::kLorentz) {
    // Far out the derivatives for c at fixed images and of the images cancel. By a curvature points are scaled and
    // distances scaled back: with an excess of -1/2 on either side a pair has the latter, -d / (2 c), alone.
    const double time = sqrt(1.0 + c * squares);  // sqrt(c) x0
    const double factor = 1.0 / (1.0 + time);
    const double inward = factor * factor / time, image = factor * factor * squares, scaled = 0.5 / (c * time);
    return {factor, -c * inward, inward, scaled * factor, scaled * image, 2.0 * factor, image, -0.5, false};
  }
  const double a = 1.0 - c * squares;
  const bool clamped = (min_alpha > 0.0) & (a < min_alpha);
  const double alpha = clamped ? min_alpha : a;
  if (model == Model::kPoincare) {
    return {1.0, 0.0, 1.0, 0.0, 0.0, alpha, squares, clamped ? 0.0 : c * squares / alpha, clamped};
  }
  const double root = sqrt(alpha);
  const double factor = 1.0 / (1.0 + root);
  const double squared = factor * factor, image = squared * squares, image_alpha = 2.0 * root * factor;
  const double bend = clamped ? 0.0 : c * squared / root, curvature = clamped ? 0.0 : 0.5 * squares * squared / root;
  return {factor,
          bend,
          squared + bend * factor * squares,
          curvature,
          curvature * factor * squares,
          image_alpha,
          image,
          clamped ? 0.0 : c * image / image_alpha,
          clamped};
}

// grad_x = of_sums * sums + of_point * x, and grad_c.
struct ImageGradient {
  double of_sums;
  double of_point;
  double of_c;
};

// `inner` is <x, sums>.
STONE_FUNCTION ImageGradient image_gradient(const BallImage& image, double along, double inner) {
  return {image.factor, along * image.inward + image.bend * inner,
          image.curvature * inner + image.curvature_along * along};
}

}  // namespace STONE_NAMESPACE
