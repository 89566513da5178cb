"""Operators as functions of the geometry: numbers made operands, the bounds of the dtype put in, called cheaply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from stonefx import native
from stonefx.ops.calling import Caller
from stonefx.ops.curvature import number, operand

from .bounds import ALL, Bounds

_is_compiling = torch.compiler.is_compiling


class Function:
    """`stone::operator` as a function of tensors and of numbers of the row.

    Args:
        name: of the function, for messages.
        operator: such as `poincare_dist`; each of its operands has a gradient of the operand's shape or one that
            broadcasting repeated.
        guards: the options of the operator that the bounds of the dtype decide.
        numbers: labels of the last operands, which may be Python numbers; `c` must be positive.

    >>> Function("dist0", "poincare_dist0", lambda b: {"min_gap": b.gap})(torch.tensor([0.5, 0.0]), 1.0)
    tensor(1.0986)
    """

    __slots__ = ("_call", "_direct", "_guards", "_name", "_numbers")

    def __init__(
        self,
        name: str,
        operator: str,
        guards: Callable[[Bounds], Mapping[str, float]] = lambda bounds: {},
        numbers: tuple[str, ...] = ("c",),
    ) -> None:
        self._name = name
        self._numbers = numbers
        self._guards = {dtype: dict(guards(of_dtype)) for dtype, of_dtype in ALL.items()}
        self._call = Caller(operator)
        self._direct = native.direct_call(operator, [label == "c" for label in numbers], self._guards)

    def __call__(self, *operands: Any, **options: float) -> Tensor:
        """Run it.

        Raises:
            ValueError: a number that is not finite, or a curvature that is not positive.
            RuntimeError: operands that do not fit.
        """
        if not _is_compiling() and self._direct is not None:
            result = self._direct(*operands, **options)
            if result is not NotImplemented:
                return result
        x = operands[0]
        first = len(operands) - len(self._numbers)
        tensors = [
            operand(self._name, x, value) if label == "c" else number(self._name, label, x, value)
            for label, value in zip(self._numbers, operands[first:], strict=True)
        ]
        # The operator refuses other dtypes, and says so.
        guards = self._guards.get(x.dtype, self._guards[torch.float32])
        return self._call(*operands[:first], *tensors, **{**guards, **options})
