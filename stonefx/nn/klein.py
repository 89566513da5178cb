"""A linear layer between Klein balls."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stonefx import ops
from stonefx.geometry import poincare

from .poincare_linear import PoincareLinear


class KleinLayer(PoincareLinear):
    """`PoincareLinear` on points of the Beltrami-Klein ball, where geodesics are straight lines.

    To the Poincaré ball, the Möbius linear layer, and back. Both balls share their tangent space at the origin up to a
    factor 2: `to_poincare(k) = expmap0(logmap0(k) / 2)`, with the maps of `stonefx.geometry.poincare`. Points on the
    boundary or beyond it are taken to be just inside; results are inside.

    Args:
        input_dim, output_dim: dimensions of the two balls.
        curvature: of both balls.
        bias: whether to add a point.
        learn_curvature: whether the curvature is learned.
        device, dtype: of the parameters; under autocast the layer computes in this dtype.

    Shapes: points `[*batch, input_dim]` to points `[*batch, output_dim]`.

    Raises:
        ValueError: the curvature is not positive and finite.
        RuntimeError: points of another dtype, size or device.

    >>> layer = KleinLayer(128, 64)
    >>> bool((layer(torch.full((3, 128), 100.0)).square().sum(-1) < 1).all())
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        curvature: float = 1.0,
        bias: bool = True,
        learn_curvature: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_dim, output_dim, curvature, bias, learn_curvature, device, dtype)

    def map_points(self, x: Tensor) -> Tensor:
        """See the class."""
        c = self.curvature
        inside = 1.0 - 2 * torch.finfo(x.dtype).eps
        tangent = ops.logmap0(x, c, atanh_limit=inside)
        y = super().map_points(ops.expmap0(0.5 * tangent, c))
        return ops.expmap0(2.0 * poincare.logmap0(y, c), c, tanh_limit=math.atanh(inside))
