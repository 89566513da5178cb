"""Multinomial logistic regression in the Poincaré ball."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stonefx import ops
from stonefx.geometry import poincare

from .arguments import size
from .hyperbolic import HyperbolicLayer, radius


class PoincareMLR(HyperbolicLayer):
    """Logits of points: signed, scaled distances to one hyperplane a class (Ganea et al. 2018, section 3.1).

    A hyperplane goes through `p = expmap0(offset)` with the normal `(1 - c||p||^2) weight`, the parallel transport of
    `weight` from the origin to `p`, so that all parameters are Euclidean. Points with `sqrt(c) ||x||` above `1 - 4e-3`
    (`1 - 1e-5` in float64) are projected to that radius, so that logits are finite.

    Args:
        in_features: dimension of the ball.
        num_classes: number of hyperplanes.
        c: curvature.
        learn_curvature: whether it is learned.
        device, dtype: of the parameters; under autocast the layer computes in this dtype.

    Shapes: points `[*batch, in_features]` to logits `[*batch, num_classes]`.

    Raises:
        TypeError: a size or the curvature is not a number, or the points are not a tensor.
        ValueError: the curvature is not positive and finite, the dtype cannot hold it, or it is a tensor that requires
            a gradient.
        RuntimeError: points of another dtype, size or device.

    >>> layer = PoincareMLR(8, 3)
    >>> layer
    PoincareMLR(in_features=8, num_classes=3, c=1)
    >>> layer(torch.zeros(5, 8)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        c: float = 1.0,
        learn_curvature: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(c, learn_curvature, device, dtype)
        self.in_features = self.coordinates = size("PoincareMLR", "in_features", in_features)
        self.num_classes = size("PoincareMLR", "num_classes", num_classes)
        self.weight = nn.Parameter(torch.empty(num_classes, in_features, device=device, dtype=dtype))
        self.offset = nn.Parameter(torch.empty(num_classes, in_features, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a weight that keeps the length of tangent vectors on average; the hyperplanes go through the origin."""
        super().reset_parameters()
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.offset)

    def map_points(self, x: Tensor) -> Tensor:
        """See the class."""
        c, limit = self.curvature, radius(x.dtype)
        p = ops.expmap0(self.offset, c, tanh_limit=math.atanh(limit))
        normals = (1 - c * p.square().sum(-1, keepdim=True)) * self.weight
        # Far outside the ball the product with the normals and the square of the length are beyond the dtype.
        return ops.poincare_mlr(poincare.project(x, c, eps=1 - limit), p, normals, c, min_alpha=1 - limit**2)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}, c={self._shown_curvature()}"
