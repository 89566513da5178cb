"""The other table: identities on recognised operators, each with what must be proved and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .rows.algebra import Algebra
from .rows.forms import ONE, Form
from .rows.matching import Match, Operand

# An offset under the root of the curvature, as libraries have it against c = 0, changes a map by less than rounding.
OFFSET = 1e-14


@dataclass(frozen=True)
class Rule:
    """One identity: an operator of what another one gives.

    Args:
        name: the identity.
        outer, inner: the operators.
        apply: the one operator that both make, or why they do not, in words.
        needs: the condition that is proved, and the example that shows why it is needed.
    """

    name: str
    outer: str
    inner: str
    apply: Callable[[Algebra, Match, Match], Match | str]
    needs: str


def same_curvature(algebra: Algebra, left: Form, right: Form) -> bool:
    """Whether two curvatures are equal, up to an offset against zero."""
    difference = algebra.add(left, right, alpha=-1.0)
    number = difference.number
    return algebra.equal(left, right) or (
        number is not None and abs(number) <= OFFSET and left.number is None
    )


def _curvatures(algebra: Algebra, outer: Match, inner: Match) -> str | None:
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


def _times(operand: Operand, algebra: Algebra, factor: float) -> Operand:
    return replace(operand, factor=algebra.scale(operand.factor, factor))


def _plain(outer: Match) -> bool:
    return outer.operands[0].factor.number in (1.0, -1.0)


def _dist_of_sum(algebra: Algebra, outer: Match, inner: Match) -> Match | str:
    """`2 / s artanh(s ||x + y||)`."""
    if reason := _curvatures(algebra, outer, inner):
        return reason
    if inner.multiple != ONE or not _plain(outer):
        return "the sum is scaled before its norm is taken"
    low = outer.guards.get("min_norm", 0.0)
    # A norm below the clamp belongs to points nearer than it: the distance differs by twice the clamp at most, which is
    # less than the rounding of a sum whose terms are near 1.
    if low > max(0.01 * algebra.eps, 2e-15):
        return f"the norm of the sum is clamped at {low:g}, which the distance has no guard for"
    x, y = inner.operands
    signed = (_times(x, algebra, -1.0), y)
    if all(operand.factor.number == -1 for operand in signed):
        signed = (x, _times(y, algebra, -1.0))
    guards = dict(inner.guards)
    if "atanh_limit" in outer.guards:
        guards["atanh_limit"] = outer.guards["atanh_limit"]
    return Match("poincare_dist", signed, inner.curvature, guards, multiple=outer.multiple)


def _scaled_twice(algebra: Algebra, outer: Match, inner: Match) -> Match | str:
    """`r (q x)`."""
    if reason := _curvatures(algebra, outer, inner):
        return reason
    if inner.multiple != ONE or not _plain(outer):
        return "the inner map is scaled"
    if guard := next((name for name in (*outer.guards, *inner.guards) if name.endswith("_limit")), None):
        return f"{guard} may act between the two"
    low = float(outer.guards.get("min_norm", 0.0))
    if 12 * low * low > algebra.eps / 16:
        return f"the norm between the two is clamped at {low:g}"
    operand = _times(inner.operands[0], algebra, outer.operands[0].factor.number or 1.0)
    number = algebra.multiply(outer.numbers[0], inner.numbers[0])
    guards = {k: v for k, v in inner.guards.items() if k == "min_norm"}
    return Match(outer.target, (operand,), inner.curvature, guards, (number,), outer.multiple)


RULES = (
    Rule(
        "dist0(x + y) = dist(-x, y)",
        "poincare_dist0",
        "mobius_add",
        _dist_of_sum,
        "equal curvatures; a clamp of the norm below rounding: clamped at 1e-5, all nearer points are 2e-5 apart",
    ),
    Rule(
        "r (q x) = (r q) x",
        "mobius_scalar_mul",
        "mobius_scalar_mul",
        _scaled_twice,
        "no limit of artanh or tanh: 0.1 (100 x) saturates at the boundary and does not come back",
    ),
)
