"""A layer of the Poincaré ball with `N log N` operations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stonefx import ops
from stonefx.geometry import poincare

from .arguments import size
from .hyperbolic import HyperbolicLayer, radius


class HyperButterflyLayer(HyperbolicLayer):
    """`expmap0(B_L ... B_1 logmap0(x))`: a butterfly in the tangent space at the origin.

    It starts as a random rotation (each block has `a^2 + b^2 = 1`), which keeps every distance; training may leave
    the rotations. Points on the boundary or beyond it are taken to be just inside; results are projected to
    `sqrt(c) ||y|| <= 1 - 4e-3` (`1 - 1e-5` in float64).

    Args:
        dim: dimension of the ball, a power of two, 2 or more.
        num_layers: stages of the butterfly; `log2(dim)` of them mix every entry with every other.
        curvature: `c` of the ball of curvature `-c`.
        learn_curvature: whether it is learned.
        device, dtype: of the parameters; under autocast the layer computes in this dtype.

    Shapes: points `[*batch, dim]` to points `[*batch, dim]`.

    Raises:
        TypeError: a size is not an integer, the curvature is not a number, or the points are not a tensor.
        ValueError: `dim` is not a power of two, `num_layers` is negative, the curvature is not positive and finite, the
            dtype cannot hold it, or it is a tensor that requires a gradient.
        RuntimeError: points of another dtype, size or device.

    >>> layer = HyperButterflyLayer(8, 3, curvature=0.5)
    >>> layer
    HyperButterflyLayer(dim=8, num_layers=3, curvature=0.5)
    >>> x = torch.full((8,), 0.2)
    >>> torch.allclose(layer(x).norm(), x.norm())
    True
    """

    def __init__(
        self,
        dim: int,
        num_layers: int,
        curvature: float = 1.0,
        learn_curvature: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(curvature, learn_curvature, device, dtype)
        dim, num_layers = (
            size("HyperButterflyLayer", "dim", dim),
            size("HyperButterflyLayer", "num_layers", num_layers),
        )
        if dim < 2 or dim & (dim - 1) != 0:
            raise ValueError(
                f"HyperButterflyLayer: dim must be a power of two, 2 or more, got {dim}; pad the points with zeros"
            )
        self.dim = self.coordinates = dim
        self.num_layers = num_layers
        self.weight = nn.Parameter(torch.empty(num_layers, dim // 2, 2, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every block as a rotation by an angle uniform over the circle."""
        super().reset_parameters()
        with torch.no_grad():
            angle = torch.rand_like(self.weight[..., 0]) * (2 * math.pi)
            self.weight.copy_(torch.stack((angle.cos(), angle.sin()), -1))

    def map_points(self, x: Tensor) -> Tensor:
        """See the class."""
        return ops.hyper_butterfly(
            x,
            self.weight,
            self.curvature,
            atanh_limit=poincare.boundary(x.dtype),
            tanh_limit=math.atanh(radius(x.dtype)),
        )

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"dim={self.dim}, num_layers={self.num_layers}, curvature={self._shown_curvature()}"
