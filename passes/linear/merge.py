"""Carries a plan out: the chain's output node becomes the last of the planned nodes, the rest goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from ..arguments import is_operator
from ..regions import written_operands
from ..rewrite import val
from ..shapes import same_sizes
from . import sizes
from .emit import Emitter
from .fold import fold
from .plan import Part, Plan
from .search import Chain
from .steps import Step
from .views import needed_views, replayed

aten = torch.ops.aten


def merge(chain: Chain, plan: Plan) -> list[fx.Node]:
    """Rewrite a chain in place as planned; return the weights and biases that it now reads.

    The output node keeps its name and its users, and takes over the last planned call.
    """
    operand, output = chain.operand, chain.output
    for step in chain.steps[:-1]:
        for user in list(step.node.users):
            if sizes.reads(user, of=operand):
                sizes.move(user, operand)
    emit = Emitter(output)
    groups = _groups(chain.steps)
    current, read = operand, []
    for part in plan.parts:
        args = _part_arguments(emit, part, groups, val(operand).dtype)
        read += [arg for arg in args if arg is not None]
        current = _emit_part(emit, part, current, args)
    if not same_sizes(val(operand).shape[:-1], val(output).shape[:-1]):
        for step in needed_views(chain.steps):
            target, rest = replayed(step, chain.widths[-1])
            current = emit.insert(target, (current, *rest), {}, val(output))
    replaced = [output.all_input_nodes, *([step.node] for step in reversed(chain.steps[:-1]))]
    output.target, output.args, output.kwargs = current.target, current.args, current.kwargs
    emit.sweep()
    erase_dead(node for nodes in replaced for node in nodes)
    return list(dict.fromkeys(read))


def _groups(steps: Sequence[Step]) -> list[list[Step]]:
    """Every map together with the shifts and scales behind it."""
    groups: list[list[Step]] = []
    for step in steps:
        if step.kind == "map":
            groups.append([step])
        elif step.kind == "affine":
            groups[-1].append(step)
    return groups


def _part_arguments(
    emit: Emitter, part: Part, groups: Sequence[Sequence[Step]], dtype: torch.dtype
) -> list[fx.Node | None]:
    """The matrices of a part, in order of application, and its bias or None."""
    matrices: list[fx.Node | None] = []
    bias = exact = None
    for start, stop in part.factors():
        run = [step for group in groups[start:stop] for step in group]
        weight, bias, exact = fold(emit, run, dtype, ahead=exact)
        matrices.append(weight)
    return [*matrices, bias]


def _emit_part(emit: Emitter, part: Part, operand: fx.Node, args: Sequence[fx.Node | None]) -> fx.Node:
    *matrices, bias = args
    target: Any = aten.linear.default if part.cut is None else torch.ops.stone.low_rank_linear.default
    last = matrices[-1]
    assert last is not None
    shape = (*val(operand).shape[:-1], val(last).shape[0])
    result = val(operand).new_empty(shape)
    return emit.insert(target, (operand, *matrices, bias), {}, result)


def erase_dead(nodes: Iterable[fx.Node]) -> None:
    """Erase nodes that nothing reads any more, and then what only they read."""
    stack = list(nodes)[::-1]
    erased: set[fx.Node] = set()
    while stack:
        node = stack.pop()
        if node in erased or node.users or not is_operator(node) or written_operands(node):
            continue
        operands = node.all_input_nodes
        node.graph.erase_node(node)
        erased.add(node)
        stack += operands
