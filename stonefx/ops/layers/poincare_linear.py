"""`stone::poincare_linear`: a linear layer of the Poincaré ball, `aten::linear` and one operator behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..curvature import operand
from ..library import declare_composite
from .poincare_linear_epilogue import CALL, GUARDS
from .poincare_linear_epilogue import reference as epilogue_reference

_NAME = "poincare_linear"


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, c: Tensor, **options: float) -> Tensor:
    """The layer in plain torch, differentiable."""
    return epilogue_reference(x, functional.linear(x, weight), bias, c, **options)


def _composite(suffix: str) -> Callable[..., Any]:
    def run(x: Tensor, weight: Tensor, bias: Tensor | None, c: Tensor, **options: float) -> Tensor:
        epilogue = getattr(torch.ops.stone, f"poincare_linear_epilogue{suffix}").default
        return epilogue(x, torch.ops.aten.linear.default(x, weight), bias, c, **options)

    return run


declare_composite(_NAME, f"Tensor x, Tensor weight, Tensor? bias, Tensor c, *, {GUARDS}", _composite)


def poincare_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, c: float | Tensor = 1.0, **guards: float
) -> Tensor:
    """Multiply points of the Poincaré ball by a matrix, add a point, and project the sum.

    `y = project((W (*) x) (+) b)` with `W (*) x = expmap0(W logmap0(x))` and Möbius addition `(+)` (Ganea et al. 2018,
    section 3.2): `aten::linear` and one kernel behind it, instead of five row-wise operations.

    Args:
        x: points, `[*batch, in]`, float32, float64, bfloat16 or float16.
        weight: `[out, in]`, the dtype of `x`.
        bias: a point of the ball, `[out]`, the dtype of `x`, or None.
        c: curvature, a positive float, or a floating tensor that is 0-dim or broadcasts to `[*batch, 1]`.
        guards: `min_norm` (of `logmap0` and `expmap0`), `atanh_limit`, `tanh_limit`, `matvec_limit` (a projection of
            `W (*) x` to that scaled norm), `min_denominator` and `denominator_offset` (of the addition) and
            `project_limit` (a projection of the result to `sqrt(c) ||y|| <= project_limit`); none by default.

    Returns:
        Points, `[*batch, out]`, in the dtype of `x`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> poincare_linear(torch.tensor([0.5, 0.0]), 2 * torch.eye(2), project_limit=0.75)
    tensor([0.7500, 0.0000])
    """
    product = functional.linear(x, weight)
    return CALL(x, product, bias, operand(_NAME, x, c), **guards)
