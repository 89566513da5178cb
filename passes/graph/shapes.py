"""Comparing and reading sizes without adding a guard to the shape environment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

Size = int | torch.SymInt


def expression(size: Any) -> Any:
    """The integer or sympy expression behind a size; a symbol that is known to be one number is that number."""
    if not isinstance(size, torch.SymInt):
        return size
    formula = size.node.expr
    return int(formula) if formula.is_Integer else formula


def same_size(left: Size, right: Size) -> bool:
    """Whether two sizes are known to be equal for every input; False where that is not known."""
    return bool(expression(left) == expression(right))


def same_sizes(left: Sequence[Size], right: Sequence[Size]) -> bool:
    """Whether two shapes (or strides) are known to be equal for every input."""
    return len(left) == len(right) and all(map(same_size, left, right))


def same_layout(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two fake tensors are known to have equal shapes, strides, dtype and device."""
    return (
        left.dtype == right.dtype
        and left.device == right.device
        and same_sizes(left.shape, right.shape)
        and same_sizes(left.stride(), right.stride())
    )


def product(sizes: Iterable[Size]) -> Any:
    """The product of sizes, as an integer or sympy expression."""
    total: Any = 1
    for size in sizes:
        total = total * expression(size)
    return total


def is_row_major(value: torch.Tensor) -> bool:
    """Whether a fake tensor is known to be contiguous in row-major order for every input."""
    return _dense(value, range(value.dim()))


def memory_format(value: torch.Tensor) -> torch.memory_format | None:
    """The memory format that a fake tensor is known to have for every input; None if it has none of them."""
    if is_row_major(value):
        return torch.contiguous_format
    rank = value.dim()
    if rank in (4, 5) and _dense(value, (0, *range(2, rank), 1)):
        return torch.channels_last if rank == 4 else torch.channels_last_3d
    return None


def _dense(value: torch.Tensor, order: Iterable[int]) -> bool:
    """Whether a tensor's entries lie densely with its axes in an order, from the outermost to the innermost."""
    plain: Any = 1
    clamped: Any = 1  # torch spells the strides of a tensor that may be empty with max(size, 1)
    shape, strides = value.shape, value.stride()
    for axis in reversed(list(order)):
        size, stride = shape[axis], strides[axis]
        if expression(size) != 1 and expression(stride) not in (expression(plain), expression(clamped)):
            return False
        plain, clamped = plain * size, clamped * torch.sym_max(1, size)
    return True


def hint(size: Size, otherwise: int) -> int:
    """The example value of a size; where it depends on data and has none, that of `otherwise` for each such number."""
    if not isinstance(size, torch.SymInt):
        return size
    known = size.node.hint
    if known is not None:
        return int(known)
    formula, environment = size.node.expr, size.node.shape_env
    # The name is that of newer releases of torch.
    examples = getattr(environment, "backed_var_to_val", None) or getattr(environment, "var_to_val", {})
    return max(
        0, int(formula.subs({symbol: examples.get(symbol, otherwise) for symbol in formula.free_symbols}))
    )


def entries(value: torch.Tensor) -> int:
    """How many entries a fake tensor has at its example sizes; a number that only the data know counts as 1."""
    return math.prod(hint(size, 1) for size in value.shape)
