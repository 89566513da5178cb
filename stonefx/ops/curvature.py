"""How the Python functions turn a curvature into an operand."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def operand(function: str, x: Tensor, c: float | Tensor) -> Tensor:
    """`c` as a tensor: a tensor as it is, a number as 0-dim float64 on the device of `x` (no host sync).

    Raises:
        ValueError: a number that is not positive and finite.

    >>> operand("expmap0", torch.zeros(2), 0.5)
    tensor(0.5000, dtype=torch.float64)
    """
    if isinstance(c, Tensor):
        return c
    if not 0 < c < math.inf:
        raise ValueError(
            f"{function}: the curvature c must be positive and finite, got {c}; the ball is c*||x||^2 < 1"
        )
    return torch.full((), c, dtype=torch.float64, device=x.device)


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd must see the call; a transform of `torch.func` may differentiate any tensor."""
    if torch._C._are_functorch_transforms_active():
        return True
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
