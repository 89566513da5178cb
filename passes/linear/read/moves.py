"""Operations on the axes that carry features along: reshapes, pooling, interpolation, selection, means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.nodes import val
from ...graph.shapes import expression, same_sizes
from ..algebra.readings import Moves
from ..algebra.values import Value, readable
from .views import ORDERED_VIEWS, PERMUTATIONS, again, read_permutation, read_reshape

aten = torch.ops.aten

_POOLS = {
    aten.avg_pool1d: 1,
    aten.avg_pool2d: 2,
    aten.avg_pool3d: 3,
    aten.adaptive_avg_pool1d: 1,
    aten.adaptive_avg_pool2d: 2,
    aten.adaptive_avg_pool3d: 3,
    aten._adaptive_avg_pool2d: 2,
    aten._adaptive_avg_pool3d: 3,
}
_UPSAMPLES = {
    aten.upsample_nearest1d: 1,
    aten.upsample_nearest2d: 2,
    aten.upsample_nearest3d: 3,
    aten._upsample_nearest_exact1d: 1,
    aten._upsample_nearest_exact2d: 2,
    aten._upsample_nearest_exact3d: 3,
    aten.upsample_linear1d: 1,
    aten.upsample_bilinear2d: 2,
    aten._upsample_bilinear2d_aa: 2,
    aten.upsample_bicubic2d: 2,
    aten._upsample_bicubic2d_aa: 2,
    aten.upsample_trilinear3d: 3,
}
# On these the feature axis only has to be none of the axes that they name.
_ONE_AXIS = (aten.slice, aten.index_select, aten.narrow, aten.cumsum)
_SOME_AXES = (aten.mean, aten.sum, aten.flip)


def read_move(node: fx.Node, axis: int) -> Moves | None:
    """Read a node as an operation on the axes other than `axis` of its result; None where it is not one."""
    reader = _READERS.get(packet(node))
    found = reader(node, axis, named_arguments(node)) if reader else None
    if found is None or not readable(found.operand.node, found.operand.axis):
        return None
    if val(node).dtype != found.operand.tensor.dtype or found.operand.width != val(node).shape[axis]:
        return None
    return found


def _pool(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source, spatial = given["self"], _POOLS[packet(node)]
    if axis >= val(source).dim() - spatial:
        return None
    padding = given.get("padding", 0)
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    preserves = not (padded and given.get("count_include_pad", True)) and not given.get("divisor_override")
    return Moves(node, Value(source, axis), again(node), preserves=preserves)


def _upsample(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    name = "input" if "input" in given else "self"
    source = given[name]
    if axis >= val(source).dim() - _UPSAMPLES[packet(node)]:
        return None
    return Moves(node, Value(source, axis), again(node, name))


def is_idle_upsample(node: fx.Node) -> bool:
    """Whether a node interpolates to the sizes that are there already, which changes nothing."""
    if packet(node) not in _UPSAMPLES:
        return False
    given = named_arguments(node)
    scaled = any(value is not None for name, value in given.items() if name.startswith("scale"))
    return not scaled and same_sizes(val(node).shape, val(node.all_input_nodes[0]).shape)


def _one_axis(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source = given["self"]
    if given["dim"] % val(source).dim() == axis or given.get("dtype") is not None:
        return None
    return Moves(node, Value(source, axis), again(node), preserves=packet(node) is not aten.cumsum)


def _select(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source = given["self"]
    dim = given["dim"] % val(source).dim()
    return Moves(node, Value(source, axis + (dim <= axis)), again(node))


def _some_axes(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source = given["self"]
    rank = val(source).dim()
    dims = given.get("dim", given.get("dims"))
    if not isinstance(dims, list | tuple) or not dims or given.get("dtype") is not None:
        return None
    gone = sorted({dim % rank for dim in dims})
    if packet(node) is aten.flip or given.get("keepdim"):
        before = axis
    else:
        before = axis
        for dim in gone:
            before += dim <= before
    if before in gone:
        return None
    return Moves(node, Value(source, before), again(node), preserves=packet(node) is not aten.sum)


def _roll(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source, dims = given["self"], given["dims"]
    if not dims or axis in [dim % val(source).dim() for dim in dims]:
        return None
    return Moves(node, Value(source, axis), again(node))


def _expand(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source = given["self"]
    before = axis - (val(node).dim() - val(source).dim())
    if before < 0 or expression(val(source).shape[before]) != expression(val(node).shape[axis]):
        return None
    sizes = "size" if "size" in given else None
    return Moves(node, Value(source, before), again(node, sizes=sizes, axis=axis))


def _repeat(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source = given["self"]
    before = axis - (val(node).dim() - val(source).dim())
    if before < 0 or given["repeats"][axis] != 1:
        return None
    return Moves(node, Value(source, before), again(node))


def is_idle_pad(node: fx.Node) -> bool:
    """Whether a node pads every axis by nothing, as code for several kernel sizes does."""
    if packet(node) not in (aten.constant_pad_nd, aten.pad):
        return False
    return all(isinstance(size, int) and size == 0 for size in named_arguments(node)["pad"])


def _pad(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source = given["self"]
    pads = list(given["pad"])
    place = val(source).dim() - 1 - axis
    if any(isinstance(size, fx.Node) or size != 0 for size in pads[2 * place : 2 * place + 2]):
        return None
    mode = given.get("mode", "constant")
    value = given.get("value") or 0
    if mode == "constant" and value != 0:
        return None
    return Moves(node, Value(source, axis), again(node), preserves=mode != "constant")


def _attention(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """Attention as an average of its values along the sequence; the width stays, as fused kernels want it."""
    value = given["value"]
    if axis != val(node).dim() - 1 or given["dropout_p"] != 0 or given["enable_gqa"]:
        return None
    if val(value).dim() != val(node).dim() or value in (given["query"], given["key"]):
        return None
    # A row whose every key is masked is no average.
    return Moves(
        node, Value(value, axis), again(node, "value"), preserves=given["attn_mask"] is None, rigid=True
    )


_READERS: dict[Any, Callable[[fx.Node, int, dict[str, Any]], Moves | None]] = {
    **dict.fromkeys(ORDERED_VIEWS, read_reshape),
    **dict.fromkeys(PERMUTATIONS, read_permutation),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_UPSAMPLES, _upsample),
    **dict.fromkeys(_ONE_AXIS, _one_axis),
    **dict.fromkeys(_SOME_AXES, _some_axes),
    aten.select: _select,
    aten.scaled_dot_product_attention: _attention,
    aten.roll: _roll,
    aten.expand: _expand,
    aten.repeat: _repeat,
    aten.constant_pad_nd: _pad,
    aten.pad: _pad,
}
