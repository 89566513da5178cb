"""Kernels of grouped and transposed convolutions, in the layout `[out, in / groups, places]`."""

from __future__ import annotations

import torch
from torch import fx

from ...graph.emit import Emitter
from ...graph.nodes import val
from .elements import Convolve

aten = torch.ops.aten


def ungrouped(emit: Emitter, kernel: fx.Node, element: Convolve) -> fx.Node:
    """The kernel of the same convolution with one group: zeros wherever features do not meet."""
    if element.groups == 1:
        return kernel
    groups = element.groups
    outputs, inputs, volume = (int(size) for size in val(kernel).shape)
    split = emit(aten.reshape.default, kernel, [groups, outputs // groups, 1, inputs, volume])
    eye = emit(aten.eye.default, groups, dtype=torch.float64, device=val(emit.anchor).device)
    mask = emit(aten.reshape.default, eye, [groups, 1, groups, 1, 1])
    return emit(aten.reshape.default, emit(aten.mul.Tensor, split, mask), [outputs, groups * inputs, volume])


def by_group(emit: Emitter, vector: fx.Node, element: Convolve) -> fx.Node:
    """One entry a feature read, `[in]`, laid out for the kernel's rows: `[1 or out, in / groups]`."""
    groups = element.groups
    if groups == 1:
        return emit(aten.reshape.default, vector, [1, -1])
    split = emit(aten.reshape.default, vector, [groups, 1, element.inputs // groups])
    spread = emit(aten.expand.default, split, [groups, element.outputs // groups, element.inputs // groups])
    return emit(aten.reshape.default, spread, [element.outputs, element.inputs // groups])


def untransposed(emit: Emitter, kernel: fx.Node, element: Convolve) -> fx.Node:
    """`[in, out / groups, places]` as `[out, in / groups, places]`."""
    groups, volume = element.groups, element.volume
    inputs, outputs = element.inputs, element.outputs
    split = emit(aten.reshape.default, kernel, [groups, inputs // groups, outputs // groups, volume])
    swapped = emit(aten.permute.default, split, [0, 2, 1, 3])
    return emit(aten.reshape.default, swapped, [outputs, inputs // groups, volume])
