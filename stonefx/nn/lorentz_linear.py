"""A linear layer between hyperboloids."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from stonefx import ops

from .affine import AffineLayer
from .arguments import number

_OFFSET = 1.1


class LorentzLinear(AffineLayer):
    """A linear map of all coordinates, whose result is made a point: `stonefx.ops.lorentz_linear`.

    In the form "project" `W x + b` is the space part, and its time makes it a point: the layer of Hypformer (Yang et
    al. 2024), HyperCore and HyperbolicCV. In the form "rescale" the product gives the time too, between
    `1.1 / sqrt(c)` and `(1.1 + scale) / sqrt(c)` with a learned `scale`, and the space part is brought to the length
    that belongs to it: the layer of HyboNet (Chen et al. 2022), which holds points in a bounded part of the space.
    Whatever the input, the result is on the hyperboloid `-t^2 + ||s||^2 = -1/c`.

    Args:
        in_features, out_features: dimensions of the two hyperboloids, one less than the number of coordinates.
        c: curvature of the result.
        bias: whether to add `b`.
        form: "project" or "rescale".
        scale: of the form "rescale", before training; its logarithm is the parameter `log_scale`.
        learn_curvature: whether `c` is learned.
        device, dtype: of the parameters; under autocast the layer computes in this dtype.

    Shapes: points `[*batch, 1 + in_features]` to points `[*batch, 1 + out_features]`, time first.

    Raises:
        TypeError: a size, the curvature or the scale is not a number, or the points are not a tensor.
        ValueError: the curvature or the scale is not positive and finite, the dtype cannot hold the curvature, it is a
            tensor that requires a gradient, or there is no such form.
        RuntimeError: points of another dtype, size or device.

    >>> layer = LorentzLinear(8, 4)
    >>> layer
    LorentzLinear(in_features=8, out_features=4, c=1, bias=True)
    >>> layer(ops.add_time(torch.zeros(3, 8))).shape
    torch.Size([3, 5])
    """

    log_scale: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        c: float = 1.0,
        bias: bool = True,
        learn_curvature: bool = False,
        form: Literal["project", "rescale"] = "project",
        scale: float = 10.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        times = (1, int(form == "rescale"))
        super().__init__(in_features, out_features, times, c, bias, learn_curvature, device, dtype)
        if form not in ("project", "rescale"):
            raise ValueError(f"LorentzLinear: expected form 'project' or 'rescale', got {form!r}")
        self.initial_scale = number("LorentzLinear", "scale", scale)
        if not 0 < self.initial_scale < math.inf:
            raise ValueError(f"LorentzLinear: scale must be positive and finite, got {scale}")
        self.form = form
        log_scale = torch.empty((), device=device, dtype=dtype)
        self.register_parameter("log_scale", nn.Parameter(log_scale) if form == "rescale" else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a weight that keeps the length of vectors on average; no bias, the scale given to the constructor."""
        super().reset_parameters()
        if self.log_scale is not None:
            nn.init.constant_(self.log_scale, math.log(self.initial_scale))

    def map_points(self, x: Tensor) -> Tensor:
        """See the class."""
        scale = None if self.log_scale is None else self.log_scale.exp()
        return ops.lorentz_linear(x, self.weight, self.bias, self.curvature, scale, offset=_OFFSET)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return super().extra_repr() + (f", form={self.form!r}" if self.form != "project" else "")
