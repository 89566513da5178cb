"""The nodes that a recognised map replaces, and whether replacing them is sound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import fx

from ..graph.effects import Effects, written_operands
from ..graph.nodes import source_line
from ..graph.shapes import is_row_major, same_size, same_sizes
from .evaluate import Evaluator, operator_name


@dataclass(frozen=True)
class Region:
    """A map in the graph.

    Args:
        root: the node that holds the map's value.
        vectors: the row vectors that it is a map of.
        scalars: the row scalars that its curvature is computed from.
        others: nodes of which only the shape is read.
        rows: every node computed from the vectors, the root included, in order.
        constants: every other node between the inputs and the root.
    """

    root: fx.Node
    vectors: tuple[fx.Node, ...]
    scalars: tuple[fx.Node, ...]
    others: tuple[fx.Node, ...]
    rows: tuple[fx.Node, ...]
    constants: tuple[fx.Node, ...]

    @property
    def inputs(self) -> tuple[fx.Node, ...]:
        """Everything that the region reads."""
        return (*self.vectors, *self.scalars, *self.others)


def region_of(evaluator: Evaluator, root: fx.Node) -> Region:
    """The region behind a root that the evaluator has a value for."""
    scalars: set[fx.Node] = set()
    others: set[fx.Node] = set()
    inside: set[fx.Node] = set()
    pending = [root]
    while pending:
        node = pending.pop()
        if node in inside or node in evaluator.vectors:
            continue
        is_tensor = isinstance(node.meta.get("val"), torch.Tensor)
        if node in evaluator.leaves:
            scalars.add(node)
        elif node in evaluator.values or (not is_tensor and node.op == "call_function"):
            inside.add(node)
            pending.extend(node.all_input_nodes)
        elif is_tensor:
            others.add(node)
    dependent = set(evaluator.vectors)
    ordered = sorted(inside, key=evaluator.order.__getitem__)
    for node in ordered:
        if any(argument in dependent for argument in node.all_input_nodes):
            dependent.add(node)
    in_order = evaluator.order.__getitem__
    return Region(
        root=root,
        vectors=tuple(evaluator.vectors),
        scalars=tuple(sorted(scalars, key=in_order)),
        others=tuple(sorted(others, key=in_order)),
        rows=tuple(node for node in ordered if node in dependent),
        constants=tuple(node for node in ordered if node not in dependent),
    )


def obstacle(region: Region, facts: Effects, grad: bool) -> str | None:
    """Why replacing the region would change what the graph computes, None where it would not."""
    return (
        _other_dtype(region, facts)
        or _other_shape(region)
        or _other_strides(region)
        or _mutated(region, facts)
        or (_gradient_stopped(region, facts) if grad else None)
    )


def _tensors(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    return [node for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)]


def _other_dtype(region: Region, facts: Effects) -> str | None:
    first = region.vectors[0].meta["val"]
    for node in _tensors((*region.vectors, *region.rows)):
        value = node.meta["val"]
        if value.dtype != first.dtype:
            autocast = ", under autocast" if node in facts.autocast else ""
            return (
                f"dtypes differ inside: {region.vectors[0].name} is {first.dtype}, "
                f"{node.name} is {value.dtype}{autocast}"
            )
        if value.device != first.device:
            return f"devices differ inside: {first.device} and, at {node.name}, {value.device}"
    return None


def _other_shape(region: Region) -> str | None:
    shape = region.root.meta["val"].shape
    rank = len(shape)
    matched = [False] * rank
    for node in (*region.vectors, *region.scalars):
        sizes = node.meta["val"].shape
        vector = node in region.vectors
        if len(sizes) > rank:
            return _shapes_text(region)
        offset = rank - len(sizes)
        for position, size in enumerate(sizes, offset):
            same = same_size(size, shape[position])
            last = position == rank - 1
            if not same and not same_size(size, 1):
                return _shapes_text(region)
            if vector and last and not same:
                return f"broadcasting runs along the row: {node.name} has {list(sizes)}, the result {list(shape)}"
            matched[position] |= same and vector
    if len(region.vectors) == 1 and not same_sizes(region.vectors[0].meta["val"].shape, shape):
        return _shapes_text(region)
    return None if all(matched) else _shapes_text(region)


def _other_strides(region: Region) -> str | None:
    value = region.root.meta["val"]
    if is_row_major(value):
        return None
    return (
        f"the result has strides {tuple(value.stride())}, not the row-major ones of the operator, and later views "
        "may rely on them"
    )


def _shapes_text(region: Region) -> str:
    inputs = ", ".join(
        f"{node.name} {list(node.meta['val'].shape)}" for node in (*region.vectors, *region.scalars)
    )
    return f"broadcasting is not over rows: {inputs} give {list(region.root.meta['val'].shape)}"


def _mutated(region: Region, facts: Effects) -> str | None:
    for node in (*region.rows, *region.constants):
        if written := written_operands(node):
            return f"{_named(node)} changes {written[0].name} in place"
    for node in _tensors(region.rows):
        if (writer := facts.writer(node)) is not None and not _same_memory(node, region):
            return f"{node.name} is changed in place by {_named(writer)}"
    first = min((*region.rows, *region.constants), key=facts.position.__getitem__)
    for node in _tensors((*region.inputs, *region.constants)):
        if (writer := facts.written_between(node, first, region.root)) is not None:
            return f"{node.name} is changed in place by {_named(writer)} before the map is computed"
    return None


def _same_memory(node: fx.Node, region: Region) -> bool:
    """Whether a node is a view of an input: then what counts is who writes between it and the root."""
    storage = node.meta["val"].untyped_storage()._cdata
    return any(storage == i.meta["val"].untyped_storage()._cdata for i in region.inputs)


def _gradient_stopped(region: Region, facts: Effects) -> str | None:
    for node in region.rows:
        if operator_name(node) == "detach":
            return f"the gradient is stopped inside, at {_named(node)}"
    modes = {node in facts.no_grad for node in (*region.rows, *region.constants)}
    if len(modes) > 1:
        return "a part of it is computed without gradient (no_grad, or a function with its own backward)"
    return None


def escaping(region: Region, evaluator: Evaluator, replaced: set[fx.Node]) -> str | None:
    """Which intermediate is needed outside of the regions that are replaced, None where none is."""
    for node in _tensors(region.rows[:-1]):
        value = evaluator.values.get(node)
        if value is not None and any(value == evaluator.values[v] for v in region.vectors):
            continue
        for user in node.users:
            if user.op == "output":
                return f"the intermediate {_named(node)} is returned"
            if user not in replaced and isinstance(user.meta.get("val"), torch.Tensor | tuple | list):
                return f"the intermediate {_named(node)} is also used by {_named(user)}"
    return None


def _named(node: fx.Node) -> str:
    line = source_line(node)
    return f"{node.name} ({line})" if line else node.name
