"""What holds at each node beyond its arguments: autocast, gradient mode, and what the graph mutates."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

import torch
from torch import fx
from torch._subclasses.fake_tensor import get_plain_tensors
from torch.utils import _pytree as pytree

from .arguments import is_operator


@dataclass
class Effects:
    """Facts about a whole graph, gathered in one walk.

    Args:
        autocast: the nodes that run under an enabled autocast.
        no_grad: the nodes that run with gradients switched off inside the graph.
        writers: for each mutated storage, the nodes that write to it, in order.
        position: the place of each node in the graph.
    """

    autocast: set[fx.Node] = field(default_factory=set)
    no_grad: set[fx.Node] = field(default_factory=set)
    writers: dict[int, list[fx.Node]] = field(default_factory=dict)
    position: dict[fx.Node, int] = field(default_factory=dict)

    def writer(self, node: fx.Node) -> fx.Node | None:
        """The first node that writes into the memory of `node`'s value, if any."""
        return next(iter(self.writers.get(storage(node), ())), None)

    def written_between(self, node: fx.Node, first: fx.Node, last: fx.Node) -> fx.Node | None:
        """The first node after `first` and before `last` that writes into the memory of `node`'s value."""
        low, high = self.position[first], self.position[last]
        writers = self.writers.get(storage(node), ())
        return next((writer for writer in writers if low < self.position[writer] < high), None)


def effects(graph: fx.Graph) -> Effects:
    """Walk a graph once, following `_enter_autocast`, `_set_grad_enabled` and mutable operators."""
    facts = Effects()
    autocast: list[tuple[fx.Node, bool]] = []
    grad = True
    for position, node in enumerate(graph.nodes):
        facts.position[node] = position
        if node.op == "call_function":
            if node.target is torch.amp.autocast_mode._enter_autocast:
                autocast.append((node, bool(node.args[2]) if len(node.args) > 2 else True))
            elif node.target is torch.amp.autocast_mode._exit_autocast:
                autocast = [entry for entry in autocast if entry[0] is not node.args[0]]
            elif node.target is torch._C._set_grad_enabled:
                grad = bool(node.args[0])
        if autocast and autocast[-1][1]:
            facts.autocast.add(node)
        if not grad:
            facts.no_grad.add(node)
        for written in written_operands(node):
            for memory in storages(written):
                facts.writers.setdefault(memory, []).append(node)
    facts.writers.pop(0, None)
    return facts


def ends_of_regions(graph: fx.Graph) -> set[fx.Node]:
    """The switches of gradient mode that give back the mode around a graph that was recorded with gradients.

    They hold the mode of the recording, `True`, and a call may come in another one. A switch that undoes the one before
    is taken for the end of its region.
    """
    ends: set[fx.Node] = set()
    around: list[bool] = []
    enabled = True
    for node in graph.find_nodes(op="call_function", target=torch._C._set_grad_enabled):
        value = bool(node.args[0])
        if around and around[-1] == value:
            around.pop()
            if not around:
                ends.add(node)
        else:
            around.append(enabled)
        enabled = value
    return ends


def written_operands(node: fx.Node) -> list[fx.Node]:
    """The operands that a call writes to: by an operator's schema, or all that a call outside of it may write to."""
    if "verbatim" in node.meta:
        return node.all_input_nodes if _may_write(node) else []
    if not is_operator(node) or not node.target._schema.is_mutable:  # type: ignore[union-attr]
        return []
    written: list[fx.Node] = []
    for index, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name)
        operands = value if isinstance(value, list | tuple) else [value]
        written += [operand for operand in operands if isinstance(operand, fx.Node)]
    return written


_PURE_FUNCTIONS = {
    getattr(operator, name)
    for name in "abs add and_ eq floordiv ge getitem gt invert le lshift lt matmul mod mul".split()
    + "ne neg or_ pos pow rshift sub truediv xor".split()
}
_TORCH = (
    torch,
    torch.nn.functional,
    torch._C._nn,
    torch._C._autograd,
    torch.linalg,
    torch.special,
    torch.fft,
)


def _may_write(node: fx.Node) -> bool:
    """Whether a call that is no operator's may write to its operands, by the names that torch has for those that do."""
    if node.target in _PURE_FUNCTIONS:
        return False
    if isinstance(node.target, str):
        name, known = node.target, hasattr(torch.Tensor, node.target)
    else:
        name = getattr(node.target, "__name__", "")
        known = any(getattr(holder, name, None) is node.target for holder in _TORCH)
    # `inplace`, and the `training` of norms that count.
    switched = any(value is True for value in (*node.args, *node.kwargs.values()))
    return not known or name.endswith("_") or switched or "out" in node.kwargs


def storage(node: fx.Node) -> int:
    """A number for the memory behind a node's fake value; 0 where it is no tensor."""
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else 0


def storages(node: fx.Node) -> set[int]:
    """Numbers for the memory behind a node's fake value: that of each tensor in it, and in what wraps tensors."""
    tensors = [leaf for leaf in pytree.tree_leaves(node.meta.get("val")) if isinstance(leaf, torch.Tensor)]
    parts = [part for tensor in tensors for part in get_plain_tensors(tensor, out=[])]
    return {part.untyped_storage()._cdata for part in parts if isinstance(part, torch.Tensor)}
