"""Recognises products in the ball: a scalar's and a matrix's, each a tanh of a multiple of an artanh."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from .clamps import artanh_in, limited, of_rows, one_clamp, without_zero
from .guards import NoRadius, Radius, RadiusReader
from .rows.algebra import Algebra
from .rows.forms import Form, constant, join, power_of
from .rows.functions import INFINITY, quotient
from .rows.matching import Match, NearMiss, Operand


def scalar_mul(
    algebra: Algebra, vector: int, inner: int, argument: Form, limit: float, outside: Radius, sign: float
) -> Match | NearMiss:
    """`tanh(r artanh(u)) / u x`, of the atom `artanh(u)`, the argument of tanh, and the norm below."""
    target = "mobius_scalar_mul"
    number = quotient(algebra, argument, power_of(inner))
    if any(of_rows(algebra, i) for m, _ in number for i, _ in m):
        return NearMiss(target, f"the factor {algebra.describe(number)} depends on the row")
    reduced, below = limited(algebra, "artanh", algebra.atoms[inner].parts[0])
    try:
        inside = RadiusReader(algebra, vector).read(reduced)
    except NoRadius as error:
        raise NoRadius(f"in the argument of artanh: {error}") from None
    if not algebra.equal(inside.scale, outside.scale):
        return NearMiss(
            target,
            f"different curvature inside and outside: the norm is scaled by {algebra.describe(inside.scale)} in "
            f"artanh and by {algebra.describe(outside.scale)} in the denominator",
            "other_curvature",
        )
    guards = one_clamp(algebra, target, inside, outside)
    if isinstance(guards, NearMiss):
        return guards
    if below != INFINITY:
        guards["atanh_limit"] = below
    if limit != INFINITY:
        guards["tanh_limit"] = limit
    operand = Operand(vector, constant(sign))
    return Match(target, (operand,), algebra.power(inside.scale, 2), guards, (number,))


def match_matvec(algebra: Algebra, form: Form, vectors: Sequence[int]) -> Match | NearMiss | None:
    """`tanh(||m|| / ||x|| artanh(s ||x||)) / (s ||m||) m`, of the product `m = M x` and `x`."""
    if len(form) != 1:
        return None
    ((monomial, coefficient),) = form.terms
    monomial, _ = without_zero(algebra, monomial)
    found = [i for i, e in monomial if e == 1 and algebra.atoms[i].kind == "tanh"]
    image = [v for v in vectors if (v, Fraction(1)) in monomial]
    if len(found) != 1 or len(image) != 1:
        return None
    (m,), target = image, "mobius_matvec"
    (x,) = (v for v in vectors if v != m)
    try:
        argument, limit = limited(algebra, "tanh", algebra.atoms[found[0]].parts[0])
        inner = artanh_in(algebra, argument)
        if inner is None:
            return None
        divisor = tuple(sorted(((m, Fraction(-1)), (found[0], Fraction(-1)))))
        rest = Form(((join(monomial, divisor), abs(coefficient)),))
        outside = RadiusReader(algebra, m).read(algebra.power(rest, -1))
        ratio = quotient(algebra, argument, power_of(inner))
        reduced, below = limited(algebra, "artanh", algebra.atoms[inner].parts[0])
        inside = RadiusReader(algebra, x).read(reduced)
        stretch, shrink = _split(algebra, ratio, m, x)
    except NoRadius as error:
        return NearMiss(target, str(error), "other_norm")
    if not algebra.equal(inside.scale, outside.scale):
        return NearMiss(
            target,
            f"different curvature inside and outside: {algebra.describe(inside.scale)} in artanh and "
            f"{algebra.describe(outside.scale)} in the denominator",
            "other_curvature",
        )
    if not algebra.equal(stretch.scale, shrink.scale):
        factor = quotient(algebra, stretch.scale, shrink.scale)
        return NearMiss(
            target,
            f"the quotient of norms has the factor {algebra.describe(factor)}, expected 1",
            "other_constant",
        )
    guards = one_clamp(algebra, target, inside, outside, stretch, shrink)
    if isinstance(guards, NearMiss):
        return guards
    if below != INFINITY:
        guards["atanh_limit"] = below
    if limit != INFINITY:
        guards["tanh_limit"] = limit
    sign = constant(1.0 if coefficient > 0 else -1.0)
    return Match(target, (Operand(m, sign), Operand(x)), algebra.power(inside.scale, 2), guards)


def _split(algebra: Algebra, ratio: Form, m: int, x: int) -> tuple[Radius, Radius]:
    """`||m|| / ||x||` as its two norms."""
    if len(ratio) != 1:
        raise NoRadius(f"{algebra.describe(ratio)} is not a quotient of two norms")
    ((monomial, coefficient),) = ratio.terms
    upper: list[tuple[int, Fraction]] = []
    lower: list[tuple[int, Fraction]] = []
    for index, exponent in monomial:
        (lower if exponent < 0 else upper).append((index, exponent))
    over = RadiusReader(algebra, m).read(Form(((tuple(upper), coefficient),)))
    under = RadiusReader(algebra, x).read(algebra.power(Form(((tuple(lower), 1.0),)), -1))
    return over, under
