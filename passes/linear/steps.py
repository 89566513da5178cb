"""One node of a chain, read as an affine step: what it does to the last axis, or why it stops a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import fx

from .weights import Matrix

Kind = Literal["map", "affine", "view", "same", "barrier"]


@dataclass(frozen=True)
class Apply:
    """`y = x W^T`."""

    matrix: Matrix


@dataclass(frozen=True)
class Shift:
    """`y = x + factor * value`, with a number, or a weight of one entry or one entry a feature."""

    value: fx.Node | float
    factor: float = 1.0


@dataclass(frozen=True)
class Scale:
    """`y = x * value`, or `x / value`, with a number, or a weight of one entry or one entry a feature."""

    value: fx.Node | float
    inverse: bool = False


Term = Apply | Shift | Scale


@dataclass(frozen=True)
class Step:
    """What one node does to the value it continues.

    Args:
        node: the node.
        operand: the value that it continues.
        kind: "map" (a matrix, perhaps with a bias), "affine" (shift and scale of features), "view" (leading
            dimensions only), "same" (nothing), or "barrier" (something no chain passes, such as a norm).
        terms: what it does to the features, in order.
        problem: why this step must not be merged; empty if it may be.
    """

    node: fx.Node
    operand: fx.Node
    kind: Kind
    terms: tuple[Term, ...] = ()
    problem: str = ""

    @property
    def matrix(self) -> Matrix:
        """The matrix of a step of kind "map"."""
        return next(term.matrix for term in self.terms if isinstance(term, Apply))

    def values(self) -> list[fx.Node]:
        """The weight nodes that the step reads, as the fold will read them."""
        nodes = [term.matrix.node if isinstance(term, Apply) else term.value for term in self.terms]
        return [node for node in nodes if isinstance(node, fx.Node)]
