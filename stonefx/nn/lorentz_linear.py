"""A linear layer between hyperboloids."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stonefx import ops

from .hyperbolic import HyperbolicLayer, xavier


class LorentzLinear(HyperbolicLayer):
    """The space part of the result is `W x + b`, over all coordinates of `x`; its time makes it a point.

    The Lorentz linear layer of Hypformer (Yang et al. 2024), HyperCore and HyperbolicCV:
    `stonefx.ops.lorentz_linear`.
    Whatever the input, the result is on the hyperboloid `-t^2 + ||s||^2 = -1/c`.

    Args:
        in_features, out_features: dimensions of the two hyperboloids, one less than the number of coordinates.
        c: curvature of the result.
        bias: whether to add `b`.
        learn_curvature: whether `c` is learned.
        device, dtype: of the parameters; under autocast the layer computes in this dtype.

    Shapes: points `[*batch, 1 + in_features]` to points `[*batch, 1 + out_features]`, time first.

    Raises:
        ValueError: the curvature is not positive and finite.
        RuntimeError: points of another dtype, size or device.

    >>> layer = LorentzLinear(8, 4)
    >>> layer
    LorentzLinear(in_features=8, out_features=4, c=1, bias=True)
    >>> layer(ops.add_time(torch.zeros(3, 8))).shape
    torch.Size([3, 5])
    """

    bias: nn.Parameter | None

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
        super().__init__(c, learn_curvature, device, dtype)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = xavier(out_features, in_features + 1, device=device, dtype=dtype)
        zeros = torch.zeros(out_features, device=device, dtype=dtype)
        self.register_parameter("bias", nn.Parameter(zeros) if bias else None)

    def map_points(self, x: Tensor) -> Tensor:
        """See the class."""
        return ops.lorentz_linear(x, self.weight, self.bias, self.curvature)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, c={self._shown_curvature()}, "
            f"bias={self.bias is not None}"
        )
