"""Calls of row operators: the operator where autograd must see the call, else its cheaper twin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .curvature import wants_gradient


class RowOperator:
    """`stone::name` as a function of operands and guards.

    >>> RowOperator("poincare_dist0")(torch.tensor([0.5, 0.0]), torch.tensor(1.0))
    tensor(1.0986)
    """

    __slots__ = ("_forward", "_operator")

    def __init__(self, name: str) -> None:
        self._operator = getattr(torch.ops.stone, name).default
        self._forward = getattr(torch.ops.stone, f"{name}_forward").default

    def __call__(self, *operands: Tensor, **guards: Any) -> Tensor:
        """Run it; RuntimeError for operands that do not fit."""
        if torch.is_grad_enabled() and wants_gradient(*operands):
            return self._operator(*operands, **guards)
        return self._forward(*operands, **guards)
