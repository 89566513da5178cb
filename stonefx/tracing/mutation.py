"""In-place operators made functional where nobody can tell the difference; the others are left alone."""

from __future__ import annotations

import functools
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
# The functional forms of these draw other random numbers on some devices.
_DROPOUTS = frozenset(
    f"aten::{name}" for name in "dropout alpha_dropout feature_dropout feature_alpha_dropout".split()
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
        form = functional_form(node)
        if form is None:
            continue
        functional, args, kwargs = form
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
        if functional._schema.name in _DROPOUTS and args[2]:
            continue
        if not _same_result(node, functional, args, kwargs):
            continue
        node.target, node.args, node.kwargs = functional, args, kwargs
        count += 1
    if count:
        module.recompile()
    return count


def functional_form(node: fx.Node) -> tuple[OpOverload, tuple[Any, ...], dict[str, Any]] | None:
    """The functional call in the place of a node that writes to its first argument; None where there is none."""
    if not is_mutating(node) or not isinstance(node.args[0] if node.args else None, fx.Node):
        return None
    twin = functional_twin(node.target)
    if twin is None:
        return None
    overload, order = twin
    given: dict[int, Any] = dict(enumerate(node.args))
    theirs = dict(zip(order, overload._schema.arguments, strict=True))
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name in node.kwargs:
            given[i] = node.kwargs[argument.name]
        elif i not in given and argument.default_value != theirs[i].default_value:
            given[i] = argument.default_value
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for position, (i, argument) in enumerate(zip(order, overload._schema.arguments, strict=True)):
        if i in given:
            if position == len(args) and not argument.kwarg_only:
                args.append(given[i])
            else:
                kwargs[argument.name] = given[i]
    return overload, tuple(args), kwargs


@functools.cache
def functional_twin(operator: OpOverload) -> tuple[OpOverload, tuple[int, ...]] | None:
    """The overload that computes what an operator in place writes, and where each of its arguments stands there.

    Overloads of the two are not named alike, nor are their arguments always in one order: what counts are the
    arguments' types, in order, or else names and types in any order.

    >>> functional_twin(torch.ops.aten.pow_.Scalar)
    (<OpOverload(op='aten.pow', overload='Tensor_Scalar')>, (0, 1))
    >>> functional_twin(torch.ops.aten.polygamma_.default)
    (<OpOverload(op='aten.polygamma', overload='default')>, (1, 0))
    """
    schema = operator._schema
    namespace, name = schema.name.split("::")
    if [i for i, argument in enumerate(schema.arguments) if _is_written(argument)] != [0]:
        return None
    if name.startswith("__i") and name.endswith("__"):
        name = f"__{name[3:]}"
    elif name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    else:
        return None
    packet = getattr(getattr(torch.ops, namespace), name, None)
    overloads = [getattr(packet, overload) for overload in packet.overloads()] if packet is not None else []
    pure = [overload for overload in overloads if not overload._schema.is_mutable]
    types = [_type(argument) for argument in schema.arguments]
    for overload in pure:
        if [_type(argument) for argument in overload._schema.arguments] == types:
            return overload, tuple(range(len(types)))
    names = [(argument.name, _type(argument)) for argument in schema.arguments]
    for overload in pure:
        theirs = [(argument.name, _type(argument)) for argument in overload._schema.arguments]
        if sorted(theirs) == sorted(names):
            return overload, tuple(names.index(argument) for argument in theirs)
    return None


def _type(argument: torch.Argument) -> str:
    return f"{argument.type}{' by keyword' if argument.kwarg_only else ''}"


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


def _same_result(
    node: fx.Node, functional: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Whether the functional form gives the shape, dtype and stride that the written tensor has."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return False
    fake_mode = getattr(value, "fake_mode", None)
    if fake_mode is None:
        return False
    args, kwargs = fx.map_arg((args, kwargs), lambda argument: argument.meta["val"])
    quiet = fake_mode.shape_env.suppress_guards() if fake_mode.shape_env else nullcontext()
    try:
        with fake_mode, quiet, torch.no_grad():
            result = functional(*args, **kwargs)
    except Exception:
        # Whatever the functional form asks for beyond the one in place, the one in place has what it needs.
        return False
    return (result.dtype, result.shape, result.stride()) == (value.dtype, value.shape, value.stride())
