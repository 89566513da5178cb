"""Recognises numbers of one row: its distance from the origin, and its conformal factor."""

from __future__ import annotations

from .clamps import limited, of_rows, one_clamp, without_zero
from .guards import NoRadius, RadiusReader
from .rays import gap_curvature
from .rows.algebra import Algebra
from .rows.forms import Form, constant
from .rows.functions import INFINITY
from .rows.matching import Match, NearMiss, Operand


def match_number(algebra: Algebra, form: Form, vector: int) -> Match | NearMiss | None:
    """`2 / s artanh(s n)` and `2 / (1 - c||x||^2)`, or multiples of them."""
    if len(form) != 1:
        return None
    ((monomial, coefficient),) = form.terms
    monomial, _ = without_zero(algebra, monomial)
    functions = [(i, e) for i, e in monomial if of_rows(algebra, i)]
    if len(functions) != 1:
        return None
    ((index, exponent),) = functions
    rest = Form(((tuple(f for f in monomial if f != functions[0]), coefficient),))
    atom = algebra.atoms[index]
    if atom.kind == "artanh" and exponent == 1:
        target = "poincare_dist0"
        try:
            argument, limit = limited(algebra, "artanh", atom.parts[0])
            radius = RadiusReader(algebra, vector).read(argument)
        except NoRadius as error:
            return NearMiss(target, f"in the argument of artanh: {error}", "other_norm")
        guards = one_clamp(algebra, target, radius)
        if isinstance(guards, NearMiss):
            return guards
        if limit != INFINITY:
            guards["atanh_limit"] = limit
        multiple = algebra.scale(algebra.multiply(rest, radius.scale), 0.5)
        curvature = algebra.power(radius.scale, 2)
        return Match(target, (Operand(vector),), curvature, guards, multiple=multiple)
    if atom.kind in ("sum", "clamp") and exponent == -1:
        inside, guards = atom.parts[0], {}
        if atom.kind == "clamp":
            if atom.parts[2] != INFINITY or atom.parts[1] < 0:
                return None
            guards["min_gap"] = atom.parts[1]
        of_gap = gap_curvature(algebra, inside, vector)
        plain = next((k for m, k in inside if not m), 0.0)
        if of_gap is None:
            return None
        if guards and plain != 1.0:
            guards["min_gap"] /= plain
        if not algebra.equal(rest, constant(2 * plain)):
            return None
        return Match("conformal_factor", (Operand(vector),), of_gap, guards)
    return None
