"""Operators as functions of the geometry: numbers made operands, the bounds of the dtype put in, called cheaply."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from stonefx import native
from stonefx.ops.calling import Caller
from stonefx.ops.curvature import number, positive

from .bounds import ALL, Bounds

_is_compiling = torch.compiler.is_compiling
# The abstract one, which is slow to ask, last: it has the numbers of numpy.
_NUMBERS = (int, float, torch.SymInt, torch.SymFloat, numbers.Real)


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

    __slots__ = ("_call", "_direct", "_guards", "_labels", "_name", "_numbers")

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
        self._labels = [a.name for a in getattr(torch.ops.stone, operator).default._schema.arguments]
        self._call = Caller(operator)
        self._direct = native.direct_call(operator, [label == "c" for label in numbers], self._guards)

    def __call__(self, *operands: Any, **options: float) -> Tensor:
        """Run it.

        Raises:
            TypeError: points that are no tensors, or numbers that are neither numbers nor tensors.
            ValueError: a number that is not finite, or a curvature that is not positive.
            RuntimeError: operands that do not fit.
        """
        if not _is_compiling() and self._direct is not None:
            result = self._direct(*operands, **options)
            if result is not NotImplemented:
                return result
        # The short way takes nothing but tensors and numbers, so only the long one has to look.
        x = operands[0]
        first = len(operands) - len(self._numbers)
        if not all(_is_tensor(each) for each in operands[:first]):
            raise not_tensors(self._name, **dict(zip(self._labels, operands[:first], strict=False)))
        for label, value in zip(self._numbers, operands[first:], strict=True):
            if not is_number(value):
                raise not_a_number(self._name, label, value)
        tensors = [
            positive(self._name, x, value) if label == "c" else number(self._name, label, x, value)
            for label, value in zip(self._numbers, operands[first:], strict=True)
        ]
        # The operator refuses other dtypes, and says so.
        guards = self._guards.get(x.dtype, self._guards[torch.float32])
        return self._call(*operands[:first], *tensors, **{**guards, **options})


def _is_tensor(given: Any) -> bool:
    return isinstance(given, Tensor) or hasattr(type(given), "__torch_function__")


def along(x: Any, t: Any) -> Any:
    """Points with the batch dimensions that the positions `t` on their lines have besides.

    >>> along(torch.zeros(2), torch.linspace(0, 1, 5)[:, None]).shape
    torch.Size([5, 2])
    """
    if (
        not _is_tensor(t)
        or not _is_tensor(x)
        or t.dim() < 2
        or t.shape[-1] != 1
        or t.shape[:-1] == x.shape[:-1]
    ):
        return x
    try:
        batch = torch.broadcast_shapes(x.shape[:-1], t.shape[:-1])
    except RuntimeError:  # what does not fit is for the operator to refuse
        return x
    return x.expand(*batch, *x.shape[-1:])


def is_number(given: Any) -> bool:
    """Whether it is a tensor or a number, which a symbolic one of the compiler is too."""
    return isinstance(given, _NUMBERS) or _is_tensor(given)


def not_tensors(function: str, **given: Any) -> TypeError:
    """What to say where one of the operands, named by its keyword, is no tensor.

    >>> print(not_tensors("dist", x=torch.zeros(2), y=[0.5, 0.0]))
    dist: expected y to be a tensor, got list; convert it, for instance with torch.as_tensor(y)
    """
    label, wrong = next((label, each) for label, each in given.items() if not _is_tensor(each))
    remedy = "give the tensor" if wrong is None else f"convert it, for instance with torch.as_tensor({label})"
    return TypeError(f"{function}: expected {label} to be a tensor, got {type(wrong).__name__}; {remedy}")


def not_a_number(function: str, label: str, given: Any) -> TypeError:
    """What to say where the curvature, or another number of the row, is neither a number nor a tensor.

    >>> print(not_a_number("dist", "c", "1"))
    dist: expected c to be a number or a tensor, got '1' (str); give a float, or torch.as_tensor(...) of an array
    """
    kind = type(given).__name__
    shown = kind if given is None else f"{given!r:.60} ({kind})"
    return TypeError(
        f"{function}: expected {label} to be a number or a tensor, got {shown}; give a float, or torch.as_tensor(...) "
        "of an array"
    )
