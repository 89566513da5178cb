"""The nodes that a recognised map replaces, and whether replacing them is sound."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from ..graph.effects import Effects, written_operands
from ..graph.nodes import source_line
from ..graph.shapes import entries, is_row_major, same_size
from ..refusal import Refusal
from .read.evaluate import Evaluator, operator_name
from .read.values import ROW, ROWS, WHOLE, Axes, Label, Value, has_time, row_of
from .rows.algebra import Algebra
from .rows.forms import Form


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

    def joined(self, inner: Region) -> Region:
        """This region and one that computes a row vector of it."""
        rows = dict.fromkeys((*inner.rows, *self.rows))
        constants = dict.fromkeys((*inner.constants, *self.constants))
        scalars = dict.fromkeys((*inner.scalars, *self.scalars))
        return Region(
            root=self.root,
            vectors=tuple(dict.fromkeys(v for v in (*inner.vectors, *self.vectors) if v is not inner.root)),
            scalars=tuple(scalars),
            others=tuple(dict.fromkeys((*inner.others, *self.others))),
            rows=tuple(rows),
            constants=tuple(node for node in constants if node not in rows),
        )

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


def obstacle(
    region: Region,
    values: Mapping[fx.Node, Value],
    facts: Effects,
    grad: bool,
    apart: Collection[fx.Node] = (),
) -> Refusal | None:
    """Why replacing the region would change what the graph computes, None where it would not.

    Args:
        region: the nodes.
        values: what they are to the row algebra.
        facts: of the graph.
        grad: gradients are wanted.
        apart: row vectors whose rows may have another length than those of the result.
    """
    return (
        _other_dtype(region, values, facts)
        or _other_shape(region, values, apart)
        or _other_strides(region)
        or _mutated(region, facts)
        or (_gradient_stopped(region, facts) if grad else None)
    )


def _tensors(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    return [node for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)]


def _other_dtype(region: Region, values: Mapping[fx.Node, Value], facts: Effects) -> Refusal | None:
    """Rows are of one dtype, and so is the result; numbers of a row may be of a wider one in between."""
    first = region.vectors[0].meta["val"]
    for node in _tensors((*region.vectors, *region.rows)):
        value = node.meta["val"]
        number = node is not region.root and node in values and row_of(values[node].axes) is None
        condition = node is not region.root and value.dtype in (torch.bool, torch.uint8)
        wider = condition or (number and value.dtype == torch.float64)
        if value.dtype != first.dtype and not wider:
            autocast = ", under autocast" if node in facts.autocast else ""
            return Refusal(
                "dtypes_inside",
                first=region.vectors[0].name,
                expected=str(first.dtype),
                value=node.name,
                dtype=str(value.dtype),
                where=autocast,
            )
        if value.device != first.device:
            return Refusal(
                "devices_inside", expected=str(first.device), value=node.name, device=str(value.device)
            )
    return None


def _other_shape(
    region: Region, values: Mapping[fx.Node, Value], apart: Collection[fx.Node]
) -> Refusal | None:
    """Every dimension of the result is one of a row vector, with its size."""
    root = region.root
    sizes: dict[Label, list[int | torch.SymInt]] = {}
    for node in region.vectors:
        for label, size in zip(values[node].axes, node.meta["val"].shape, strict=True):
            if label in ROWS and node in apart:
                continue
            sizes.setdefault(label, []).append(size)
            if label in ROWS:
                other, more = (ROW, -1) if label == WHOLE else (WHOLE, 1)
                sizes.setdefault(other, []).append(size + more)
    for label, size in zip(full_axes(values[root].axes, root), root.meta["val"].shape, strict=True):
        known = [1] if label is None else sizes.get(label, [])
        if not known or not all(same_size(size, other) for other in known):
            if label in ROWS:
                node = region.vectors[-1]
                return Refusal(
                    "along_the_row",
                    value=node.name,
                    shape=str(list(node.meta["val"].shape)),
                    result=str(list(root.meta["val"].shape)),
                )
            return _other_shapes(region)
    return None


def full_axes(axes: Axes, node: fx.Node) -> Axes:
    """One label for each dimension of a node: a constant has none of its own."""
    return (None,) * (node.meta["val"].ndim - len(axes)) + axes


def _other_strides(region: Region) -> Refusal | None:
    value = region.root.meta["val"]
    if is_row_major(value):
        return None
    return Refusal("operator_strides", strides=str(tuple(value.stride())))


def _other_shapes(region: Region) -> Refusal:
    inputs = ", ".join(
        f"{node.name} {list(node.meta['val'].shape)}" for node in (*region.vectors, *region.scalars)
    )
    return Refusal("not_over_rows", inputs=inputs, result=str(list(region.root.meta["val"].shape)))


def _mutated(region: Region, facts: Effects) -> Refusal | None:
    for node in (*region.rows, *region.constants):
        if written := written_operands(node):
            return Refusal("changes_inside", writer=_named(node), value=written[0].name)
    for node in _tensors(region.rows):
        if (writer := facts.writer(node)) is not None and not _same_memory(node, region):
            return Refusal("changed_inside", value=node.name, writer=_named(writer), when="")
    first = min((*region.rows, *region.constants), key=facts.position.__getitem__)
    for node in _tensors((*region.inputs, *region.constants)):
        if (writer := facts.written_between(node, first, region.root)) is not None:
            return Refusal(
                "changed_inside", value=node.name, writer=_named(writer), when=" before the map is computed"
            )
    return None


def _same_memory(node: fx.Node, region: Region) -> bool:
    """Whether a node is a view of an input: then what counts is who writes between it and the root."""
    storage = node.meta["val"].untyped_storage()._cdata
    return any(storage == i.meta["val"].untyped_storage()._cdata for i in region.inputs)


def _gradient_stopped(region: Region, facts: Effects) -> Refusal | None:
    for node in region.rows:
        if operator_name(node) == "detach":
            return Refusal("stopped_inside", value=_named(node))
    modes = {node in facts.no_grad for node in (*region.rows, *region.constants)}
    if len(modes) > 1:
        return Refusal("half_without_gradient")
    return None


def escaping(
    region: Region, values: Mapping[fx.Node, Value], replaced: set[fx.Node], algebra: Algebra, planes: bool
) -> Refusal | None:
    """Which intermediate is needed outside of the regions that are replaced, None where none is.

    Of `planes`, what has fewer entries than the result may stay: it is a length or a factor of one of the two sides.
    """
    stay = [form for v in region.vectors for form in _views(values[v], algebra)]
    for node in _tensors(region.rows[:-1]):
        value = values.get(node)
        if planes and not _is_as_large(node, region.root):
            continue
        if value is not None and any(_same_but_sign(value.form, form) for form in stay):
            continue  # a view of an input, or its negative, which stays
        for user in node.users:
            if user.op == "output":
                return Refusal("needed_inside", value=_named(node), use="is returned")
            if user not in replaced and isinstance(user.meta.get("val"), torch.Tensor | tuple | list):
                return Refusal("needed_inside", value=_named(node), use=f"is also used by {_named(user)}")
    return None


def _is_as_large(node: fx.Node, root: fx.Node) -> bool:
    return entries(node.meta["val"]) >= entries(root.meta["val"])


def _views(value: Value, algebra: Algebra) -> list[Form]:
    """An input, and its time and space components."""
    return [value.form, *algebra.parted(value.form)] if has_time(value.axes) else [value.form]


def _same_but_sign(left: Form, right: Form) -> bool:
    mine, theirs = dict(left), dict(right)
    return mine.keys() == theirs.keys() and all(abs(k) == abs(theirs[m]) for m, k in mine.items())


def _named(node: fx.Node) -> str:
    line = source_line(node)
    return f"{node.name} ({line})" if line else node.name
