"""`stone::lorentz_linear`: a linear map between hyperboloids, in the two forms that libraries have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..calling import Caller
from ..curvature import number, operand
from ..library import declare_composite
from ..rows.add_time import CALL
from ..rows.add_time import reference as add_time_reference
from ..rows.lorentz import RESCALE

_NAME = "lorentz_linear"
_RESCALE = Caller(RESCALE.name)


def reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, c: Tensor, scale: Tensor | None = None, **guards: float
) -> Tensor:
    """The map in plain torch, differentiable."""
    product = functional.linear(x, weight, bias)
    if scale is None:
        return add_time_reference(product, c)
    return RESCALE.evaluate(product, c, scale, **guards)


def _composite(suffix: str) -> Callable[..., Any]:
    def run(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        c: Tensor,
        scale: Tensor | None = None,
        **guards: float,
    ) -> Tensor:
        product = torch.ops.aten.linear.default(x, weight, bias)
        if scale is None:
            return getattr(torch.ops.stone, f"add_time{suffix}").default(product, c)
        return getattr(torch.ops.stone, f"lorentz_rescale{suffix}").default(product, c, scale, **guards)

    return run


declare_composite(
    _NAME,
    "Tensor x, Tensor weight, Tensor? bias, Tensor c, Tensor? scale=None, *, float offset=0, float min_squares=0",
    _composite,
)


def lorentz_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    c: float | Tensor = 1.0,
    scale: float | Tensor | None = None,
    *,
    offset: float = 1.1,
    min_squares: float = 0.0,
) -> Tensor:
    """Map points of a hyperboloid to points of the hyperboloid of curvature `-c`.

    Without `scale` the space part is `W x + b`, over all of `x` with its time coordinate, and
    `t = sqrt(||W x + b||^2 + 1/c)`: the Lorentz linear layer of Hypformer (Yang et al. 2024), HyperCore and
    HyperbolicCV; `aten::linear` followed by `stone::add_time`.

    With `scale` it is that of HyboNet (Chen et al. 2022): for `(u, s) = W x + b` the time is `t = w / sqrt(c)`,
    `w = max(offset + scale sigmoid(u), 1)`, and the space part `sqrt((w^2 - 1) / (c ||s||^2)) s`, with `||s||^2` kept
    at `min_squares` or more; `aten::linear` followed by `stone::lorentz_rescale`. HyboNet has c = 1, offset 1.1,
    min_squares 1e-8 and a learned logarithm of `scale`. `s = 0` goes to the origin where `min_squares` is 0, and else
    off the hyperboloid, as there.

    Args:
        x: points, `[*batch, in]`, time first.
        weight: `[out, in]`, or with `scale` `[1 + out, in]`, the dtype of `x`.
        bias: one number for each row of `weight`, the dtype of `x`, or None.
        c: curvature of the result, a positive float, or a floating tensor that is 0-dim or broadcasts to
            `[*batch, 1]`.
        scale: None, or a finite float, or a floating tensor that is 0-dim or broadcasts to `[*batch, 1]`.
        offset, min_squares: numbers of the second form, at least 0.

    Returns:
        Points, `[*batch, 1 + out]`, time first.

    Raises:
        ValueError: a Python float `c` is not positive and finite, or a Python float `scale` is not finite.
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> lorentz_linear(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([[2.0, 1.0, 0.0], [2.0, 0.0, 1.0]]))
    tensor([3., 2., 2.])
    >>> lorentz_linear(torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 1.0], [3.0, 0.0]]), scale=1.8)
    tensor([2.0000, 1.7321])
    """
    product = functional.linear(x, weight, bias)
    curvature = operand(_NAME, product, c)
    if scale is None:
        return CALL(product, curvature)
    of_time = number(_NAME, "scale", product, scale)
    return _RESCALE(product, curvature, of_time, offset=offset, min_squares=min_squares)
