"""Carries over neighbouring places: pooling, interpolation, padding, sampling on a grid, windows, pixel shuffle."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.nodes import val
from ...graph.shapes import same_sizes
from ..algebra.readings import Moves
from ..algebra.values import Value
from .views import again

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


def _pool(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source, spatial = given["self"], _POOLS[packet(node)]
    if axis >= val(source).dim() - spatial:
        return None
    padding = given.get("padding", 0)
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    preserves = not (padded and given.get("count_include_pad", True)) and not given.get("divisor_override")
    return Moves(node, Value(source, axis), again(node, axis), preserves=preserves)


def _upsample(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    name = "input" if "input" in given else "self"
    source = given[name]
    if axis >= val(source).dim() - _UPSAMPLES[packet(node)]:
        return None
    return Moves(node, Value(source, axis), again(node, axis, name))


def is_idle_upsample(node: fx.Node) -> bool:
    """Whether a node interpolates to the sizes that are there already, which changes nothing."""
    if packet(node) not in _UPSAMPLES:
        return False
    given = named_arguments(node)
    scaled = any(value is not None for name, value in given.items() if name.startswith("scale"))
    return not scaled and same_sizes(val(node).shape, val(node.all_input_nodes[0]).shape)


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
    return Moves(node, Value(source, axis), again(node, axis), preserves=mode != "constant")


def _grid_sample(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """Sampling at places that a grid says; beyond the border there may be zeros."""
    source, grid = given["input"], given["grid"]
    if axis != 1:
        return None
    return Moves(node, Value(source, 1), again(node, 1, "input"), preserves=False, beside=(grid,), summed=4)


def _windows(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """`Tensor.unfold`: overlapping windows along an axis, in a new last one."""
    source = given["self"]
    if given["dimension"] % val(source).dim() == axis or axis == val(source).dim():
        return None
    return Moves(node, Value(source, axis), again(node, axis))


def _shuffle(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """A pixel shuffle, which moves entries between the last three axes."""
    source = given["self"]
    return Moves(node, Value(source, axis), again(node, axis)) if axis < val(source).dim() - 3 else None


def _channel_shuffle(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """A channel shuffle, which reorders the second axis."""
    return Moves(node, Value(given["self"], axis), again(node, axis)) if axis != 1 else None


READERS = {
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_UPSAMPLES, _upsample),
    aten.constant_pad_nd: _pad,
    aten.pad: _pad,
    aten.grid_sampler: _grid_sample,
    aten.grid_sampler_2d: _grid_sample,
    aten.grid_sampler_3d: _grid_sample,
    aten.unfold: _windows,
    aten.pixel_shuffle: _shuffle,
    aten.pixel_unshuffle: _shuffle,
    aten.channel_shuffle: _channel_shuffle,
    aten.native_channel_shuffle: _channel_shuffle,
}
