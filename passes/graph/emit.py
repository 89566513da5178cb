"""Adds nodes to a graph together with their fake values and the source line that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor

from ..refusal import Refusal
from .arguments import aliases, packet
from .nodes import val
from .shapes import expression, hint

aten = torch.ops.aten
_KEPT = ("stack_trace", "nn_module_stack")
# Stands for a size that only the data decides.
_UNKNOWN = 4


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

    def call_sized(self, target: Any, given: dict[str, Any], shape: Sequence[Any]) -> fx.Node:
        """As `call`, with the sizes of the result, which are known: where some vary, no kernel is asked about them.

        Args:
            target: the operator.
            given: its arguments by their schema names.
            shape: the sizes of the result.

        Raises:
            Unrealizable: the result is no dense tensor, so that its strides are not known.
        """
        schema = target._schema.arguments
        if aliases(target) or not (_varies(shape) or any(map(_varies_in, _inputs(given)))):
            return self.call(target, given)
        args = tuple(given[a.name] for a in schema if not a.kwarg_only and a.name in given)
        kwargs = {a.name: given[a.name] for a in schema if a.kwarg_only and a.name in given}
        found = self.example(target, args, kwargs)
        strides = found.stride()
        order = sorted(range(found.dim()), key=lambda axis: -strides[axis])
        dense = 1
        for axis in reversed(order):
            if found.shape[axis] > 1 and strides[axis] != dense:
                raise Unrealizable(Refusal("unknown_strides", operator=f"`{target.overloadpacket.__name__}`"))
            dense *= found.shape[axis]
        with self.fake_mode():
            made = torch.empty([shape[axis] for axis in order], dtype=found.dtype, device=found.device)
            value = made.permute([order.index(axis) for axis in range(len(order))])
        return self.insert(target, args, kwargs, value)

    def example(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """The fake value of a call at the example sizes, which asks nothing about those that vary."""

        def at_example(node: fx.Node) -> Any:
            value = self._fake(node)
            if not isinstance(value, torch.Tensor):
                return hint(value, _UNKNOWN) if isinstance(value, torch.SymInt) else value
            if not _varies(value.shape):
                return value
            sizes = [hint(size, _UNKNOWN) for size in value.shape]
            strides = [hint(stride, 1) for stride in value.stride()]
            return torch.empty_strided(sizes, strides, dtype=value.dtype, device=value.device)

        with torch.no_grad(), enable_python_dispatcher(), self.fake_mode():
            values, keywords = fx.node.map_arg((args, kwargs), at_example)
            return target(*values, **keywords)

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

    def total(self, nodes: Sequence[fx.Node]) -> fx.Node:
        """The sum of some weights."""
        total = nodes[0]
        for node in nodes[1:]:
            total = self(aten.add.Tensor, total, node)
        return total

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


def _varies(sizes: Sequence[Any]) -> bool:
    return not all(isinstance(expression(size), int) for size in sizes)


def _varies_in(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return _varies(value.shape) if isinstance(value, torch.Tensor) else isinstance(value, torch.SymInt)


def _inputs(given: dict[str, Any]) -> Iterator[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(tuple(given.values()), found.append)
    return iter(found)
