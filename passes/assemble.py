"""Tensors that are filled part by part, in place, as one concatenation: no later pass has to follow the writes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from .graph.arguments import named_arguments, packet
from .graph.effects import Effects, storage, storages
from .graph.nodes import val
from .graph.parts import Part, interval
from .graph.shapes import is_row_major, same_size, same_sizes

aten = torch.ops.aten
# What makes memory that nothing else knows; `clone` makes it of a value.
FRESH = frozenset(
    getattr(aten, name)
    for name in (
        "zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full empty empty_like new_empty clone"
    ).split()
)
UNFILLED = frozenset({aten.empty, aten.empty_like, aten.new_empty})
# What writes all of its first operand, and the operator that gives the same value.
IN_PLACE: dict[Any, Any] = {
    aten.mul_: aten.mul,
    aten.div_: aten.div,
    aten.add_: aten.add,
    aten.sub_: aten.sub,
    aten.neg_: aten.neg,
}


def assemble(graph: fx.Graph, facts: Effects) -> bool:
    """Turn each tensor that is written to in parts, before it is read, into a concatenation; whether there was one.

    >>> import torch
    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> from stonefx.passes.graph.effects import effects
    >>> def point(t, x):
    ...     y = torch.ones(2, 4)
    ...     y[:, :1] = t
    ...     y[:, 1:] = x
    ...     return y
    >>> module = make_fx(point, tracing_mode="fake")(torch.ones(2, 1), torch.ones(2, 3))
    >>> assemble(module.graph, effects(module.graph))
    True
    >>> [str(node.target) for node in module.graph.nodes if node.op == "call_function"]
    ['aten.cat.default']
    """
    written = [node for node in graph.nodes if packet(node) in FRESH and storage(node) in facts.writers]
    changed = [node for node in written if _assembled(node, facts)]
    return bool(changed)


def _assembled(base: fx.Node, facts: Effects) -> bool:
    parts = _parts(base, facts)
    if parts is None:
        return False
    dim, writers = parts[0][1][1], [writer for writer, _ in parts]
    views: list[Any] = [writer.args[0] for writer in writers]
    readers = {user for user in base.users if user not in views}
    last = max(writers, key=facts.position.__getitem__)
    ordered = sorted(parts, key=lambda item: item[1][2])
    size, pieces = val(base).shape[dim], []
    end: Any = 0
    with base.graph.inserting_after(last):
        anchor = base.graph.call_function(aten.cat.default, ([], dim))
    for writer, part in ordered:
        if part[2] > end:
            pieces.append(_slice(anchor, base, dim, end, part[2]))
        pieces.append(_written(anchor, base, writer, part))
        end = part[3]
    if not same_size(end, size):
        pieces.append(_slice(anchor, base, dim, end, sys.maxsize))
    base.replace_all_uses_with(anchor, delete_user_cb=lambda user: user in readers)
    anchor.args = (pieces, dim)
    anchor.meta = {k: last.meta[k] for k in ("stack_trace", "nn_module_stack") if k in last.meta}
    with base.meta["val"].fake_mode, torch.no_grad():
        trained = any(val(piece).requires_grad for piece in pieces)
        anchor.meta["val"] = val(base).new_empty(val(base).shape).requires_grad_(trained)
    for node in (*writers, *views, base):
        if not node.users:
            base.graph.erase_node(node)
    return True


def _parts(base: fx.Node, facts: Effects) -> list[tuple[fx.Node, Part]] | None:
    """What writes to parts of a tensor that lie side by side along one dimension, all of it before anything reads."""
    value = val(base)
    writers = facts.writers[storage(base)]
    if not is_row_major(value) or base in facts.no_grad or any(w in facts.no_grad for w in writers):
        return None
    found: list[tuple[fx.Node, Part]] = []
    for writer in writers:
        view = writer.args[0] if writer.args else None
        part = interval(view) if isinstance(view, fx.Node) else None
        if part is None or part[0] is not base or set(view.users) != {writer} or writer.users:  # type: ignore[union-attr]
            return None
        if not _can_write(base, view, writer, facts):  # type: ignore[arg-type]
            return None
        found.append((writer, part))
    views = {writer.args[0] for writer in writers}
    last = max(map(facts.position.__getitem__, writers))
    if any(facts.position[user] < last for user in base.users if user not in views):
        return None
    memory = storage(base)
    known = {base, *views, *writers}
    early = (n for n in base.graph.nodes if facts.position.get(n, last + 1) <= last and n not in known)
    if any(memory in storages(node) for node in early) or len({part[1] for _, part in found}) != 1:
        return None
    found.sort(key=lambda item: item[1][2])
    bounds = [(part[2], part[3]) for _, part in found]
    if not all(isinstance(last, int) for _, last in bounds[:-1]):
        return None
    ends = [0, *(last for _, last in bounds)]
    starts = [*(first for first, _ in bounds), value.shape[found[0][1][1]]]
    apart = all(end <= start for end, start in zip(ends[:-1], starts[:-1], strict=True))
    whole = all(same_size(end, start) for end, start in zip(ends, starts, strict=True))
    return found if apart and (whole or packet(base) not in UNFILLED) else None


def _can_write(base: fx.Node, view: fx.Node, writer: fx.Node, facts: Effects) -> bool:
    kind, given = packet(writer), named_arguments(writer)
    last = facts.writers[storage(base)][-1]
    sources = [a for a in writer.args[1:] if isinstance(a, fx.Node)]
    if any(storage(s) == storage(base) or facts.written_between(s, writer, last) for s in sources):
        return False
    if kind is aten.copy_:
        source = given["src"]
        return isinstance(source, fx.Node) and val(source).dtype == val(base).dtype
    if kind is aten.fill_:
        return True
    if kind not in IN_PLACE or len(writer.kwargs):
        return False
    first, second = val(view), val(sources[0]) if sources else None
    return second is None or (second.dtype == first.dtype and len(second.shape) <= len(first.shape))


def _written(anchor: fx.Node, base: fx.Node, writer: fx.Node, part: Part) -> fx.Node:
    """The value that a part was given, with the part's shape."""
    _, dim, _, _, keeps = part
    kind, view = packet(writer), writer.args[0]
    shape = val(view).shape  # type: ignore[arg-type]
    if kind is aten.copy_:
        piece = writer.args[1]
        if not same_sizes(val(piece).shape, shape):  # type: ignore[arg-type]
            held = _insert(anchor, _part_of(base, part))
            piece = _insert(anchor, (aten.expand_as.default, (piece, held)))
    else:
        held = _insert(anchor, _part_of(base, part))
        if kind is aten.fill_:
            fill = writer.args[1]
            if isinstance(fill, fx.Node):
                piece = _insert(
                    anchor,
                    (
                        aten.expand_as.default,
                        (_insert(anchor, (aten.to.dtype, (fill, val(base).dtype))), held),
                    ),
                )
            else:
                piece = _insert(anchor, (aten.full_like.default, (held, fill)))
        else:
            overload = getattr(IN_PLACE[kind], writer.target._overloadname)  # type: ignore[union-attr]
            piece = _insert(anchor, (overload, (held, *writer.args[1:])))
    return piece if keeps else _insert(anchor, (aten.unsqueeze.default, (piece, dim)))  # type: ignore[return-value]


def _part_of(base: fx.Node, part: Part) -> tuple[Any, Sequence[Any]]:
    _, dim, first, last, keeps = part
    if keeps:
        return aten.slice.Tensor, (base, dim, first, last if isinstance(last, int) else sys.maxsize, 1)
    return aten.select.int, (base, dim, first)


def _slice(anchor: fx.Node, base: fx.Node, dim: int, first: int, last: int) -> fx.Node:
    return _insert(anchor, (aten.slice.Tensor, (base, dim, first, last, 1)))


def _insert(anchor: fx.Node, call: tuple[Any, Sequence[Any]]) -> fx.Node:
    target, args = call
    values: Any = fx.node.map_arg(tuple(args), lambda node: node.meta["val"])
    with anchor.graph.inserting_before(anchor):
        node = anchor.graph.call_function(target, tuple(args))
    with _first(args).meta["val"].fake_mode:
        node.meta["val"] = target(*values)
    return node


def _first(args: Sequence[Any]) -> fx.Node:
    """The first node among the arguments of a call."""
    return next(argument for argument in args if isinstance(argument, fx.Node))
