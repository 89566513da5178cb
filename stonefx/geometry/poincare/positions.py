"""Where points of the Poincaré ball lie: kept inside, or brought to another model."""

from __future__ import annotations

import torch
from torch import Tensor

from stonefx.ops.calling import Caller
from stonefx.ops.curvature import operand

from ..bounds import of

_PROJECT = Caller("project")
_TO_LORENTZ = Caller("poincare_to_lorentz")
_TO_KLEIN = Caller("poincare_to_klein")

# geoopt's margins for float32 and float64; in the half types a point that close to the boundary is rounded onto it.
_MARGIN = {torch.float32: 4e-3, torch.float64: 1e-5, torch.bfloat16: 2**-6, torch.float16: 4e-3}


def project(x: Tensor, c: float | Tensor = 1.0, eps: float | None = None) -> Tensor:
    """Shorten rows that are longer than `(1 - eps) / sqrt(c)` to that.

    Args:
        x: any rows, `[*batch, dim]`.
        eps: the margin; by default 4e-3 for float32 and float16, 1e-5 for float64, 2^-6 for bfloat16.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> project(torch.tensor([3.0, 4.0]))
    tensor([0.5976, 0.7968])
    """
    margin = _MARGIN.get(x.dtype, 4e-3) if eps is None else eps
    return _PROJECT(x, operand("project", x, c), eps=margin)


def to_lorentz(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point of the hyperboloid, time first: `(1 + c ||x||^2, 2 sqrt(c) x) / (sqrt(c) (1 - c ||x||^2))`.

    Args:
        x: points, `[*batch, dim]`; the result is `[*batch, dim + 1]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> to_lorentz(torch.tensor([0.5, 0.0]))
    tensor([1.6667, 1.3333, 0.0000])
    """
    return _TO_LORENTZ(x, operand("to_lorentz", x, c), min_gap=of(x).gap)


def to_klein(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point of the Klein ball: `2 x / (1 + c ||x||^2)`.

    Args:
        x: points, `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> to_klein(torch.tensor([0.5, 0.0]))
    tensor([0.8000, 0.0000])
    """
    return _TO_KLEIN(x, operand("to_klein", x, c), max_radius=of(x).radius)
