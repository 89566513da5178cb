"""What the layers share: a curvature that may be learned, and the dtype they compute in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stonefx.ops import checks

from . import arguments
from . import curvature as curvatures


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

    A curvature outside the interval in which layers stay finite (`curvature.interval`: `[2^-48, 2^48]`, in float16 its
    normal numbers, in float64 `[2^-256, 2^256]`) is taken to be at its end, whatever an optimizer, a conversion to
    another dtype or a loaded state brings. No gradient passes there, as in torch.clamp: from beyond the end, weight
    decay or a new value leads back.

    Args:
        curvature: `c > 0`, of the space of curvature `-c`.
        learn_curvature: whether `log_curvature`, `[1]`, is a parameter, so that `c` stays positive under any optimizer.
        device, dtype: of the parameters.

    Raises:
        TypeError: the curvature is not a number, or the layers do not compute in the dtype.
        ValueError: the curvature is not positive and finite, is not in the interval of the dtype, or is a tensor that
            requires a gradient.
    """

    coordinates: int  # of a point of the input
    map_points: Callable[..., Tensor]  # the layer itself, on points of the dtype of its parameters
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
        dtype = dtype or torch.get_default_dtype()
        self.initial_curvature = curvatures.check(type(self).__name__, curvature, dtype)
        self.learn_curvature = learn_curvature
        value = torch.empty((1,) if learn_curvature else (), device=device, dtype=dtype)
        # One-dimensional, as fully_shard takes no parameter without a dimension.
        self.register_parameter("log_curvature", nn.Parameter(value) if learn_curvature else None)
        self.register_buffer("fixed_curvature", None if learn_curvature else value)

    def register_bias(
        self, size: int, wanted: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        """Make the parameter `bias`, `[size]`, or none."""
        vector = torch.empty(size, device=device, dtype=dtype)
        self.register_parameter("bias", nn.Parameter(vector) if wanted else None)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the parameters anew and set the curvature given to the constructor; needed after `to_empty`."""
        if self.log_curvature is not None:
            self.log_curvature.fill_(math.log(self.initial_curvature))
        if self.fixed_curvature is not None:
            self.fixed_curvature.fill_(self.initial_curvature)

    @property
    def curvature(self) -> Tensor:
        """`c`, 0-dim; a learned one is float32 in a layer of a half type."""
        if self.log_curvature is not None:
            return curvatures.held_exp(self.log_curvature.reshape(()))
        assert self.fixed_curvature is not None
        return self.fixed_curvature

    def forward(self, x: Tensor) -> Tensor:
        """Map points `[*batch, in]` to points `[*batch, out]`.

        Raises:
            TypeError: `x` is not a tensor.
            RuntimeError: points of another dtype, size or device.
        """
        return self.run(x)

    def run(self, *points: Tensor, **options: Any) -> Tensor:
        """Check points and map them, without autocast."""
        # It has the dtype and the device of the parameters, and some layers have no others.
        own = self.fixed_curvature if self.log_curvature is None else self.log_curvature
        assert own is not None
        device = own.device.type
        # There is no autocast on some devices, meta among them, and torch refuses to be asked about it.
        autocasts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        for x in points:
            arguments.points(type(self).__name__, x, self.coordinates, own, converts=autocasts)
        if autocasts:
            with torch.autocast(device, enabled=False):
                return self.map_points(*(x.to(own.dtype) for x in points), **options)
        return self.map_points(*points, **options)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> HyperbolicLayer:
        before = self.fixed_curvature
        super()._apply(fn, recurse)
        # A learned curvature is held where it is used; a fixed one here, so that a forward does not pay for it.
        if (
            before is not None
            and self.fixed_curvature is not None
            and before.dtype != self.fixed_curvature.dtype
        ):
            self._hold()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any
    ) -> None:
        # States of earlier versions have it without a dimension.
        log = state_dict.get(name := f"{prefix}log_curvature")
        if isinstance(log, Tensor) and log.dim() == 0:
            state_dict[name] = log.reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *args, **options)
        if self.fixed_curvature is not None:
            self._hold()

    @torch.no_grad()
    def _hold(self) -> None:
        assert self.fixed_curvature is not None
        if self.fixed_curvature.dtype in checks.FLOATING:
            self.fixed_curvature.clamp_(*curvatures.interval(self.fixed_curvature.dtype))

    def _shown_curvature(self) -> str:
        learned = ", learn_curvature=True" if self.learn_curvature else ""
        value = self.curvature.detach()
        return f"{'unknown' if value.is_meta else format(float(value), 'g')}{learned}"
