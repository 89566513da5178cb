"""Multinomial logistic regression in the Poincaré ball."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stonefx import ops

from .hyperbolic import HyperbolicLayer, radius, xavier


class PoincareMLR(HyperbolicLayer):
    """Logits of points: signed, scaled distances to one hyperplane a class (Ganea et al. 2018, section 3.1).

    A hyperplane goes through `p = expmap0(offset)` with the normal `(1 - c||p||^2) weight`, the parallel transport of
    `weight` from the origin to `p`, so that all parameters are Euclidean. For points on the boundary or beyond it,
    `1 - c||x||^2` is taken as that of the radius `1 - 4e-3` (`1 - 1e-5` in float64), so that logits are finite.

    Args:
        in_features: dimension of the ball.
        num_classes: number of hyperplanes.
        c: curvature.
        learn_curvature: whether it is learned.
        device, dtype: of the parameters; under autocast the layer computes in this dtype.

    Shapes: points `[*batch, in_features]` to logits `[*batch, num_classes]`.

    Raises:
        ValueError: the curvature is not positive and finite.
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
        self.in_features = in_features
        self.num_classes = num_classes
        self.weight = xavier(num_classes, in_features, device=device, dtype=dtype)
        self.offset = nn.Parameter(torch.zeros(num_classes, in_features, device=device, dtype=dtype))

    def map_points(self, x: Tensor) -> Tensor:
        """See the class."""
        c, limit = self.curvature, radius(x.dtype)
        p = ops.expmap0(self.offset, c, tanh_limit=math.atanh(limit))
        normals = (1 - c * p.square().sum(-1, keepdim=True)) * self.weight
        return ops.poincare_mlr(x, p, normals, c, min_alpha=1 - limit**2)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}, c={self._shown_curvature()}"
