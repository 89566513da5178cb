"""Folds computed one after another and a few rows at a time, so that they need little memory but their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ..passes.graph.blocks import Rows, in_rows, whole


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
            return [self._owned(whole(value)) for value in super().run()]

    def run_node(self, n: fx.Node) -> Any:
        """As of `fx.Interpreter`; weights are read when the first node that uses them runs."""
        if n.op == "placeholder":
            return None
        for node in n.all_input_nodes:
            if node.op == "placeholder" and self.env[node] is None:
                self.env[node] = self.take(self.positions[node.name]).detach()
        value = super().run_node(n)
        return whole(value) if isinstance(value, Rows) and value.costly and len(n.users) > 1 else value

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation; of large matrices the rows are computed when they are needed."""
        if not kwargs and (found := in_rows(target, args)) is not None:
            return found
        args, kwargs = fx.node.map_aggregate((args, kwargs), whole)
        return super().call_function(target, args, kwargs)

    def _owned(self, value: torch.Tensor) -> torch.Tensor:
        return value.clone() if value.untyped_storage().data_ptr() in self.foreign else value
