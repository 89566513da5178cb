"""Large float64 values that are computed a few rows at a time, when they are read."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

aten = torch.ops.aten
# Values of at least so many bytes are computed in blocks of about so many.
_BLOCK = 4 * 2**20
_ELEMENTWISE: dict[Any, Callable[[Any, Any], torch.Tensor]] = {
    aten.mul.Tensor: operator.mul,
    aten.add.Tensor: operator.add,
    aten.sub.Tensor: operator.sub,
    aten.div.Tensor: operator.truediv,
}
_VIEWS = {
    *(aten.t.default, aten.transpose.int, aten.permute.default, aten.reshape.default, aten.view.default),
    *(aten.unsqueeze.default, aten.squeeze.dim),
}


Watch = Callable[[torch.Tensor, torch.Tensor], None]


@dataclass
class Rows:
    """A large float64 matrix, or stack of them, that is computed when its rows are read.

    Args:
        shape: of the whole.
        device: of the whole.
        read: gives the rows from one index to another.
        stored: the tensor of a coarser dtype that it was widened from, where it is nothing else.
        costly: reading it computes products.
    """

    shape: torch.Size
    device: torch.device
    read: Callable[[int, int], torch.Tensor]
    stored: torch.Tensor | None = None
    costly: bool = False

    def into(self, dtype: torch.dtype, watch: Watch | None = None) -> torch.Tensor:
        """The whole, rounded to a dtype; `watch` is told each block and what became of it."""
        rounded = torch.empty(self.shape, dtype=dtype, device=self.device)
        for start, end in blocks(self.shape):
            block = self.read(start, end)
            rounded[start:end] = block
            if watch is not None:
                watch(block, rounded[start:end])
        return rounded


def blocks(shape: torch.Size) -> list[tuple[int, int]]:
    """Ranges of rows, each of about the size of a block in float64.

    >>> blocks(torch.Size([1000, 2048]))
    [(0, 256), (256, 512), (512, 768), (768, 1000)]
    """
    rows = max(1, _BLOCK // max(1, 8 * shape[1:].numel()))
    return [(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


def whole(value: Any) -> Any:
    """A value that may be computed row by row, as a tensor."""
    return value.into(torch.float64) if isinstance(value, Rows) else value


def widened(value: Any) -> Any:
    """A floating tensor in float64, row by row where it is large; anything else as it is."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    return (_rows_of(value) if 8 * value.numel() >= _BLOCK else None) or value.double()


def in_rows(target: Any, args: tuple[Any, ...], watch: Watch | None = None) -> Any:
    """What an operation gives without making its large operands; None where it needs them.

    Args:
        target: the operator.
        args: its operands.
        watch: see `Rows.into`.
    """
    first: Any = args[0] if args else None
    if target is aten.to.dtype and len(args) == 2:
        if isinstance(first, Rows):
            return first if args[1] is torch.float64 else first.into(args[1], watch)
        return _rows_of(first) if args[1] is torch.float64 and 8 * first.numel() >= _BLOCK else None
    if not any(isinstance(value, Rows) for value in args):
        return None
    if target in _VIEWS and isinstance(first, Rows) and first.stored is not None:
        return _rows_of(target(first.stored, *args[1:]))
    if target in _ELEMENTWISE and len(args) == 2:
        return _elementwise(_ELEMENTWISE[target], *args)
    if target is aten.mm.default:
        return _product(*args)
    if target is aten.mv.default and isinstance(first, Rows):
        vector = args[1]
        return torch.cat([first.read(start, end) @ vector for start, end in blocks(first.shape)])
    if target is aten.linear.default and isinstance(args[1], Rows) and not isinstance(first, Rows):
        return _linear(first, *args[1:])
    return None


def _rows_of(stored: torch.Tensor) -> Rows | None:
    if not stored.dtype.is_floating_point or stored.dtype is torch.float64 or stored.dim() < 2:
        return None
    return Rows(stored.shape, stored.device, lambda start, end: stored[start:end].double(), stored)


def _linear(value: torch.Tensor, weight: Rows, bias: Any = None) -> torch.Tensor:
    found = [value @ weight.read(start, end).t() for start, end in blocks(weight.shape)]
    result = torch.cat(found, dim=-1)
    return result if bias is None else result + whole(bias)


def _elementwise(function: Callable[[Any, Any], torch.Tensor], first: Any, second: Any) -> Rows | None:
    shapes = [
        value.shape if isinstance(value, Rows | torch.Tensor) else torch.Size() for value in (first, second)
    ]
    shape = torch.broadcast_shapes(*shapes)
    # An operand of fewer rows would be read again for each block.
    if any(isinstance(value, Rows) and value.shape != shape for value in (first, second)):
        return None
    reads = [_reader(value, shape) for value in (first, second)]
    device = next(value.device for value in (first, second) if isinstance(value, Rows))
    costly = any(isinstance(value, Rows) and value.costly for value in (first, second))
    return Rows(
        shape, device, lambda start, end: function(*(read(start, end) for read in reads)), costly=costly
    )


def _reader(value: Any, shape: torch.Size) -> Callable[[int, int], Any]:
    if isinstance(value, Rows):
        return value.read
    if isinstance(value, torch.Tensor) and value.dim() == len(shape) and value.shape[0] != 1:
        return lambda start, end: value[start:end]
    return lambda start, end: value


def _product(first: Any, second: Any) -> Rows | torch.Tensor:
    if isinstance(second, Rows) and second.costly:
        second = whole(second)
    left = first.read if isinstance(first, Rows) else lambda start, end: first[start:end]
    shape = torch.Size((first.shape[0], second.shape[1]))

    def read(start: int, end: int) -> torch.Tensor:
        found = torch.zeros(end - start, shape[1], dtype=torch.float64, device=second.device)
        # Rows of the product may be shorter than those that it is made of.
        for first_row, last_row in blocks(torch.Size((end - start, first.shape[1]))):
            rows, total = left(start + first_row, start + last_row), found[first_row:last_row]
            if not isinstance(second, Rows):
                torch.mm(rows, second, out=total)
                continue
            for low, high in blocks(second.shape):
                total.addmm_(rows[:, low:high], second.read(low, high))
        return found

    found = Rows(shape, second.device, read, costly=True)
    return found if 8 * shape.numel() >= _BLOCK else whole(found)
