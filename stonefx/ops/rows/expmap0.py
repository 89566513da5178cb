"""`stone::expmap0`: the exponential map of the Poincaré ball at its origin."""

from __future__ import annotations

import torch
from torch import Tensor

from ..calling import Caller
from ..curvature import operand
from ..library import NO_LIMIT, declare
from . import radial


def slope(u: Tensor) -> Tensor:
    """The derivative of tanh."""
    return 1 - torch.tanh(u).square()


OPERATOR = radial.operator("expmap0", "x", "tanh_limit", torch.tanh, slope)
declare(OPERATOR)
_CALL = Caller("expmap0")
reference = OPERATOR.reference


def expmap0(
    x: Tensor,
    c: float | Tensor = 1.0,
    *,
    square_offset: float = 0.0,
    min_norm: float = 0.0,
    norm_offset: float = 0.0,
    min_scaled: float = 0.0,
    tanh_limit: float = NO_LIMIT,
    nan_at_zero: bool = False,
) -> Tensor:
    """Map tangent vectors at the origin into the Poincaré ball of curvature `-c`.

    `n = max(sqrt(||x||^2 + square_offset), min_norm) + norm_offset`, `u = max(sqrt(c) n, min_scaled)`,
    `y = tanh(min(u, tanh_limit)) / u * x` (Ganea et al. 2018, equation 8, with the guards that
    libraries add).
    The map runs in the dtype it is given, under autocast too. `torch.ops.stone.expmap0` takes guards of the
    argument that differ from those of the denominator (`separate`, `argument_*`); rewritten graphs have them.

    Args:
        x: tangent vectors, `[*batch, dim]`, float32, float64, bfloat16 or float16.
        c: curvature, a positive float, or a floating tensor that is 0-dim or broadcasts to `[*batch, 1]`.
            A tensor is not inspected: `c < 0` gives NaN, and so does `c = 0` unless `min_scaled > 0`.
        square_offset, min_norm, norm_offset, min_scaled, tanh_limit: the guards; the defaults are none.
        nan_at_zero: with no guard, give NaN for `x = 0`, as `0 / 0` does, and not the limit `y = x`.

    Returns:
        Points of the ball, `[*batch, dim]`, in the dtype of `x`. The gradient at 0 is the identity.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: a wrong dtype, shape or device, or a negative guard.

    >>> import torch
    >>> expmap0(torch.tensor([3.0, 4.0]), 0.01)
    tensor([2.7727, 3.6969])
    """
    curvature = operand("expmap0", x, c)
    return _CALL(
        x,
        curvature,
        square_offset=square_offset,
        min_norm=min_norm,
        norm_offset=norm_offset,
        min_scaled=min_scaled,
        tanh_limit=min(tanh_limit, NO_LIMIT),
        nan_at_zero=nan_at_zero,
    )
