"""`stone::logmap0`: the logarithmic map of the Poincaré ball at its origin."""

from __future__ import annotations

import torch
from torch import Tensor

from ..calling import Caller
from ..curvature import operand
from ..library import NO_LIMIT, declare
from . import radial


def slope(u: Tensor) -> Tensor:
    """The derivative of artanh."""
    return 1 / ((1 - u) * (1 + u))


OPERATOR = radial.operator("logmap0", "y", "atanh_limit", torch.atanh, slope)
declare(OPERATOR)
_CALL = Caller("logmap0")
reference = OPERATOR.reference


def logmap0(
    y: Tensor,
    c: float | Tensor = 1.0,
    *,
    square_offset: float = 0.0,
    min_norm: float = 0.0,
    norm_offset: float = 0.0,
    min_scaled: float = 0.0,
    atanh_limit: float = NO_LIMIT,
    nan_at_zero: bool = False,
) -> Tensor:
    """Map points of the Poincaré ball of curvature `-c` to tangent vectors at the origin.

    `n = max(sqrt(||y||^2 + square_offset), min_norm) + norm_offset`, `u = max(sqrt(c) n, min_scaled)`,
    `x = artanh(min(u, atanh_limit)) / u * y` (Ganea et al. 2018, equation 9, with the guards
    that libraries add).
    The map runs in the dtype it is given, under autocast too. `torch.ops.stone.logmap0` takes guards of the
    argument that differ from those of the denominator (`separate`, `argument_*`); rewritten graphs have them.

    Args:
        y: points, `[*batch, dim]`, float32, float64, bfloat16 or float16.
        c: curvature, a positive float, or a floating tensor that is 0-dim or broadcasts to `[*batch, 1]`.
            A tensor is not inspected: `c < 0` gives NaN, and so does `c = 0` unless `min_scaled > 0`.
        square_offset, min_norm, norm_offset, min_scaled, atanh_limit: the guards; the defaults are none.
        nan_at_zero: with no guard, give NaN for `y = 0`, as `0 / 0` does, and not the limit `x = y`.

    Returns:
        Tangent vectors, `[*batch, dim]`, in the dtype of `y`. The gradient at 0 is the identity; without
        `atanh_limit`, points on the boundary give infinity and points outside NaN.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: a wrong dtype, shape or device, or a negative guard.

    >>> import torch
    >>> logmap0(torch.tensor([0.3, 0.4]))
    tensor([0.3296, 0.4394])
    """
    curvature = operand("logmap0", y, c)
    return _CALL(
        y,
        curvature,
        square_offset=square_offset,
        min_norm=min_norm,
        norm_offset=norm_offset,
        min_scaled=min_scaled,
        atanh_limit=min(atanh_limit, NO_LIMIT),
        nan_at_zero=nan_at_zero,
    )
