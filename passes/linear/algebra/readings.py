"""What a node means along a feature axis: how its value comes from the values that it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import fx

from .elements import Element
from .values import Value

if TYPE_CHECKING:
    from ...graph.emit import Emitter


@dataclass(frozen=True, eq=False)
class Narrow:
    """A value that is the same for all features, as it comes with one feature.

    Args:
        emit: gives it.
        shape: its sizes.
        bases: what it is computed from, and is there already.
        through: the nodes that are computed again, for one feature each.
    """

    emit: Callable[[Emitter], fx.Node]
    shape: Sequence[Any]
    bases: tuple[fx.Node, ...]
    through: tuple[fx.Node, ...] = ()

    def __call__(self, emit: Emitter, tensor: fx.Node, width: int) -> fx.Node:
        """As an argument of a call that is emitted for features of another width."""
        return self.emit(emit)


# Emits a node again on another tensor, whose feature axis may have another width.
Replay = Callable[["Emitter", fx.Node, int], fx.Node]


@dataclass(frozen=True)
class Maps:
    """An affine map of the features; with no elements, nothing at all."""

    node: fx.Node
    operand: Value
    elements: tuple[Element, ...] = ()


@dataclass(frozen=True, eq=False)
class Moves:
    """A carry: a linear operation on the other axes, which every map of the features commutes with.

    Args:
        node: the node.
        operand: what it reads.
        replay: emits it again.
        view: it rearranges entries and computes nothing.
        ordered: a view that keeps the row-major order of the entries.
        preserves: a value that is constant along the other axes stays the same constant.
        rigid: the operation takes features of this width only.
        beside: what it reads besides the operand and keeps, such as a mask, indices or a matrix.
        through: what it reads so far, computed from what stands beside it, and would be computed again.
        scales: it scales each place by itself, which costs the same on either side of a map.
        factor: what it multiplies each place with, where it is a product.
        looks_up: each row of the result is one of the operand's rows, and no other is read.
        detached: for a look-up in a table, the row whose entries get no gradient.
        summed: how many entries of the operand each entry of the result is a weighted sum of; 1 where nothing is
            multiplied.
    """

    node: fx.Node
    operand: Value
    replay: Replay
    view: bool = False
    ordered: bool = False
    preserves: bool = True
    rigid: bool = False
    beside: tuple[fx.Node, ...] = ()
    through: tuple[fx.Node, ...] = ()
    scales: bool = False
    factor: Narrow | None = None
    summed: Any = 1
    looks_up: bool = False
    detached: int | None = None


# Carries that were taken below a map, the lowest first, each with its result: the constants of that map are multiplied
# with what they make of a constant 1, `T(1)`. With none it is 1.
Carried = tuple[tuple[Moves, Value], ...]


@dataclass(frozen=True)
class Adds:
    """A sum of values of one shape, each with a factor."""

    node: fx.Node
    operands: tuple[Value, ...]
    factors: tuple[float, ...]


@dataclass(frozen=True)
class Joins:
    """A concatenation along the features."""

    node: fx.Node
    operands: tuple[Value, ...]


@dataclass(frozen=True)
class Stops:
    """A place that no merge crosses.

    Args:
        node: the node.
        operand: the value that a merge would have gone on to.
        reason: why it does not.
        is_map: the node is itself a linear map, with something that keeps it from being merged.
    """

    node: fx.Node
    operand: Value
    reason: str
    is_map: bool = False


Reading = Maps | Moves | Adds | Joins | Stops


def operands(reading: Reading | None) -> tuple[Value, ...]:
    """The values that a reading goes on to."""
    if isinstance(reading, Maps | Moves):
        return (reading.operand,)
    return reading.operands if isinstance(reading, Adds | Joins) else ()
