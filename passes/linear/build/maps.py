"""Emits maps of features on a tensor whose feature axis lies anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ...graph.emit import Emitter, Unrealizable
from ...graph.nodes import val
from ...graph.shapes import expression, is_row_major, memory_format
from ...graph.weights import Matrix, merged_name
from ..algebra.composition import Composition
from ..algebra.elements import Convolve
from ..algebra.labelled import LabelledComposition
from ..algebra.product import equation
from ..algebra.values import LABELLED

aten = torch.ops.aten
Held = tuple[fx.Node, int]  # a tensor and its feature axis
_CONVOLUTIONS: dict[int, Any] = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}


def elementwise_map(
    emit: Emitter, held: Held, composition: Composition, weights: Sequence[fx.Node], read: list[fx.Node]
) -> Held:
    """Scale and shift single features."""
    node, axis = held
    if composition.scale is not None:
        by = composition.scale
        if isinstance(by, fx.Node):
            by = _along(emit, by, held, merged_name(weights, "scale"))
            read.append(by)
        node = _by_feature(emit, aten.mul.Tensor, node, by)
    if composition.bias is not None:
        bias = _along(emit, composition.bias, held, merged_name(weights, "bias"))
        read.append(bias)
        node = _by_feature(emit, aten.add.Tensor, node, bias)
    return node, axis


def _by_feature(emit: Emitter, target: Any, node: fx.Node, other: fx.Node | float) -> fx.Node:
    """An elementwise call whose result is shaped as `node` is."""
    if is_row_major(val(node)):  # its value is known, and working it out could fix sizes that may vary
        return emit.insert(target, (node, other), {}, val(node).new_empty(val(node).shape))
    return emit.call_sized(target, {"self": node, "other": other}, val(node).shape)


def added(emit: Emitter, left: fx.Node, right: fx.Node) -> fx.Node:
    """The sum of two values of one shape."""
    if is_row_major(val(right)):
        return _by_feature(emit, aten.add.Tensor, left, right)
    return emit.call_sized(aten.add.Tensor, {"self": left, "other": right}, val(left).shape)


def ones(emit: Emitter, held: Held) -> fx.Node:
    """A constant 1 with one feature, and as many rows as a tensor has."""
    node, axis = held
    first = emit.call(aten.slice.Tensor, {"self": node, "dim": axis, "start": 0, "end": 1})
    shape = [1 if place == axis else size for place, size in enumerate(val(node).shape)]
    layout = {"memory_format": torch.contiguous_format}
    return emit.insert(aten.ones_like.default, (first,), layout, val(node).new_empty(shape))


def carried_constant(
    emit: Emitter,
    held: Held,
    vector: fx.Node,
    along: fx.Node,
    weights: Sequence[fx.Node],
    read: list[fx.Node],
) -> Held:
    """Add a vector of features at each place, times what `along` holds there."""
    node, axis = held
    bias = _along(emit, vector, held, merged_name(weights, "constant"))
    read.append(bias)
    if is_row_major(val(node)):
        value = val(node).new_empty(val(node).shape)
        return emit.insert(aten.addcmul.default, (node, along, bias), {}, value), axis
    given = {"self": node, "tensor1": along, "tensor2": bias}
    return emit.call_sized(aten.addcmul.default, given, val(node).shape), axis


def _along(emit: Emitter, vector: fx.Node, held: Held, name: str) -> fx.Node:
    """A vector of features, shaped so that it broadcasts along the feature axis."""
    node, axis = held
    behind = 0 if axis == LABELLED else val(node).dim() - 1 - axis
    rounded = emit.rounded(vector, val(node).dtype)
    if behind:
        rounded = emit(aten.reshape.default, rounded, [-1] + [1] * behind)
    return emit.fold(rounded, name)


def feature_map(
    emit: Emitter,
    held: Held,
    composition: Composition,
    weights: Sequence[fx.Node],
    read: list[fx.Node],
    own: Matrix | None,
    own_bias: fx.Node | None,
    reads: range | None = None,
) -> Held:
    """Apply a matrix, or a convolution, to the features.

    Args:
        emit: where the nodes go.
        held: the tensor and its feature axis.
        composition: what to apply.
        weights: the weights it was composed of, for its name.
        read: gets the weight and the bias that the map reads.
        own: a weight of the graph that is the matrix as it is.
        own_bias: a weight of the graph that is the bias as it is.
        reads: the features that were cut out of what the composition is of, where it is not all of them.
    """
    node, axis = held
    dtype = val(node).dtype
    spatial, last = val(node).dim() - 2, val(node).dim() - 1
    # A convolution of sizes that vary would fix them; rows of a linear map may be any number.
    fixed = all(isinstance(expression(size), int) for size in val(node).shape[2:])
    images = axis != last and axis == 1 and spatial in _CONVOLUTIONS and fixed
    convolves = images and not emit.fuses
    name = merged_name(weights, "weight")
    if composition.convolve is not None:
        weight = _kernel(emit, composition, composition.convolve, dtype, name, reads)
    else:
        weight = _weight(emit, composition, own, dtype, name, spatial if convolves else 0, reads)
    bias = own_bias
    if bias is None and composition.bias is not None:
        bias = emit.fold(emit.rounded(composition.bias, dtype), merged_name(weights, "bias"))
    read += [each for each in (weight, bias) if each is not None]
    if composition.convolve is not None:
        return _convolution(emit, node, composition, composition.convolve, weight, bias), axis
    if convolves:
        given = {"input": node, "weight": weight, "bias": bias}
        return convolved(emit, _CONVOLUTIONS[spatial], given), axis
    if axis == last:
        return linear(emit, node, weight, bias), axis
    if images:
        return _pixels(emit, node, weight, bias), axis
    order = [place for place in range(last + 1) if place != axis] + [axis]
    moved = emit.call(aten.permute.default, {"self": node, "dims": order})
    back = [order.index(place) for place in range(last + 1)]
    result = linear(emit, moved, weight, bias)
    return emit.call(aten.permute.default, {"self": result, "dims": back}), axis


def _pixels(emit: Emitter, node: fx.Node, weight: fx.Node, bias: fx.Node | None) -> fx.Node:
    """A linear map of the channels of images, with the places of each in one axis.

    Inductor computes this 1.1 to 2.2 times as fast as the convolution, for which it copies the images into
    another memory format; eager takes the strides of the product along into slower kernels.
    """
    sizes = list(val(node).shape)
    places = emit.call(aten.flatten.using_ints, {"self": node, "start_dim": 2})
    rows = emit.call(aten.transpose.int, {"self": places, "dim0": 1, "dim1": 2})
    result = linear(emit, rows, weight, bias)
    places = emit.call(aten.transpose.int, {"self": result, "dim0": 1, "dim1": 2})
    return emit.call(aten.unflatten.int, {"self": places, "dim": 2, "sizes": sizes[2:]})


def _weight(
    emit: Emitter,
    composition: Composition,
    own: Matrix | None,
    dtype: torch.dtype,
    name: str,
    spatial: int,
    reads: range | None,
) -> fx.Node:
    """The matrix in the dtype of the map, with `spatial` trailing axes of size 1."""
    if own is not None and val(own.node).dtype == dtype:
        fits = val(own.node).dim() == 2 + spatial
        if fits and not own.transposed:
            return own.node
        node = own.node
        if val(node).dim() > 2:
            node = emit(aten.reshape.default, node, list(val(node).shape[:2]))
        if own.transposed:
            node = emit(aten.t.default, node)
    else:
        node = emit.rounded(composition.matrix(reads), dtype)
    if spatial:
        node = _row_major(emit, emit(aten.reshape.default, node, [*val(node).shape, *[1] * spatial]))
    return emit.fold(node, name)


def linear(emit: Emitter, node: fx.Node, weight: fx.Node, bias: fx.Node | None) -> fx.Node:
    """Emit `aten.linear`; its fake value needs no kernel, so that no size is fixed."""
    result = val(node).new_empty((*val(node).shape[:-1], val(weight).shape[0]))
    return emit.insert(aten.linear.default, (node, weight, bias), {}, result)


def _kernel(
    emit: Emitter,
    composition: Composition,
    convolve: Convolve,
    dtype: torch.dtype,
    name: str,
    reads: range | None,
) -> fx.Node:
    """The kernel in the layout of the convolution: `[out, in / groups, *kernel]`, or transposed."""
    kernel = emit.rounded(composition.matrix(reads), dtype)
    outputs, inputs, _ = (int(size) for size in val(kernel).shape)
    if convolve.transposed:
        groups = convolve.groups if composition.grouped else 1
        split = emit(aten.reshape.default, kernel, [groups, outputs // groups, inputs, -1])
        kernel = emit(aten.permute.default, split, [0, 2, 1, 3])
        outputs, inputs = groups * inputs, outputs // groups
    kernel = emit(aten.reshape.default, kernel, [outputs, inputs, *convolve.kernel])
    return emit.fold(_row_major(emit, kernel), name)


def _row_major(emit: Emitter, kernel: fx.Node) -> fx.Node:
    """A kernel in row-major order: from its strides a convolution takes the memory format of its result."""
    return emit(aten.clone.default, kernel, memory_format=torch.contiguous_format)


def _convolution(
    emit: Emitter,
    node: fx.Node,
    composition: Composition,
    convolve: Convolve,
    weight: fx.Node,
    bias: fx.Node | None,
) -> fx.Node:
    spatial = len(convolve.kernel)
    given = {
        "input": node,
        "weight": weight,
        "bias": bias,
        "stride": list(convolve.stride),
        "padding": list(convolve.padding),
        "dilation": list(convolve.dilation),
        "transposed": convolve.transposed,
        "output_padding": list(convolve.output_padding or (0,) * spatial),
        "groups": convolve.groups if composition.grouped else 1,
    }
    target = aten.convolution.default if convolve.transposed else _CONVOLUTIONS[spatial]
    return convolved(emit, target, given)


def convolved(emit: Emitter, target: Any, given: dict[str, Any]) -> fx.Node:
    """Emit a convolution of any number of images.

    Working its value out asks how many there are, to choose among kernels that all give the same; so it is worked
    out for an example, and the number is put back.

    Raises:
        Unrealizable: other sizes vary too.
    """
    try:
        return emit.call(target, given)
    except Unrealizable:
        value = val(given["input"])
        if not all(isinstance(expression(size), int) for size in value.shape[1:]):
            raise
    args = tuple(given[a.name] for a in target._schema.arguments if a.name in given)
    found = emit.example(target, args, {})
    wanted = memory_format(found) or torch.contiguous_format
    result = value.new_empty((value.shape[0], *found.shape[1:])).contiguous(memory_format=wanted)
    return emit.insert(target, args, {}, result)


def labelled_map(
    emit: Emitter,
    held: Held,
    composition: LabelledComposition,
    weights: Sequence[fx.Node],
    read: list[fx.Node],
) -> Held:
    """Apply a product to a tensor whose axes have labels: as `linear` or `bmm` where it is one, else as `einsum`."""
    node, axis = held
    product, dtype = composition.product, val(node).dtype
    if composition.weight is None:
        if product.result != product.source:
            order = [product.source.index(label) for label in product.result]
            node = emit.call(aten.permute.default, {"self": node, "dims": order})
        return elementwise_map(emit, (node, axis), composition, weights, read)
    spelling = product.spelling
    inner, outer = product.source[-1:], product.result[-1:]
    order_of = {"linear": (*outer, *inner), "bmm": (*product.source[:1], *inner, *outer)}
    weight = composition.weight_in(order_of.get(spelling or "", product.matrix))
    weight = emit.fold(emit.rounded(weight, dtype), merged_name(weights, "weight"))
    bias = composition.bias
    if bias is not None:
        if spelling == "linear" and val(bias).numel() == val(bias).shape[-1]:
            bias = emit(aten.expand.default, emit(aten.reshape.default, bias, [-1]), [val(weight).shape[0]])
        bias = emit.fold(emit.rounded(bias, dtype), merged_name(weights, "bias"))
    read += [weight, *([bias] if bias is not None else [])]
    if spelling == "linear" and (bias is None or val(bias).dim() == 1):
        return linear(emit, node, weight, bias), axis
    if spelling == "bmm":
        # Its fake value needs no kernel, so that no size is fixed.
        value = val(node).new_empty((*val(node).shape[:2], val(weight).shape[2]))
        if bias is None:
            return emit.insert(aten.bmm.default, (node, weight), {}, value), axis
        return emit.insert(aten.baddbmm.default, (bias, node, weight), {}, value), axis
    if spelling == "linear":
        node = linear(emit, node, weight, None)
    else:
        terms = equation((product.source, product.matrix), product.result)
        given = {"equation": terms, "tensors": [node, weight]}
        node = emit.call_sized(aten.einsum.default, given, [product.sizes[label] for label in product.result])
    return (node if bias is None else _by_feature(emit, aten.add.Tensor, node, bias)), axis


def pair_map(
    emit: Emitter,
    held: Held,
    compositions: tuple[Composition, Composition],
    weights: Sequence[Sequence[fx.Node]],
    read: list[fx.Node],
    own: Sequence[Matrix | None],
    own_bias: fx.Node | None,
    reads: range | None,
) -> Held:
    """Apply two matrices in a row: as one low-rank pair where the features lie last."""
    node, axis = held
    first, second = compositions
    if axis != val(node).dim() - 1:
        first.bias = None  # the second composition holds it already
        held = feature_map(emit, held, first, weights[0], read, own[0], None, reads)
        return feature_map(emit, held, second, weights[1], read, own[1], own_bias)
    dtype = val(node).dtype
    factors = [
        _weight(emit, each, matrix, dtype, merged_name(names, "weight"), 0, part)
        for each, matrix, names, part in zip(compositions, own, weights, (reads, None), strict=True)
    ]
    bias = own_bias
    if bias is None and second.bias is not None:
        bias = emit.fold(emit.rounded(second.bias, dtype), merged_name(weights[1], "bias"))
    read += [*factors, *([bias] if bias is not None else [])]
    result = val(node).new_empty((*val(node).shape[:-1], val(factors[1]).shape[0]))
    target = torch.ops.stone.low_rank_linear.default
    return emit.insert(target, (node, *factors, bias), {}, result), axis
