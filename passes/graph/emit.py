"""Adds nodes to a graph together with their fake values and the source line that they stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor

from ..refusal import Refusal
from .arguments import packet
from .nodes import val

aten = torch.ops.aten
_KEPT = ("stack_trace", "nn_module_stack")


class Unrealizable(Exception):
    """A plan turns out not to be possible, or not to gain anything, for this graph.

    Args:
        refusal: why.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class Emitter:
    """Emits nodes before an anchor, on whose behalf they are made.

    Args:
        anchor: the node before which they go; its source line and module become theirs.
        source: another node to take these from.
        fuses: what runs the graph computes views and elementwise work along with a map, as inductor does.
        what: what is said to be left as it is where that fails.
    """

    def __init__(
        self,
        anchor: fx.Node,
        source: fx.Node | None = None,
        fuses: bool = False,
        what: str = "the region is",
    ) -> None:
        self.anchor = anchor
        self.fuses = fuses
        self.what = what
        self.kept = {key: value for key, value in (source or anchor).meta.items() if key in _KEPT}
        self.nodes: list[fx.Node] = []
        self.composed: dict[Any, Any] = {}  # what was composed once, to be used again
        self._doubled: dict[fx.Node, fx.Node] = {}

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Emit a call on weights, whose sizes are fixed, and compute its fake value."""
        values, keywords = fx.node.map_arg((args, kwargs), self._fake)
        # Some kernels of composites, as of padding by less than nothing, know no symbolic sizes; their Python twins do.
        with torch.no_grad(), enable_python_dispatcher(), self.fake_mode():
            result = target(*values, **keywords)
        return self.insert(target, args, kwargs, result)

    def call(self, target: Any, given: dict[str, Any]) -> fx.Node:
        """Emit a call with arguments by their schema names, and compute its fake value without adding a guard.

        Raises:
            Unrealizable: the value cannot be computed for every size that the graph allows.
        """
        schema = target._schema.arguments
        args = [
            given[argument.name] for argument in schema if not argument.kwarg_only and argument.name in given
        ]
        keywords = {a.name: given[a.name] for a in schema if a.kwarg_only and a.name in given}
        return self.call_as(target, args, keywords)

    def call_as(self, target: Any, args: Any, keywords: Any) -> fx.Node:
        """As `call`, with the arguments as a node holds them."""
        environment = self.fake_mode().shape_env
        known = len(environment.guards) if environment is not None else 0
        node = self(target, *args, **keywords)
        if environment is not None and len(environment.guards) > known:
            del environment.guards[known:]
            name = f"`{target.overloadpacket.__name__}`"
            raise Unrealizable(Refusal("fixes_sizes", operator=name, what=self.what))
        return node

    def insert(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> fx.Node:
        """Emit a call whose fake value is known."""
        graph = self.anchor.graph
        with graph.inserting_before(self.anchor):
            node = graph.call_function(target, args, kwargs)
        node.meta = {**self.kept, "val": value}
        self.nodes.append(node)
        return node

    def double(self, node: fx.Node) -> fx.Node:
        """The node's value in float64, emitted once."""
        if val(node).dtype == torch.float64:
            return node
        if node not in self._doubled:
            self._doubled[node] = self(aten.to.dtype, node, torch.float64)
        return self._doubled[node]

    def exact(self, node: fx.Node) -> fx.Node:
        """The node's value in float64; of a folded value, what it was before it was rounded."""
        if (
            "fold" in node.meta
            and packet(node) is aten.to
            and val(node.all_input_nodes[0]).dtype == torch.float64
        ):
            return node.all_input_nodes[0]
        return self.double(node)

    def rounded(self, node: fx.Node | None, dtype: torch.dtype) -> fx.Node:
        """The node's value in another dtype."""
        assert node is not None
        return node if val(node).dtype == dtype else self(aten.to.dtype, node, dtype)

    def fold(self, node: fx.Node, name: str) -> fx.Node:
        """Mark an emitted node as a folded value, to be kept by the runtime under a readable name."""
        if node in self.nodes:
            node.meta["fold"] = name
        return node

    def sweep(self) -> None:
        """Erase emitted nodes that nothing reads."""
        for node in reversed(self.nodes):
            if not node.users and node is not self.anchor:
                self.anchor.graph.erase_node(node)

    def fake_mode(self) -> Any:
        """The mode that the graph's fake values live in."""
        return val(self.anchor).fake_mode  # type: ignore[attr-defined]

    def _fake(self, node: fx.Node) -> Any:
        value = node.meta["val"]
        if isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor):
            return self.fake_mode().from_tensor(value)
        return value
