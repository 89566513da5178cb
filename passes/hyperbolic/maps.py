"""Recognises `expmap0` and `logmap0`: a row times a function of its own guarded norm over that norm."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .algebra import Algebra
from .forms import ONE, Form, join
from .functions import INFINITY
from .radius import NoRadius, Radius, RadiusReader

TARGETS = {"tanh": "expmap0", "artanh": "logmap0", "log": "logmap0"}
LIMITS = {"tanh": "tanh_limit", "artanh": "atanh_limit"}


@dataclass(frozen=True)
class Match:
    """A form that is one of our operators.

    Args:
        target: the operator's name.
        signs: +1 or -1 for each row vector: whether the operator takes it or its negative.
        curvature: the form of `c`.
        guards: the operator's attributes that differ from its defaults.
        order: which of the row vectors the operator takes first.
    """

    target: str
    signs: tuple[int, ...]
    curvature: Form
    guards: dict[str, float | bool]
    order: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class NearMiss:
    """A form that looks like one of our operators, and the first difference."""

    target: str
    reason: str


def match_map(algebra: Algebra, form: Form, vector: int) -> Match | NearMiss | None:
    """Compare a form with `tanh(u) / u * x` and `artanh(u) / u * x`; None where it looks like neither."""
    found = _function_of_norm(algebra, form, vector)
    if found is None:
        return None
    index, exponent = found
    kind = algebra.atoms[index].kind
    target = TARGETS[kind]
    if kind == "log":
        return NearMiss(
            target, f"{algebra.describe(form)} holds logarithms that are not those of artanh(u) for one u"
        )
    if exponent != 1:
        return NearMiss(target, f"{kind} is raised to the power {float(exponent):g}")
    ((monomial, coefficient),) = form.terms
    divisor = ((vector, Fraction(-1)), (index, Fraction(-1)))
    rest = Form(((join(monomial, tuple(sorted(divisor))), abs(coefficient)),))
    try:
        argument, limit = _limited(algebra, kind, algebra.atoms[index].parts[0])
        inside = _read(algebra, argument, vector, f"the argument of {kind}")
        outside = _read(algebra, algebra.power(rest, -1), vector, "the denominator")
    except NoRadius as error:
        return NearMiss(target, str(error))
    if reason := _difference(algebra, kind, inside, outside):
        return NearMiss(target, reason)
    guards: dict[str, float | bool] = dict(inside.guards)
    if limit != INFINITY:
        guards[LIMITS[kind]] = limit
    if not inside.guards:
        guards["nan_at_zero"] = True
    sign = 1 if coefficient > 0 else -1
    return Match(target, (sign,), algebra.power(inside.scale, 2), guards)


def _function_of_norm(algebra: Algebra, form: Form, vector: int) -> tuple[int, Fraction] | None:
    """The factor tanh, artanh or log of the row in a form that is linear in it; logs may come in a sum."""
    if not 1 <= len(form) <= 2:
        return None
    found = []
    for monomial, _ in form:
        if (vector, Fraction(1)) not in monomial or algebra.degree(monomial) != 1:
            return None
        functions = [(i, e) for i, e in monomial if algebra.atoms[i].kind in TARGETS and _of_rows(algebra, i)]
        if len(functions) != 1:
            return None
        found += functions
    if len(found) > 1 and any(algebra.atoms[i].kind != "log" for i, _ in found):
        return None
    return found[0]


def _of_rows(algebra: Algebra, index: int) -> bool:
    return bool(algebra.kinds(algebra.atoms[index].parts[0]) & {"inner", "foreign"})


def _limited(algebra: Algebra, kind: str, argument: Form) -> tuple[Form, float]:
    """Split the clamp from above off the argument of tanh or artanh."""
    index = algebra.single(argument)
    if index is None or algebra.atoms[index].kind != "clamp" or algebra.atoms[index].parts[2] == INFINITY:
        return argument, INFINITY
    inside, low, high = algebra.atoms[index].parts
    even = low == -high or (low == -INFINITY and algebra.nonnegative(inside))
    if not even:
        raise NoRadius(
            f"the argument of {kind} is clamped to [{low:g}, {high:g}]; the operator clamps it from above only, "
            "and guards from below in the denominator too"
        )
    return inside, high


def _read(algebra: Algebra, form: Form, vector: int, where: str) -> Radius:
    try:
        return RadiusReader(algebra, vector).read(form)
    except NoRadius as error:
        raise NoRadius(f"in {where}: {error}") from None


def _difference(algebra: Algebra, kind: str, inside: Radius, outside: Radius) -> str | None:
    """How the argument and the denominator differ, None where they agree."""
    left, right = inside.guards, outside.guards
    if left.keys() != right.keys() or not all(algebra.close(left[name], right[name]) for name in left):
        return (
            f"the norm is guarded by {inside.described()} inside {kind} and by {outside.described()} in the "
            "denominator; the operator has one guard for both"
        )
    if algebra.equal(inside.scale, outside.scale):
        return None
    scale, other = algebra.describe(inside.scale), algebra.describe(outside.scale)
    if algebra.equal(outside.scale, ONE):
        return f"a factor is missing: {kind}({scale} ||x||) is divided by ||x|| and not by {scale} ||x||"
    return (
        f"different curvature inside and outside: the norm is scaled by {scale} inside {kind} "
        f"and by {other} in the denominator"
    )
