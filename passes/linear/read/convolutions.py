"""Convolutions in every spelling, read as maps of features."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ...graph.arguments import packet
from ...graph.nodes import val
from ...graph.weights import Matrix
from ..algebra.elements import Apply, Convolve, Element, Shift
from ..algebra.values import Value

aten = torch.ops.aten
_SPATIAL = {
    aten.conv1d: 1,
    aten.conv2d: 2,
    aten.conv3d: 3,
    aten.conv_transpose1d: 1,
    aten.conv_transpose2d: 2,
    aten.conv_transpose3d: 3,
}
CONVOLUTIONS = (*_SPATIAL, aten.convolution)


def read_convolution(node: fx.Node, given: dict[str, Any]) -> tuple[Value, int, tuple[Element, ...]] | None:
    """Read a convolution; one that looks at a single place is a plain matrix."""
    operand, weight = given["input"], given["weight"]
    if not isinstance(operand, fx.Node) or not isinstance(weight, fx.Node):
        return None
    spatial = _SPATIAL.get(packet(node)) or val(weight).dim() - 2
    if val(weight).dim() != spatial + 2 or not all(isinstance(size, int) for size in val(weight).shape):
        return None
    transposed = bool(given.get("transposed", packet(node) not in (aten.conv1d, aten.conv2d, aten.conv3d)))
    kernel = val(weight).shape[2:]
    dilation = _each(given["dilation"], spatial)
    padding = _padding(given["padding"], kernel, dilation)
    if padding is None:
        return None
    stride = _each(given["stride"], spatial)
    output_padding = _each(given.get("output_padding", 0), spatial)
    axis = val(operand).dim() - spatial - 1
    convolve = Convolve(weight, stride, padding, dilation, int(given["groups"]), transposed, output_padding)
    element: Element = Apply(Matrix(weight, transposed)) if is_pointwise(convolve) else convolve
    bias = () if given["bias"] is None else (Shift(given["bias"]),)
    return Value(operand, axis), axis, (element, *bias)


def is_pointwise(element: Convolve) -> bool:
    """Whether a convolution reads one place only, and every place once."""
    return (
        element.groups == 1
        and element.volume == 1
        and all(step == 1 for step in element.stride)
        and not any(element.padding)
        and not any(element.output_padding)
    )


def _each(value: Any, spatial: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return tuple(int(item) for item in (values * spatial if len(values) == 1 else values))


def _padding(value: Any, kernel: Any, dilation: tuple[int, ...]) -> tuple[int, ...] | None:
    """Zeros on either side; None where the two sides differ."""
    if value == "valid":
        return (0,) * len(kernel)
    if value == "same":
        total = [step * (int(size) - 1) for size, step in zip(kernel, dilation, strict=True)]
        return None if any(size % 2 for size in total) else tuple(size // 2 for size in total)
    return _each(value, len(kernel))
