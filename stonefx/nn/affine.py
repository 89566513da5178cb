"""What the linear layers share: a matrix, and a bias or none."""

from __future__ import annotations

import torch
from torch import nn

from .arguments import size
from .hyperbolic import HyperbolicLayer


class AffineLayer(HyperbolicLayer):
    """A layer from `in_features` to `out_features` with a weight and perhaps a bias.

    Args:
        in_features, out_features: dimensions of the two spaces.
        times: how many coordinates more than dimensions the points in and the rows of the weight have.
        c, bias, learn_curvature, device, dtype: those of the layers.

    Raises:
        TypeError, ValueError: as `HyperbolicLayer`, and for sizes.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        times: tuple[int, int],
        c: float,
        bias: bool,
        learn_curvature: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(c, learn_curvature, device, dtype)
        layer = type(self).__name__
        self.in_features = size(layer, "in_features", in_features)
        self.out_features = size(layer, "out_features", out_features)
        self.coordinates = self.in_features + times[0]
        rows = self.out_features + times[1]
        self.weight = nn.Parameter(torch.empty(rows, self.coordinates, device=device, dtype=dtype))
        self.register_bias(rows, bias, device, dtype)

    def reset_parameters(self) -> None:
        """Draw a weight that keeps the length of vectors on average; the bias is 0."""
        super().reset_parameters()
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, c={self._shown_curvature()}, "
            f"bias={self.bias is not None}"
        )
