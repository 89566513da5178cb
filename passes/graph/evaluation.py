"""Computing nodes of a graph from given values, running only what they need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx

from .blocks import Rows, Watch, in_rows, whole, widened
from .shapes import hint

# What a size counts as that only the data decides; all probes agree on it.
UNBACKED = 4


class Evaluation:
    """A graph whose nodes can be computed.

    Args:
        module: the graph.
        weights: the real tensor behind each weight placeholder, by node name; none is copied, and only those that a
            computation reads are looked at.
    """

    def __init__(self, module: fx.GraphModule, weights: Mapping[str, torch.Tensor]) -> None:
        self.module = module
        self.weights = weights
        self.nodes = {node.name: node for node in module.graph.nodes}

    def compute(
        self,
        names: Sequence[str],
        given: Mapping[str, Any],
        *,
        exact: bool = False,
        watch: Callable[[fx.Node, torch.Tensor, torch.Tensor], None] | None = None,
    ) -> list[Any]:
        """The values of some nodes.

        Args:
            names: of the nodes.
            given: values of nodes, by name, that are not computed.
            exact: in float64, whatever floating dtypes the graph asks for.
            watch: is told each node that rounds a float64 value that was computed from weights alone, with that
                value, or rows of it one after another, and what became of them.
        """
        roots = [self.nodes[name] for name in names]
        needed = self._needed(roots, given)
        uses = _uses([node for node in needed if node.name not in given], roots)
        fixed: set[fx.Node] = set()
        done: dict[fx.Node, Any] = {}
        for node in needed:
            if node.name in given:
                done[node] = double(given[node.name]) if exact else given[node.name]
                continue
            if all(operand in fixed for operand in node.all_input_nodes):
                fixed.add(node)
            # What a graph computes from its inputs is computed as it says.
            in_blocks = exact or node in fixed
            noted = partial(watch, node) if watch is not None and node in fixed else None
            value = self._value(node, done, exact, in_blocks, noted)
            costly = isinstance(value, Rows) and value.costly and uses[node] > 1
            done[node] = whole(value) if costly else value
            for operand in node.all_input_nodes:
                uses[operand] -= 1
                if not uses[operand]:  # nothing reads it any more
                    del done[operand]
        return [whole(done[root]) for root in roots]

    def folds(self, names: Sequence[str], given: Mapping[str, Any]) -> list[str]:
        """The folded weights that some nodes need."""
        needed = self._needed([self.nodes[name] for name in names], given)
        return [node.name for node in needed if "fold" in node.meta and node.name not in given]

    def _needed(self, roots: Iterable[fx.Node], given: Mapping[str, Any]) -> list[fx.Node]:
        """The nodes that some need, in the order of the graph."""
        needed: set[fx.Node] = set()
        stack = list(roots)
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                if node.name not in given:
                    stack += node.all_input_nodes
        return sorted(needed)

    def _value(
        self, node: fx.Node, done: Mapping[fx.Node, Any], exact: bool, in_blocks: bool, watch: Watch | None
    ) -> Any:
        if node.op == "placeholder":
            return self._input(node, exact)
        if node.op == "get_attr":
            value: Any = self.module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return widened(value) if exact else value
        if node.op != "call_function":
            raise ValueError(f"a region reads {node.op} {node.name!r}, which is not among its inputs")
        args: Any
        kwargs: Any
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), done.__getitem__)
        if exact:
            args, kwargs = fx.node.map_aggregate((args, kwargs), _in_float64)
        if in_blocks and not kwargs and (found := in_rows(node.target, args, watch)) is not None:
            return found
        args, kwargs = fx.node.map_aggregate((args, kwargs), whole)
        value = node.target(*args, **kwargs)  # type: ignore[operator]
        if watch is not None and len(node.all_input_nodes) == 1 and is_rounded(args[0], value):
            watch(args[0], value)
        # What is made of no tensor, such as `zeros`, has the default dtype.
        return double(value) if exact else value

    def _input(self, node: fx.Node, exact: bool) -> Any:
        if node.name in self.weights:
            weight = self.weights[node.name].detach()
            return widened(weight) if exact else weight
        if isinstance(node.meta.get("val"), torch.Tensor):
            raise ValueError(f"a region reads {node.name!r}, which is not among its inputs")
        return example(node.meta.get("val"))


def _uses(computed: Iterable[fx.Node], roots: Iterable[fx.Node]) -> Counter[fx.Node]:
    """How many nodes are still to read each node; a root is read once more, at the end."""
    uses: Counter[fx.Node] = Counter(roots)
    for node in computed:
        uses.update(node.all_input_nodes)
    return uses


def example(size: Any) -> Any:
    """A symbolic size's example value, read without adding a guard; anything else as it is."""
    if isinstance(size, torch.SymInt):
        return hint(size, UNBACKED)
    return size.node.hint if isinstance(size, torch.SymFloat | torch.SymBool) else size


def double(value: Any) -> Any:
    """A floating tensor in float64, anything else as it is."""
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def is_rounded(source: Any, value: Any) -> bool:
    """Whether a value is a float64 one in a coarser floating dtype."""
    return (
        isinstance(source, torch.Tensor)
        and isinstance(value, torch.Tensor)
        and source.dtype == torch.float64
        and value.dtype != torch.float64
        and value.is_floating_point()
    )


def _in_float64(value: Any) -> Any:
    """float64 in place of any narrower floating dtype."""
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value
