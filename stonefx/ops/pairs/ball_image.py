"""Points of the Klein model as points `factor * x` of the Poincaré ball, and how gradients return from there.

`x / (1 + sqrt(a))`, `a = max(1 - c||x||^2, min_alpha)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .cdist import Sides, ball_distances, ball_gradients


@dataclass(frozen=True)
class Image:
    """The image of `points`, `[*batch, n, dim]`; all else is `[*batch, n, 1]`.

    Args:
        points: what is mapped.
        factor: the image is `factor * points`.
        alpha: `1 - c||image||^2`, without its cancellation.
        along, curvature: `grad_x = factor * g + along * <x, g> x` and `grad_c = curvature * <x, g>` for the gradient
            `g` of the image.
        moves: whether alpha has a gradient.
    """

    points: Tensor
    factor: Tensor
    alpha: Tensor
    along: Tensor
    curvature: Tensor
    moves: Tensor


def of_klein(x: Tensor, c: Tensor, min_alpha: float) -> Image:
    """The image of points of the Klein model."""
    squares = x.square().sum(-1, keepdim=True)
    raw = 1 - c * squares
    moves = raw >= min_alpha if min_alpha else torch.ones_like(raw, dtype=torch.bool)
    root = torch.where(moves, raw, min_alpha).sqrt()
    factor = 1 / (1 + root)
    rate = torch.where(moves, factor.square() / root, 0.0)
    return Image(x, factor, 2 * root * factor, c * rate, 0.5 * squares * rate, moves)


def _sides(x: Image, y: Image, c: Tensor) -> Sides:
    return Sides(x.factor * x.points, y.factor * y.points, c, x.alpha, y.alpha)


def distances(x: Image, y: Image, c: Tensor) -> Tensor:
    """Distances of all pairs, `[*batch, n, m]`, differentiable."""
    return ball_distances(_sides(x, y, c))


def gradients(grad: Tensor, x: Image, y: Image, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `distances` for the mapped points, and for one curvature a matrix, `[*batch, 1, 1]`."""
    of_x, of_y, of_c = ball_gradients(grad, _sides(x, y, c), (x.moves, y.moves))
    results = []
    for image, of_image in ((x, of_x), (y, of_y)):
        inner = (image.points * of_image).sum(-1, keepdim=True)
        results.append(image.factor * of_image + image.along * inner * image.points)
        of_c = of_c + (image.curvature * inner).sum(-2, keepdim=True)
    return results[0], results[1], of_c
