"""A linear layer between Klein balls."""

from __future__ import annotations

import torch
from torch import Tensor

from stonefx.geometry import klein, poincare

from .poincare_linear import PoincareLinear


class KleinLayer(PoincareLinear):
    """`PoincareLinear` on points of the Beltrami-Klein ball, where geodesics are straight lines.

    To the Poincaré ball, the Möbius linear layer, and back. Points on the boundary or beyond it are taken to be just
    inside; results are inside.

    Args:
        input_dim, output_dim: dimensions of the two balls.
        curvature: of both balls.
        bias: whether to add a point.
        learn_curvature: whether the curvature is learned.
        device, dtype: of the parameters; under autocast the layer computes in this dtype.

    Shapes: points `[*batch, input_dim]` to points `[*batch, output_dim]`.

    Raises:
        TypeError: a size or the curvature is not a number, or the points are not a tensor.
        ValueError: the curvature is not positive and finite, the dtype cannot hold it, or it is a tensor that requires
            a gradient.
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
        return poincare.to_klein(super().map_points(klein.to_poincare(x, c)), c)
