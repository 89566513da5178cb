"""What the layers share: a curvature that may be learned, and the dtype they compute in."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def radius(dtype: torch.dtype) -> float:
    """The largest `sqrt(c) ||y||` of a result: `1 - 4e-3` as geoopt has it, `1 - 1e-5` in float64.

    Closer to the boundary gradients grow as `1 / (1 - c ||y||^2)`, and bfloat16 has no number in between.

    >>> radius(torch.float32), radius(torch.bfloat16)
    (0.996, 0.984375)
    """
    margin = 1e-5 if dtype == torch.float64 else 4e-3
    return 1.0 - max(margin, 2 * torch.finfo(dtype).eps)


class HyperbolicLayer(nn.Module):
    """A layer with a curvature; a fixed one is a buffer, a learned one the exponential of a parameter.

    Under autocast a layer computes in the dtype of its parameters: bfloat16 has too few digits near the boundary.

    Args:
        curvature: `c > 0`, of the space of curvature `-c`.
        learn_curvature: whether `log_curvature` is a parameter, so that `c` stays positive under any optimizer.

    Raises:
        ValueError: the curvature is not positive and finite.
    """

    log_curvature: Tensor | None
    fixed_curvature: Tensor | None

    def __init__(
        self,
        curvature: float,
        learn_curvature: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 0 < curvature < math.inf:
            raise ValueError(
                f"{type(self).__name__}: the curvature must be positive and finite, got {curvature}; the space has "
                "curvature -c"
            )
        self.learn_curvature = learn_curvature
        value = torch.tensor(curvature, device=device, dtype=dtype or torch.get_default_dtype())
        self.register_parameter("log_curvature", nn.Parameter(value.log()) if learn_curvature else None)
        self.register_buffer("fixed_curvature", None if learn_curvature else value)

    @property
    def curvature(self) -> Tensor:
        """`c`, 0-dim."""
        if self.log_curvature is not None:
            return self.log_curvature.exp()
        assert self.fixed_curvature is not None
        return self.fixed_curvature

    def forward(self, x: Tensor) -> Tensor:
        """Map points `[*batch, in]` to points `[*batch, out]`."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self.map_points(x.to(next(self.parameters()).dtype))
        return self.map_points(x)

    def map_points(self, x: Tensor) -> Tensor:
        """The layer itself, on points of the dtype of its parameters, without autocast."""
        raise TypeError(f"{type(self).__name__} is not a layer: it defines no map_points")

    def _shown_curvature(self) -> str:
        learned = ", learn_curvature=True" if self.learn_curvature else ""
        return f"{float(self.curvature.detach()):g}{learned}"


def xavier(out_features: int, in_features: int, **factory: object) -> nn.Parameter:
    """A weight that keeps the length of tangent vectors on average, `[out, in]`."""
    weight = torch.empty(out_features, in_features, **factory)  # type: ignore[call-overload]
    return nn.Parameter(nn.init.xavier_uniform_(weight))
