"""In-place operators made functional where nobody can tell the difference; the others are left alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from .subclasses import plain_parts
from .verbatim import is_opaque

# The functional forms of these have no derivative, although the forms in place have one.
_WITHOUT_DERIVATIVE = frozenset(
    f"aten::{name}" for name in "cauchy copy exponential geometric log_normal random uniform".split()
)


def remove_mutation(module: fx.GraphModule) -> int:
    """Turn `x.op_(...)` into `op(x, ...)` where the old storage of `x` is not seen afterwards.

    Kept in place: a write to an input or attribute; to a storage that is read later, that reaches a
    higher-order operator, or whose gradient history the write does not change (under `no_grad`); and an
    operator whose functional form gives another shape, dtype or stride, or no gradient where one may be wanted.

    Returns:
        How many operators were made functional.
    """
    graph = module.graph
    nodes = list(graph.nodes)
    position = {node: i for i, node in enumerate(nodes)}
    sharing: dict[int, list[fx.Node]] = defaultdict(list)
    for node in nodes:
        for storage in storages(node):
            sharing[storage].append(node)
    without_grad = _nodes_without_grad(nodes)
    count = 0
    for node in nodes:
        functional = functional_form(node)
        if functional is None:
            continue
        aliases = [a for storage in storages(node.args[0]) for a in sharing[storage]]
        before = [a for a in aliases if position[a] < position[node]]
        if not before or any(a.op in {"placeholder", "get_attr"} or is_opaque(a) for a in before):
            continue
        users = [user for a in before for user in a.users]
        if any(position[user] > position[node] or is_opaque(user) for user in users):
            continue
        if node in without_grad and not all(a in without_grad for a in before):
            continue
        if functional._schema.name in _WITHOUT_DERIVATIVE and node not in without_grad:
            continue
        if not _same_result(node, functional):
            continue
        node.target = functional
        count += 1
    if count:
        module.recompile()
    return count


def functional_form(node: fx.Node) -> OpOverload | None:
    """`aten.add.Tensor` for a node that calls `aten.add_.Tensor`; None where there is no such overload."""
    if not is_mutating(node) or not isinstance(node.args[0] if node.args else None, fx.Node):
        return None
    schema = node.target._schema  # type: ignore[union-attr]
    namespace, name = schema.name.split("::")
    if not name.endswith("_") or name.endswith("__"):
        return None
    if [i for i, argument in enumerate(schema.arguments) if _is_written(argument)] != [0]:
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    overload = getattr(packet, node.target._overloadname, None)  # type: ignore[union-attr]
    if overload is None or overload._schema.is_mutable:
        return None
    return overload


def is_mutating(node: fx.Node) -> bool:
    """Whether a node calls an operator that writes to one of its arguments."""
    return (
        node.op == "call_function" and isinstance(node.target, OpOverload) and node.target._schema.is_mutable
    )


def written_placeholders(graph: fx.Graph) -> set[fx.Node]:
    """The placeholders whose storage some operator of the graph writes to."""
    written = {storage for node in graph.nodes if is_mutating(node) for storage in _written_storages(node)}
    return {node for node in graph.find_nodes(op="placeholder") if written.intersection(storages(node))}


def storages(node: Any) -> set[int]:
    """Identities of the storages that a node's fake value, or the tensors that it wraps, live in."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return {
        part.untyped_storage()._cdata
        for leaf in pytree.tree_leaves(value)
        if isinstance(leaf, torch.Tensor)
        for part in plain_parts(leaf)
    }


def _is_written(argument: torch.Argument) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _written_storages(node: fx.Node) -> Iterator[int]:
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if _is_written(argument):
            value = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            for leaf in pytree.tree_leaves(value):
                yield from storages(leaf)


def _nodes_without_grad(nodes: list[fx.Node]) -> set[fx.Node]:
    """Nodes inside a `no_grad` region of the graph itself."""
    inside: set[fx.Node] = set()
    enabled = True
    for node in nodes:
        if node.target is torch._C._set_grad_enabled:
            enabled = bool(node.args[0])
        elif not enabled:
            inside.add(node)
    return inside


def _same_result(node: fx.Node, functional: OpOverload) -> bool:
    """Whether the functional form gives the shape, dtype and stride that the written tensor has."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return False
    fake_mode = getattr(value, "fake_mode", None)
    if fake_mode is None:
        return False
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda argument: argument.meta["val"])
    quiet = fake_mode.shape_env.suppress_guards() if fake_mode.shape_env else nullcontext()
    with fake_mode, quiet, torch.no_grad():
        result = functional(*args, **kwargs)
    return (result.dtype, result.shape, result.stride()) == (value.dtype, value.shape, value.stride())
