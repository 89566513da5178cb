"""The pass `normalize`: one spelling instead of several, where that changes not a single bit."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from .assemble import assemble
from .graph.arguments import DROPOUTS, is_operator, named_arguments, packet
from .graph.effects import Effects, effects, storage, storages
from .graph.nodes import val
from .graph.shapes import is_row_major, same_layout
from .site import Context, Site

aten = torch.ops.aten
_VIEWS = (
    aten.alias,
    aten.view,
    aten._unsafe_view,
    aten.reshape,
    aten.flatten,
    aten.unflatten,
    aten.expand,
    aten.permute,
    aten.transpose,
    aten.slice,
    aten.squeeze,
)
# Other names of operators, with the same arguments and the same kernels.
_TWINS = {
    aten.multiply: aten.mul,
    aten.multiply_: aten.mul_,
    aten.divide: aten.div,
    aten.divide_: aten.div_,
    aten.true_divide: aten.div,
    aten.true_divide_: aten.div_,
    aten.subtract: aten.sub,
    aten.subtract_: aten.sub_,
    aten.negative: aten.neg,
    aten.negative_: aten.neg_,
    aten.concat: aten.cat,
    aten.concatenate: aten.cat,
    aten.moveaxis: aten.movedim,
    aten.broadcast_to: aten.expand,
}


class Normalize:
    """Removes nodes that do nothing and fills in default arguments.

    What goes: dropout in eval mode, `alias`, views onto the same layout, `to` and `contiguous` where nothing has
    to be converted or moved, and `clone` where neither it nor its original is ever written to. What a caller
    could tell apart stays: a value that the graph returns, anything that converts a dtype, `detach`.
    Tensors that are made and then written to in parts become one concatenation (`assemble.py`).
    Operators with two names get one of them, and a conversion to the dtype of another value names that dtype.
    Spellings of linear maps (`matmul`, `addmm`, `einsum`) are left as they are, since another spelling may round
    differently; `linear_chains` reads them all.
    """

    name = "normalize"
    targets = ()

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Normalise a graph in place. Reports no sites: nothing that it does can be observed."""
        graph = module.graph
        facts = effects(graph)
        for node in list(graph.nodes):
            if node.target is operator.getitem and not node.users:
                graph.erase_node(node)  # a part of a split that nothing reads
            if not is_operator(node):
                continue
            _respell(node)
            # A view made under no_grad cuts gradients off, even if it shows the same values, and what runs the graph
            # may be trained though nothing asks for gradients now.
            cuts = node in facts.no_grad
            source = None if cuts else _same_as(node, facts)
            if source is not None and not _returned(node):
                node.replace_all_uses_with(source)
                graph.erase_node(node)
            else:
                _fill_in_arguments(node)
        assemble(graph, effects(graph))
        graph.lint()
        module.recompile()
        return []


NORMALIZE = Normalize()


def _same_as(node: fx.Node, facts: Effects) -> fx.Node | None:
    """The operand that a node merely repeats; None if it does anything."""
    if not isinstance(node.meta.get("val"), torch.Tensor) or not node.all_input_nodes:
        return None
    given = named_arguments(node)
    source = node.all_input_nodes[0]
    if not isinstance(source.meta.get("val"), torch.Tensor):
        return None
    if packet(node) in DROPOUTS:
        return None if given["train"] else source
    if not same_layout(val(source), val(node)):
        return None
    if packet(node) in _VIEWS:
        return source
    if packet(node) is aten.contiguous:
        plain = given["memory_format"] == torch.contiguous_format
        return source if plain and is_row_major(val(source)) else None
    if packet(node) is aten.to:
        return source if not given.get("copy") and given.get("memory_format") is None else None
    if packet(node) is aten.clone:
        written = facts.writer(source) or facts.writer(node)
        return source if written is None and not _seen_outside(node) else None
    return None


def _respell(node: fx.Node) -> None:
    """Call an operator by the name that the passes know, where another one gives the same."""
    twin = _TWINS.get(packet(node))
    if twin is not None and node.target._overloadname in twin.overloads():  # type: ignore[union-attr]
        node.target = getattr(twin, node.target._overloadname)  # type: ignore[union-attr]
    elif node.target is aten.tile.default:
        source, repeats = named_arguments(node).values()
        node.target, node.kwargs = aten.repeat.default, {}
        node.args = (source, [*[1] * (val(source).dim() - len(repeats)), *repeats])
    elif node.target in (aten.to.other, aten.type_as.default):
        given = named_arguments(node)
        kinds = [(each.layout, each.device) for each in map(val, (given["self"], given["other"]))]
        if kinds[0] == kinds[1]:  # the other value need not be computed for its dtype
            options = [given.get(name, False) for name in ("non_blocking", "copy")]
            node.target, node.kwargs = aten.to.dtype, {}
            node.args = (given["self"], val(given["other"]).dtype, *options, given.get("memory_format"))


def _returned(node: fx.Node) -> bool:
    return any(user.op == "output" for user in node.users)


def _seen_outside(node: fx.Node) -> bool:
    """Whether a caller gets hold of the memory of a node's value, through this node or a view of it."""
    results: list[Any] = node.graph.output_node().all_input_nodes
    return any(storage(node) in storages(result) for result in results)


def _fill_in_arguments(node: fx.Node) -> None:
    """Write every argument that has a position at its position, defaults included."""
    given = named_arguments(node)
    positional = [a for a in node.target._schema.arguments if not a.kwarg_only]  # type: ignore[union-attr]
    keywords = {a.name for a in node.target._schema.arguments if a.kwarg_only}  # type: ignore[union-attr]
    if all(argument.name in given for argument in positional):
        node.args = tuple(given[argument.name] for argument in positional)
        node.kwargs = {name: value for name, value in node.kwargs.items() if name in keywords}
