"""What keeps results finite and inside the model: bounds that depend on the dtype alone."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch


class Bounds(NamedTuple):
    """The bounds of one dtype.

    Args:
        eps: the spacing of its numbers at 1.
        gap: `1 - c ||x||^2` of a point of a ball is taken to be at least this, `eps`.
        radius: the largest `sqrt(c) ||x||` of a result, so that rounding leaves it inside: `1 - 2 eps`, and `1 - 8 eps`
            in float64, where the norm itself is known to rounding only.
        tangent: `artanh(radius)`, the length of a tangent vector at the origin that reaches `radius`.
        argument: the largest argument of cosh whose value the dtype holds, with room for a curvature below 1.
        margin: what `poincare.project` leaves to the boundary.
    """

    eps: float
    gap: float
    radius: float
    tangent: float
    argument: float
    margin: float


@cache
def bounds(dtype: torch.dtype) -> Bounds:
    """The bounds of a floating dtype.

    >>> bounds(torch.float32).radius
    0.9999997615814209
    """
    eps = torch.finfo(dtype).eps
    radius = 1 - (8 if dtype == torch.float64 else 2) * eps
    argument = min(math.log(torch.finfo(dtype).max) - 2, 690.0)
    return Bounds(eps, eps, radius, math.atanh(radius), argument, _MARGIN[dtype])


# geoopt's margins for float32 and float64; in the half types a point that close to the boundary is rounded onto it.
_MARGIN = {torch.float32: 4e-3, torch.float64: 1e-5, torch.bfloat16: 2**-6, torch.float16: 4e-3}
ALL = {dtype: bounds(dtype) for dtype in _MARGIN}


def of(x: torch.Tensor) -> Bounds:
    """The bounds of `x`, or those of float32 where the operator will refuse the dtype."""
    return ALL.get(x.dtype, ALL[torch.float32])
