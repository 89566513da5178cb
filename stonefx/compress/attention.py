"""Where projections meet head by head, read from the graph."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from torch import fx, nn

from .heads import Affine, Comparison, Heads, Values
from .linear import LinearView
from .lossless import is_copy
from .structure import Structure, value

aten = torch.ops.aten


def find(structure: Structure, chosen: Container[str]) -> list[Heads]:
    """All pairs of projections that meet head by head, among the chosen layers."""
    found: list[Heads] = []
    graphs = dict.fromkeys(node.graph for node in structure.calls)
    for node in (node for graph in graphs for node in graph.nodes):
        query_key_values = _attention(node)
        if query_key_values is None:
            continue
        query, key, values = query_key_values
        if query is not None and key is not None:
            found += _comparison(structure, query, key)
        if values is not None:
            found += _values(structure, node, values)
    return [block for block in found if all(path in chosen for path in block.paths)]


def _attention(node: Any) -> tuple[Any, Any, Any] | None:
    """Queries, keys and values `[samples, heads, positions, features]` of a node that compares or mixes them."""
    if node.target is aten.scaled_dot_product_attention.default:
        return node.args[0], node.args[1], node.args[2]
    if node.target is aten.matmul.default and value(node).dim() == 4:
        left, right = node.args[0], node.args[1]
        if right.target is aten.transpose.int and _axes(right) == {2, 3} and len(right.users) == 1:
            return left, right.args[0], None
        return None, None, right
    return None


def _values(structure: Structure, mixed: Any, values: Any) -> list[Heads]:
    """The block of a mixture whose result one linear layer alone reads."""
    reader = _reader(structure, mixed)
    source = _projection(structure, _shared_by_heads(values))
    if reader is None or source is None:
        return []
    heads, d = value(mixed).shape[1], value(mixed).shape[3]
    path, output = structure.calls[reader], structure.layer(reader)
    assert isinstance(output, nn.Linear)
    first, groups, features = source
    if output.in_features != heads * d or features != d or heads % groups:
        return []
    view = LinearView(path, output, 1, output.out_features, output.in_features)
    return [Values((first, path), view, structure.model, heads, groups, d)]


def _comparison(structure: Structure, query: Any, key: Any) -> list[Heads]:
    shared = _shared_by_heads(key)
    if shared is None or len(query.users) != 1:
        return []
    query, key = _scaled(query), _scaled(shared)
    plain_query, plain_key = _unrotated(query), _unrotated(key)
    if (plain_query is None) != (plain_key is None):
        return []
    left = _projection(structure, plain_query or query, plain_query is not None)
    right = _projection(structure, plain_key or key, plain_key is not None)
    if left is None or right is None or left[2] != right[2] or left[1] % right[1] or left[2] % 2:
        return []
    layer: Any = structure.model.get_submodule(left[0])
    if left[0] == right[0]:
        return []
    view = Affine(left[0], layer, 1, layer.out_features, layer.in_features + 1)
    paths = (left[0], right[0])
    rotary = plain_query is not None
    return [Comparison(paths, view, structure.model, left[1], right[1], left[2], rotary)]


def _scaled(node: Any) -> fx.Node:
    """Before copies, and before products with one number."""
    while len(node.users) == 1:
        packet = getattr(node.target, "overloadpacket", None)
        by_number = packet in (aten.mul, aten.div) and isinstance(node.args[1], (int, float))
        if not (is_copy(node) or by_number):
            break
        node = node.args[0]
    return node


def _axes(node: Any) -> set[int]:
    dim = value(node).dim()
    return {int(a) % dim for a in node.args[1:3]}


def _swaps_heads(node: Any) -> bool:
    """`[samples, positions, heads, features]` to `[samples, heads, positions, features]`, or back."""
    if value(node).dim() != 4:
        return False
    if node.target is aten.transpose.int:
        return _axes(node) == {1, 2}
    return node.target is aten.permute.default and list(node.args[1]) == [0, 2, 1, 3]


def _is_reshape(node: Any) -> bool:
    return node.target in (aten.view.default, aten.reshape.default, aten.flatten.using_ints)


def _reader(structure: Structure, mixed: Any) -> fx.Node | None:
    """The one linear layer that reads the heads' results side by side."""
    node, swapped, joined = mixed, False, False
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node in structure.calls:
            return node if joined and isinstance(structure.layer(node), nn.Linear) else None
        if not swapped and _swaps_heads(node):
            swapped = True
        elif swapped and not joined and _is_reshape(node):
            before, after = value(node.args[0]).shape, value(node).shape
            if after[-1] != before[2] * before[3]:
                return None
            joined = True
        elif not is_copy(node):
            return None
    return None


