"""What stands between two maps and is nothing that maps are merged through: which operation, and why not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from ...graph.arguments import aliases, is_operator, packet
from ...graph.effects import written_operands
from ...graph.nodes import source_line, val
from ...graph.shapes import expression
from ...graph.sizes import is_size
from ...refusal import Refusal
from ..read.obstacles import call, written_at
from ..read.reader import Reader

aten = torch.ops.aten

# As many maps are named for a value that many are joined in.
_MOST = 4
_LIKE = ("rand_like", "randn_like", "randint_like")
_PRODUCTS = ("mul", "mul_", "multiply", "multiply_")
_QUOTIENTS = ("div", "div_", "divide", "divide_", "true_divide")
_CONTRACTIONS = ("matmul", "mm", "bmm", "baddbmm", "einsum", "dot", "vdot", "mv", "outer", "addmm", "linear")
_SUMS = ("add", "add_", "sub", "sub_", "rsub", "subtract")
_JOINS = ("cat", "stack", "concat", "concatenate")
# As views, they move entries, so that another operation tells more, where there is one.
_COPIES = ("_unsafe_view", "getitem", "clone", "_to_copy")
# Linear in what they are given, and read by none of the readers.
_LINEAR = (
    "complex view_as_complex conj flip roll rot90 cumsum cumsum_ index index_select gather take repeat "
    "repeat_interleave index_put index_put_ index_add index_add_ index_copy index_copy_ scatter scatter_ scatter_add "
    "scatter_add_ slice_scatter select_scatter diag_embed tril triu constant_pad_nd pad im2col col2im unfold "
    "copy copy_ sum mean"
).split()


def between(node: fx.Node, after: fx.Node, reader: Reader) -> Refusal | None:
    """Why nothing is merged through a value that is not read; None where it is computed from no map.

    Args:
        node: the value.
        after: the map that comes behind it.
        reader: reads the graph.
    """
    way = next(_ways(node, reader), None)
    if way is None:
        return None
    read = [*way[1:], next(each for each in _operands(way[-1], reader) if _is_map(each, reader))]
    picks = next((each for each, given in zip(way, read, strict=True) if _picks_rows(each, given)), None)
    if picks is not None:
        return Refusal("data_rows", operator=call(picks))
    operation = next((each for each in way if not _is_view(each)), node)
    linear, how = _how(operation, reader)
    stops = next((each for each in way if packet(each) is aten.detach), None)
    if stops is not None and linear:
        return Refusal("detached", operator=call(stops))
    at = written_at(operation) if source_line(operation) != source_line(after) else ""
    if linear and _is_view(operation) and _is_single(read[-1], reader):
        return Refusal("single_feature", operator=call(operation), at=at)
    if linear:
        return Refusal("unread", operator=call(operation), how=how, at=at)
    return Refusal("nonlinear", operator=call(operation), how=how, at=at)


def maps_before(node: fx.Node, reader: Reader) -> list[fx.Node]:
    """The nearest maps that a value is computed from, through operations of any kind; a few, where there are many."""
    found: dict[fx.Node, None] = {}
    for way in _ways(node, reader):
        found.update(dict.fromkeys(each for each in _operands(way[-1], reader) if _is_map(each, reader)))
        if len(found) >= _MOST:
            break
    return list(found)


def _ways(node: fx.Node, reader: Reader) -> Iterator[list[fx.Node]]:
    """The operations from a value down to one that reads a map, the shortest ways first; none if it is a map itself."""
    if node.op != "call_function" or node in reader.fixed or _is_map(node, reader):
        return
    users: dict[fx.Node, fx.Node | None] = {node: None}
    queue = deque([node])
    while queue:
        current = queue.popleft()
        below = _operands(current, reader)
        if any(_is_map(each, reader) for each in below):
            way: list[fx.Node] = []
            step: fx.Node | None = current
            while step is not None:
                way.insert(0, step)
                step = users[step]
            yield way
        for each in below:
            if each not in users and not _is_map(each, reader):
                users[each] = current
                queue.append(each)


def _operands(node: fx.Node, reader: Reader) -> list[fx.Node]:
    """The computed values whose entries an operation reads, not their sizes alone."""
    if _name(node) in _LIKE:
        return []
    return [
        each
        for each in node.all_input_nodes
        if each.op == "call_function" and each not in reader.fixed and not is_size(node, each)
    ]


def _is_map(node: fx.Node, reader: Reader) -> bool:
    return reader.map_axis(node) is not None


def _is_single(node: fx.Node, reader: Reader) -> bool:
    """Whether a map makes one feature."""
    axis = reader.map_axis(node)
    return axis is not None and axis >= 0 and expression(val(node).shape[axis]) == 1


def _name(node: fx.Node) -> str:
    target: Any = node.target
    return target.overloadpacket.__name__ if is_operator(node) else getattr(target, "__name__", str(target))


def _how(node: fx.Node, reader: Reader) -> tuple[bool, str]:
    """Whether an operation is linear in what it is given, and what a sentence about it adds."""
    name = _name(node)
    computed = [each for each in node.all_input_nodes if each not in reader.fixed and not _is_constant(each)]
    if name in (*_PRODUCTS, *_QUOTIENTS, *_CONTRACTIONS):
        if len(computed) > 1 or node.args[:2] == (*computed, *computed):
            return False, ": both of its operands are computed at each call"
        if name in _QUOTIENTS and node.args[0] not in computed:
            return False, ""
        return True, "" if name in _CONTRACTIONS else ", which scales each row by other factors"
    if name in _SUMS:
        return True, ", which adds another term to each row"
    if name in _JOINS:
        return True, ", which joins them with other values"
    if _is_view(node):
        return True, ", which takes features and rows apart"
    return name in _LINEAR or name.startswith("fft_"), ""


def _is_view(node: fx.Node) -> bool:
    shows = is_operator(node) and aliases(node.target) and not written_operands(node)
    return shows or _name(node) in _COPIES


def _is_constant(node: fx.Node) -> bool:
    return node.op == "call_function" and not node.all_input_nodes


def _picks_rows(node: fx.Node, operand: fx.Node) -> bool:
    """Whether only the data count how many rows of its operand a value has."""
    result, given = node.meta.get("val"), operand.meta.get("val")
    if not isinstance(result, torch.Tensor) or not isinstance(given, torch.Tensor):
        return False
    return bool(free_unbacked_symbols(result) - free_unbacked_symbols(given))
