"""`stone::lorentz_linear`: a linear map between hyperboloids, the time coordinate made from the space part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .add_time import CALL
from .add_time import reference as add_time_reference
from .curvature import operand
from .library import declare_composite

_NAME = "lorentz_linear"


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, c: Tensor) -> Tensor:
    """The map in plain torch, differentiable."""
    return add_time_reference(functional.linear(x, weight, bias), c)


def _composite(suffix: str) -> Callable[..., Any]:
    def run(x: Tensor, weight: Tensor, bias: Tensor | None, c: Tensor) -> Tensor:
        epilogue = getattr(torch.ops.stone, f"add_time{suffix}").default
        return epilogue(torch.ops.aten.linear.default(x, weight, bias), c)

    return run


declare_composite(_NAME, "Tensor x, Tensor weight, Tensor? bias, Tensor c", _composite)


def lorentz_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, c: float | Tensor = 1.0) -> Tensor:
    """Map points of a hyperboloid to points of the hyperboloid of curvature `-c`.

    The space part is `W x + b`, over all of `x` with its time coordinate, and `t = sqrt(||W x + b||^2 + 1/c)`: the
    Lorentz linear layer of Hypformer (Yang et al. 2024), HyperCore and HyperbolicCV. `aten::linear` followed by
    `stone::add_time`.

    Args:
        x: points, `[*batch, in]`, time first.
        weight: `[out, in]`, the dtype of `x`.
        bias: `[out]`, the dtype of `x`, or None.
        c: curvature of the result, a positive float, or a floating tensor that is 0-dim or broadcasts to
            `[*batch, 1]`.

    Returns:
        Points, `[*batch, 1 + out]`, time first.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> lorentz_linear(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([[2.0, 1.0, 0.0], [2.0, 0.0, 1.0]]))
    tensor([3., 2., 2.])
    """
    space = functional.linear(x, weight, bias)
    return CALL(space, operand(_NAME, space, c))