def _projection(structure: Structure, node: Any, rotated: bool = False) -> tuple[str, int, int] | None:
    """Path, heads and features of the projection that makes `[samples, heads, positions, features]`.

    Nothing else may read a value on the way; of one that is `rotated` that is known.
    """
    swapped, split, first = False, None, True
    while isinstance(node, fx.Node) and (len(node.users) == 1 or (first and rotated)):
        first = False
        if node in structure.calls:
            layer = structure.layer(node)
            if split is None or not isinstance(layer, nn.Linear) or layer.out_features != split[0] * split[1]:
                return None
            return structure.calls[node], *split
        if not swapped and _swaps_heads(node):
            swapped = True
        elif swapped and split is None and _is_reshape(node):
            before, after = value(node.args[0]).shape, value(node).shape
            if before[-1] != after[2] * after[3]:
                return None
            split = (int(after[2]), int(after[3]))
        elif not is_copy(node):
            return None
        node = node.args[0]
    return None


def _shared_by_heads(node: Any) -> fx.Node | None:
    """Before keys or values of a group are repeated for each of its heads; None where something else reads them."""
    node = _scaled(node)
    if len(node.users) != 1:
        return None
    if not (_is_reshape(node) and isinstance(node.args[0], fx.Node) and value(node.args[0]).dim() == 5):
        return node
    repeated, wide = node.args[0], value(node)
    before = value(repeated).shape
    if (before[1] * before[2], before[3], before[4]) != tuple(wide.shape[1:]):
        return None
    repeated = _scaled(repeated)
    if repeated.target is not aten.expand.default or len(repeated.users) != 1:
        return None
    node = repeated.args[0]
    while node.target in (aten.slice.Tensor, aten.unsqueeze.default) and len(node.users) == 1:
        given: Any = node.args[0]
        if node.target is aten.slice.Tensor and value(given).shape != value(node).shape:
            return None
        if node.target is aten.unsqueeze.default and int(node.args[1]) % 5 != 2:
            return None
        node = given
    return node if value(node).dim() == 4 and value(node).shape[1] == before[1] else None


def _unrotated(node: Any) -> fx.Node | None:
    """What `x * cos + [-x2, x1] * sin` rotates, where nothing else reads it; None: this is no rotation."""
    if node.target is not aten.add.Tensor or node.kwargs:
        return None
    left, right = node.args
    for plain, turned in ((left, right), (right, left)):
        found = _rotation(plain, turned)
        if found is not None:
            return found
    return None


def _rotation(plain: Any, turned: Any) -> fx.Node | None:
    if not all(isinstance(n, fx.Node) and n.target is aten.mul.Tensor for n in (plain, turned)):
        return None
    if not all(isinstance(a, fx.Node) for a in (*plain.args, *turned.args)):
        return None
    for x, cosine in (plain.args, plain.args[::-1]):
        for joined, sine in (turned.args, turned.args[::-1]):
            if joined.target is not aten.cat.default or len(joined.args[0]) != 2:
                continue
            d = value(x).shape[-1]
            if value(x).dim() != 4 or not all(_spans_heads(angle, d) for angle in (cosine, sine)):
                continue
            negated, first = joined.args[0]
            second = negated.args[0] if negated.target is aten.neg.default else None
            if second is None or (joined.args[1] if len(joined.args) > 1 else 0) not in (-1, 3):
                continue
            halves = (_part(first, x), _part(second, x))
            users = {plain, first, second}
            alone = all(len(n.users) == 1 for n in (plain, turned, joined, negated, first, second))
            if halves == ((0, d // 2), (d // 2, d)) and set(x.users) == users and alone:
                return x
    return None


def _spans_heads(angle: Any, features: int) -> bool:
    shape = value(angle).shape
    return shape[-1] == features and (len(shape) < 3 or shape[-3] == 1)


def _part(node: Any, x: Any) -> tuple[int, int] | None:
    if node.target is not aten.slice.Tensor or node.args[0] is not x:
        return None
    _, axis, start, end, *step = node.args
    if int(axis) % 4 != 3 or step not in ([], [1]):
        return None
    return int(start or 0), min(int(end), value(x).shape[-1])
