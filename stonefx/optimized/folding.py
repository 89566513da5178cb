"""Folds computed one after another and a few rows at a time, so that they need little memory but their own."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

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

    def into(self, dtype: torch.dtype) -> torch.Tensor:
        """The whole, rounded to a dtype."""
        whole = torch.empty(self.shape, dtype=dtype, device=self.device)
        for start, end in blocks(self.shape):
            whole[start:end] = self.read(start, end)
        return whole


def blocks(shape: torch.Size) -> list[tuple[int, int]]:
    """Ranges of rows, each of about the size of a block in float64.

    >>> blocks(torch.Size([1000, 2048]))
    [(0, 256), (256, 512), (512, 768), (768, 1000)]
    """
    rows = max(1, _BLOCK // max(1, 8 * shape[1:].numel()))
    return [(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


class Folding(fx.Interpreter):
    """Runs a graph of folds without gradients; every value goes when its last user has run.

    Args:
        folds: see `stonefx.runtime.FoldSplit`.
        take: gives a weight by its position when it is first needed, and may let go of it: nobody asks again.
        foreign: addresses of storages in which no fold may end, since others own them.
    """

    def __init__(
        self, folds: fx.GraphModule, take: Callable[[int], torch.Tensor], foreign: frozenset[int]
    ) -> None:
        super().__init__(folds, garbage_collect_values=True)
        placeholders = folds.graph.find_nodes(op="placeholder")
        self.positions = {node.name: index for index, node in enumerate(placeholders)}
        self.take = take
        self.foreign = foreign

    def values(self) -> list[torch.Tensor]:
        """Every fold, as an ordinary tensor also in inference mode."""
        with torch.inference_mode(False), torch.no_grad():
            return [self._owned(_whole(value)) for value in super().run()]

    def run_node(self, n: fx.Node) -> Any:
        """As of `fx.Interpreter`; weights are read when the first node that uses them runs."""
        if n.op == "placeholder":
            return None
        for node in n.all_input_nodes:
            if node.op == "placeholder" and self.env[node] is None:
                self.env[node] = self.take(self.positions[node.name]).detach()
        value = super().run_node(n)
        return _whole(value) if isinstance(value, Rows) and value.costly and len(n.users) > 1 else value

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation; of large matrices the rows are computed when they are needed."""
        if not kwargs and (found := _in_rows(target, args)) is not None:
            return found
        args, kwargs = fx.node.map_aggregate((args, kwargs), _whole)
        return super().call_function(target, args, kwargs)

    def _owned(self, value: torch.Tensor) -> torch.Tensor:
        return value.clone() if value.untyped_storage().data_ptr() in self.foreign else value


def _whole(value: Any) -> Any:
    return value.into(torch.float64) if isinstance(value, Rows) else value


def _in_rows(target: Any, args: tuple[Any, ...]) -> Any:
    """What an operation gives without making its large operands; None where it needs them."""
    first: Any = args[0] if args else None
    if target is aten.to.dtype and len(args) == 2:
        if isinstance(first, Rows):
            return first if args[1] is torch.float64 else first.into(args[1])
        return _widened(first) if args[1] is torch.float64 and 8 * first.numel() >= _BLOCK else None
    if not any(isinstance(value, Rows) for value in args):
        return None
    if target in _VIEWS and isinstance(first, Rows) and first.stored is not None:
        return _widened(target(first.stored, *args[1:]))
    if target in _ELEMENTWISE and len(args) == 2:
        return _elementwise(_ELEMENTWISE[target], *args)
    if target is aten.mm.default:
        return _product(*args)
    if target is aten.mv.default and isinstance(first, Rows):
        vector = args[1]
        return torch.cat([first.read(start, end) @ vector for start, end in blocks(first.shape)])
    return None


def _widened(stored: torch.Tensor) -> Rows | None:
    if not stored.dtype.is_floating_point or stored.dtype is torch.float64 or stored.dim() < 2:
        return None
    return Rows(stored.shape, stored.device, lambda start, end: stored[start:end].double(), stored)


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


def _product(first: Any, second: Any) -> Rows:
    if isinstance(second, Rows) and second.costly:
        second = _whole(second)
    left = first.read if isinstance(first, Rows) else lambda start, end: first[start:end]
    shape = torch.Size((first.shape[0], second.shape[1]))

    def read(start: int, end: int) -> torch.Tensor:
        rows = left(start, end)
        if not isinstance(second, Rows):
            return rows @ second
        total = torch.zeros(end - start, shape[1], dtype=torch.float64, device=rows.device)
        for low, high in blocks(second.shape):
            total.addmm_(rows[:, low:high], second.read(low, high))
        return total

    return Rows(shape, second.device, read, costly=True)
