"""Carries a plan out: the region's output node becomes the last of the planned nodes, the rest goes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import fx

from ...graph import sizes
from ...graph.arguments import is_operator
from ...graph.effects import storage, written_operands
from ...graph.emit import Emitter, Unrealizable
from ...graph.nodes import val
from ...graph.shapes import memory_format, same_sizes
from ...refusal import Refusal
from ..algebra.values import size_at
from ..plan.decide import Decision
from ..read.obstacles import is_part
from .nodes import Realizer

aten = torch.ops.aten
# Python functions of a graph that compute values and change nothing.
_PLAIN = (operator.getitem, operator.mul, operator.add, operator.sub, operator.floordiv)


def realize(decision: Decision) -> list[fx.Node]:
    """Rewrite a region in place as planned; return the weights that it now reads.

    The output node keeps its name and its users, and takes over the last planned call.

    Raises:
        Unrealizable: an operator would fix a size that may vary, or the result would have to be copied at a cost
            that the plan does not gain; the graph is as it was.
    """
    tree = decision.tree
    output = tree.value.node
    inner = [node for node in tree.nodes() if node is not output]
    given = tree.given()
    unknown = sizes.unfindable(inner, given)
    if unknown is not None:
        raise Unrealizable(Refusal("lost_size", value=unknown.name))
    emit = Emitter(output, fuses=decision.costs.fuses)
    realizer = Realizer(emit)
    try:
        current, _ = realizer.emit_choice(decision.plan, decision.planned)
        current = _as_before(emit, current, decision, given)
    except Unrealizable:
        emit.sweep()
        raise
    take_over(output, current, emit, inner, lambda: sizes.move(inner, given))
    return list(dict.fromkeys(realizer.read))


def _as_before(emit: Emitter, current: fx.Node, decision: Decision, given: Sequence[fx.Node]) -> fx.Node:
    """The result in memory of its own, in the memory format that it had."""
    output = decision.tree.value.node
    value, before = val(current), val(output)
    # Every planned node has the sizes of the one that it stands for, whose formulas may be spelled differently.
    if _examples(value) != _examples(before):
        raise Unrealizable(
            Refusal("unknown_shape", came=str(list(value.shape)), expected=str(list(before.shape)))
        )
    wanted = memory_format(before) or torch.contiguous_format  # a part of something larger may come alone
    alone = storage(current) not in {storage(node) for node in given}
    if alone and (memory_format(value) == wanted or same_sizes(value.stride(), before.stride())):
        return current
    if memory_format(before) is None and not is_part(output):
        raise Unrealizable(Refusal("strides", strides=str(tuple(before.stride()))))
    copy = decision.costs.elementwise(decision.costs.rows(decision.tree), decision.tree.width)
    if not decision.gains_despite(copy):
        raise Unrealizable(Refusal("copied"))
    return emit.call(aten.clone.default, {"self": current, "memory_format": wanted})


def _examples(value: torch.Tensor) -> list[int]:
    return [size_at(size, None) for size in value.shape]


def take_over(
    output: fx.Node,
    result: fx.Node,
    emit: Emitter,
    inner: Iterable[fx.Node],
    before_erasing: Callable[[], None] = lambda: None,
) -> None:
    """Let an output node, with its name and its users, become the call of an emitted one, and erase what is left over.

    Args:
        output: the node.
        result: the emitted node.
        emit: what emitted it.
        inner: the nodes between what is read and the output, which nothing needs any more if nothing else reads them.
        before_erasing: moves what else reads them.
    """
    replaced = [*output.all_input_nodes, *inner]
    output.target, output.args, output.kwargs = result.target, result.args, result.kwargs
    output.meta["val"] = val(result)
    emit.sweep()
    before_erasing()
    erase_dead(replaced)


def erase_dead(nodes: Iterable[fx.Node]) -> None:
    """Erase nodes that nothing reads any more, and then what only they read."""
    stack = list(nodes)[::-1]
    erased: set[fx.Node] = set()
    while stack:
        node = stack.pop()
        dead: Any = node not in erased and not node.users
        plain = is_operator(node) or (node.op == "call_function" and node.target in _PLAIN)
        if not dead or not plain or written_operands(node):
            continue
        operands = node.all_input_nodes
        node.graph.erase_node(node)
        erased.add(node)
        stack += operands
