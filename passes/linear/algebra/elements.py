"""What one node of the graph does to the features of a value, as elements that compose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from ...graph.nodes import val
from ...graph.shapes import same_size
from ...graph.weights import Matrix
from .values import LABELLED

if TYPE_CHECKING:
    from ...graph.emit import Emitter
    from .tree import Tree
    from .values import Value

Labels = tuple[int, ...]


@dataclass(frozen=True)
class Apply:
    """`y = W x`."""

    matrix: Matrix


@dataclass(frozen=True)
class Contract:
    """`y[...] = sum over shared labels of x[...] * weight[...]`, with a label for each axis as `einsum` has letters.

    What `Apply` is where one axis holds the features and the weight is one matrix. A weight of more axes is a matrix
    for each place along the axes that value, weight and result have in common.

    Args:
        weight: the node that holds the weight.
        operand, factor, result: the labels of the value, of the weight and of the result; a label that the result
            lacks is summed.
    """

    weight: fx.Node
    operand: Labels
    factor: Labels
    result: Labels


@dataclass(frozen=True)
class Permute:
    """The axes in another order."""

    order: tuple[int, ...]


@dataclass(frozen=True)
class Convolve:
    """`y = sum_k W_k x_k`: a map of features that also reads neighbours, at a step of `stride`.

    Args:
        weight: the node that holds the kernel, `[out, in / groups, *kernel]`, or for a transposed convolution
            `[in, out / groups, *kernel]`.
        stride, padding, dilation, output_padding: one number for each spatial axis.
        groups: of features.
        transposed: a transposed convolution.
    """

    weight: fx.Node
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    @property
    def inputs(self) -> int:
        """Features read."""
        shape = val(self.weight).shape
        return int(shape[0]) if self.transposed else int(shape[1]) * self.groups

    @property
    def outputs(self) -> int:
        """Features made."""
        shape = val(self.weight).shape
        return int(shape[1]) * self.groups if self.transposed else int(shape[0])

    @property
    def kernel(self) -> tuple[int, ...]:
        """The kernel's extent along each spatial axis."""
        return tuple(int(size) for size in val(self.weight).shape[2:])

    @property
    def volume(self) -> int:
        """Entries of the kernel for one pair of features."""
        count = 1
        for size in self.kernel:
            count *= size
        return count

    @property
    def pads(self) -> bool:
        """Whether it reads zeros beyond the border, where a constant is no constant any more."""
        return any(self.padding) or self.transposed


@dataclass(frozen=True)
class Deviation:
    """`sqrt(variance + eps)`, what a batch norm divides by."""

    variance: fx.Node
    eps: float


@dataclass(frozen=True)
class Shift:
    """`y = x + factor * value`, with a number, or a weight of one entry or one entry a feature."""

    value: fx.Node | float
    factor: float = 1.0


@dataclass(frozen=True)
class Scale:
    """`y = x * value`, or `x / value`, with a number, or a weight of one entry or one entry a feature."""

    value: fx.Node | float | Deviation
    inverse: bool = False


@dataclass(frozen=True)
class Pick:
    """`y = x[start:stop:step]` along the features."""

    start: int
    stop: int
    step: int = 1

    @property
    def sources(self) -> list[tuple[int, ...]]:
        """For each feature made, the features that it reads."""
        return [(place,) for place in range(self.start, self.stop, self.step)]


@dataclass(frozen=True)
class Structure:
    """A fixed linear map of the features that needs no weight, such as a moving average over them.

    Args:
        inputs, outputs: the widths.
        sources: for each feature made, the features that it reads.
        matrix: emits the matrix, `[outputs, inputs]` in float64.
    """

    inputs: int
    outputs: int
    sources: Sequence[tuple[int, ...]] = field(compare=False, repr=False)
    matrix: Callable[[Emitter], fx.Node] = field(compare=False)


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the graph with one entry and one exit, such as a residual block: from outside one map of features.

    Args:
        source: the value that all of the part comes from.
        trees: how its values come from it and from each other, in the order of the graph: one tree for each that is
            read more than once, and at the end the tree of the exit.
        closed: nothing outside of the part reads the source.
    """

    source: Value
    trees: tuple[Tree, ...]
    closed: bool

    @property
    def inputs(self) -> int:
        """Features read."""
        return self.source.width

    @property
    def outputs(self) -> int:
        """Features made."""
        return self.trees[-1].width


Element = Apply | Contract | Permute | Convolve | Shift | Scale | Pick | Structure | Part
_CHANGES_FEATURES = (Apply, Contract, Convolve, Structure, Part)


def mixes(element: Element) -> bool:
    """Whether an element computes features from other features."""
    return isinstance(element, _CHANGES_FEATURES)


def weights_of(element: Element) -> list[fx.Node]:
    """The weight nodes that an element reads."""
    values: list[Any] = []
    if isinstance(element, Part):
        return [node for tree in element.trees for node in tree.weights()]
    if isinstance(element, Apply):
        values = [element.matrix.node]
    elif isinstance(element, Contract | Convolve):
        values = [element.weight]
    elif isinstance(element, Shift | Scale):
        inner = element.value
        values = [inner.variance if isinstance(inner, Deviation) else inner]
    return [value for value in values if isinstance(value, fx.Node)]


def shifts(element: Element) -> bool:
    """Whether an element adds a constant."""
    if isinstance(element, Part):
        return any(
            shifts(inner) for tree in element.trees for level in tree.walk() for inner in level.elements
        )
    return isinstance(element, Shift)


def feature_value(value: Any, tensor: torch.Tensor, axis: int, fixed: Any) -> bool:
    """Whether a number or weight adds to (or scales) the features alone, the same way everywhere else.

    Where all axes are features, each in its own right, it only has to leave the shape as it is.
    """
    if not isinstance(value, fx.Node):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if value not in fixed or not isinstance(value.meta.get("val"), torch.Tensor):
        return False
    shape = val(value).shape
    if len(shape) > tensor.dim():
        return False
    if axis == LABELLED:
        behind = tensor.shape[tensor.dim() - len(shape) :]
        return all(size == 1 or same_size(size, other) for size, other in zip(shape, behind, strict=True))
    features = axis - (tensor.dim() - len(shape))
    others = [size for index, size in enumerate(shape) if index != features]
    return all(size == 1 for size in others) and (
        features < 0 or shape[features] == 1 or shape[features] == tensor.shape[axis]
    )
