"""A linear layer between Poincaré balls."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stonefx import ops
from stonefx.geometry import poincare

from .affine import AffineLayer
from .hyperbolic import radius


class PoincareLinear(AffineLayer):
    """`y = (W (*) x) (+) expmap0(b)`: the Möbius linear layer (Ganea et al. 2018, section 3.2).

    Points on the boundary or beyond it are taken to be where `logmap0` puts them, just inside; results are projected
    to `sqrt(c) ||y|| <= 1 - 4e-3` (`1 - 1e-5` in float64). The bias is a tangent vector at the origin, so that any
    optimizer may train it.

    Args:
        in_features, out_features: dimensions of the two balls.
        c: curvature, of both balls.
        bias: whether to add a point.
        learn_curvature: whether `c` is learned.
        device, dtype: of the parameters; under autocast the layer computes in this dtype.

    Shapes: points `[*batch, in_features]` to points `[*batch, out_features]`.

    Raises:
        TypeError: a size or the curvature is not a number, or the points are not a tensor.
        ValueError: the curvature is not positive and finite, the dtype cannot hold it, or it is a tensor that requires
            a gradient.
        RuntimeError: points of another dtype, size or device.

    >>> layer = PoincareLinear(8, 4, c=0.5)
    >>> layer
    PoincareLinear(in_features=8, out_features=4, c=0.5, bias=True)
    >>> bool((0.5 * layer(torch.full((3, 8), 100.0)).square().sum(-1) < 1).all())
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        c: float = 1.0,
        bias: bool = True,
        learn_curvature: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, (0, 0), c, bias, learn_curvature, device, dtype)
        self.reset_parameters()

    def map_points(self, x: Tensor) -> Tensor:
        """See the class."""
        c, limit = self.curvature, radius(x.dtype)
        point = None if self.bias is None else ops.expmap0(self.bias, c, tanh_limit=math.atanh(limit))
        return ops.poincare_linear(
            x,
            self.weight,
            point,
            c,
            atanh_limit=poincare.boundary(x.dtype),
            matvec_limit=limit,
            min_denominator=1e-15,
            project_limit=limit,
        )
