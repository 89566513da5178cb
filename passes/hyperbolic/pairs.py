"""Two recognised operators, one of what the other gives, and what the rules ask about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import fx

from .read.values import Value
from .rows.algebra import Algebra
from .rows.forms import Form
from .rows.matching import Match, Operand

# An offset under the root of the curvature, as libraries have it against c = 0, changes a map by less than rounding.
OFFSET = 1e-14


@dataclass(frozen=True)
class Pair:
    """An operator of what another one gives.

    Args:
        algebra: the table of atoms.
        outer, inner: the operators.
        position: which operand of the outer one the inner one gives.
        fast: whether a guard between the two may be passed over.
        radius: of a row vector's atom and a curvature, a bound of `sqrt(c) ||x||` that the graph proves, or None.
        of_outer, of_inner: what the nodes around either are to the row algebra.
    """

    algebra: Algebra
    outer: Match
    inner: Match
    position: int
    fast: bool
    radius: Callable[[int, Form], float | None]
    of_outer: Mapping[fx.Node, Value]
    of_inner: Mapping[fx.Node, Value]


def same_curvature(algebra: Algebra, left: Form, right: Form) -> bool:
    """Whether two curvatures are equal, up to an offset against zero."""
    difference = algebra.add(left, right, alpha=-1.0)
    number = difference.number
    return algebra.equal(left, right) or (
        number is not None and abs(number) <= OFFSET and left.number is None
    )


def curvatures(pair: Pair) -> str | None:
    """How the curvatures of the two differ, None where they do not."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    left, right = (_opened(algebra, match.curvature) for match in (outer, inner))
    if same_curvature(algebra, left, right):
        return None
    return (
        f"{outer.target} has the curvature {algebra.describe(outer.curvature)}, {inner.target} "
        f"{algebra.describe(inner.curvature)}"
    )


def _opened(algebra: Algebra, form: Form) -> Form:
    """A form that is one sum as that sum."""
    index = algebra.single(form)
    return algebra.atoms[index].parts[0] if index is not None and algebra.atoms[index].kind == "sum" else form


def times(operand: Operand, algebra: Algebra, factor: float) -> Operand:
    """An operand, multiplied."""
    return replace(operand, factor=algebra.scale(operand.factor, factor))


def plain(outer: Match) -> bool:
    """Whether the first operand is taken as it is, but for the sign."""
    return outer.operands[0].factor.number in (1.0, -1.0)
