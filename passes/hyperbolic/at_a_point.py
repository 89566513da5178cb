"""Recognises the maps at a point of the hyperboloid: rows made of the point and a tangent vector, or of two points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from .clamps import of_rows
from .rows.algebra import Algebra
from .rows.forms import HALF, Form, constant, join
from .rows.functions import INFINITY, quotient
from .rows.matching import Match, NearMiss, Operand

# What is clamped so near to 1 in an argument of arcosh, or in a cosh, is clamped below the rounding of a few products.
ROUNDINGS = 4.0


@dataclass(frozen=True)
class _Row:
    """A row vector: the index of its space components, its form with the time, and `c` where it is a point."""

    vector: int
    form: Form
    curvature: Form | None


@dataclass(frozen=True)
class _Norm:
    """A multiple of a norm: `max` of it and `low`, in units of the norm, and of all of it the least and the most."""

    scale: Form
    low: float
    least: float
    most: float


def match_at_point(
    algebra: Algebra,
    form: Form,
    vectors: Sequence[int],
    rows: Sequence[Form],
    curvatures: Sequence[Form | None],
) -> Match | NearMiss | None:
    """Compare a row with the maps at a point of the hyperboloid.

    `cosh(u) x + sinh(u) / u v` with `u = sqrt(c <v, v>)`; of two points `arcosh(z) / (s |w|) w` with `z = -c <x, y>`
    and `w = y - z x`; and every row that is tangent at a point, `<x, w> = 0`.

    Args:
        algebra: the table of atoms.
        form: the row, with its time.
        vectors: the indices of the two rows' space components.
        rows: the two rows, with their times.
        curvatures: of rows that are points of the hyperboloid, `c`.
    """
    first, second = (_Row(*each) for each in zip(vectors, rows, curvatures, strict=True))
    for x, y in ((first, second), (second, first)):
        for compare in (_exponential, _logarithm, _tangent):
            if (found := compare(algebra, form, x, y)) is not None:
                return found
    return None


def inner(algebra: Algebra, left: Form, right: Form) -> Form:
    """`-x0 y0 + <x, y>`."""
    (time, space), (other, others) = algebra.parted(left), algebra.parted(right)
    return algebra.add(algebra.inner(space, others), algebra.multiply(time, other), alpha=-1.0)


def _factor(algebra: Algebra, form: Form, vector: int) -> Form:
    """What the space components of a row are multiplied by."""
    _, space = algebra.parted(form)
    inverse = ((vector, Fraction(-1)),)
    return Form(tuple(sorted((join(m, inverse), k) for m, k in space if (vector, Fraction(1)) in m)))


def _without(form: Form, index: int) -> Form:
    """A form of one term, divided by an atom."""
    ((monomial, coefficient),) = form.terms
    return Form(((tuple(f for f in monomial if f[0] != index), coefficient),))


def _function(algebra: Algebra, form: Form, kind: str) -> int | None:
    """The one factor of a kind in a form of one term."""
    if len(form) != 1:
        return None
    found = [i for i, e in form.terms[0][0] if algebra.atoms[i].kind == kind and e == 1]
    return found[0] if len(found) == 1 else None


def _exponential(algebra: Algebra, form: Form, x: _Row, v: _Row) -> Match | NearMiss | None:
    of_x, of_v = (_factor(algebra, form, each.vector) for each in (x, v))
    cosh, sinh = _function(algebra, of_x, "cosh"), _function(algebra, of_v, "sinh")
    if cosh is None or sinh is None or algebra.single(of_x) != cosh:
        return None
    target = "lorentz_expmap"
    argument, other = (algebra.atoms[i].parts[0] for i in (cosh, sinh))
    whole = algebra.add(algebra.multiply(of_x, x.form), algebra.multiply(of_v, v.form))
    if not algebra.equal(form, whole):
        return NearMiss(target, "time and space components have other factors", "other_constant")
    if not algebra.equal(argument, other):
        return NearMiss(
            target,
            f"cosh of {algebra.describe(argument)} and sinh of {algebra.describe(other)}, expected one argument",
            "other_norm",
        )
    squares = inner(algebra, v.form, v.form)
    sign = 1.0 if of_v.terms[0][1] > 0 else -1.0
    below = algebra.power(algebra.scale(_without(of_v, sinh), sign), -1)
    inside, outside = (_norm(algebra, each, squares) for each in (argument, below))
    if inside is None or outside is None:
        wrong = argument if inside is None else below
        return NearMiss(
            target,
            f"{algebra.describe(wrong)} is no multiple of the norm sqrt({algebra.describe(squares)})",
            "other_norm",
        )
    ratio = quotient(algebra, inside.scale, outside.scale)
    number = 1.0 if algebra.equal(inside.scale, outside.scale) else ratio.number
    if number is None or number <= 0:
        return NearMiss(
            target,
            f"different curvature inside and outside: the norm is scaled by {algebra.describe(inside.scale)} inside "
            f"sinh and by {algebra.describe(outside.scale)} in the denominator",
            "other_curvature",
        )
    if outside.most != INFINITY:
        return NearMiss(target, f"the denominator is clamped from above at {outside.most:g}", "other_guard")
    for each in (inside, outside):
        least = max(each.least, each.low * (each.scale.number or 1.0))
        if least * least / 2 > ROUNDINGS * algebra.eps:  # cosh of it is 1 to within that
            return NearMiss(
                target,
                f"the norm is clamped at {least:g} after scaling; the operator has no such guard",
                "other_guard",
            )
    guards: dict[str, float | bool] = {} if inside.most == INFINITY else {"max_argument": inside.most}
    operands = (Operand(x.vector), Operand(v.vector, constant(sign * number)))
    return Match(target, operands, algebra.power(outside.scale, 2), guards)


def _logarithm(algebra: Algebra, form: Form, x: _Row, y: _Row) -> Match | NearMiss | None:
    of_y = _factor(algebra, form, y.vector)
    index = _function(algebra, of_y, "acosh")
    if index is None or x.curvature is None or y.curvature is None:
        return None
    c, target = x.curvature, "lorentz_logmap"
    if not algebra.equal(c, y.curvature):
        return None
    product = algebra.multiply(c, inner(algebra, x.form, y.form))
    towards = algebra.add(y.form, algebra.multiply(product, x.form))
    if not algebra.equal(form, algebra.multiply(of_y, towards)):
        return NearMiss(
            target,
            f"the row is no multiple of y + c <x, y> x for c = {algebra.describe(c)}",
            "other_constant",
        )
    argument, low = algebra.atoms[index].parts[0], 1.0
    single = algebra.single(argument)
    if single is not None and algebra.atoms[single].kind == "clamp":
        argument, low, high = algebra.atoms[single].parts
        if high != INFINITY:
            return NearMiss(
                target, f"the argument of arcosh is clamped from above at {high:g}", "other_guard"
            )
    if not algebra.equal(argument, algebra.scale(product, -1.0)):
        return NearMiss(
            target,
            f"arcosh of {algebra.describe(argument)}, expected {algebra.describe(algebra.scale(product, -1.0))}",
            "other_constant",
        )
    if low > 1 + ROUNDINGS * algebra.eps:
        return NearMiss(
            target,
            f"the argument of arcosh is clamped at {low:.9g}; the operator has min_norm",
            "other_guard",
        )
    below = algebra.power(_without(of_y, index), -1)
    norm = _norm(algebra, below, inner(algebra, towards, towards))
    if norm is None or norm.most != INFINITY:
        return NearMiss(
            target, f"{algebra.describe(below)} is no multiple of the norm of y + c <x, y> x", "other_norm"
        )
    multiple = quotient(algebra, algebra.power(c, HALF), norm.scale)
    if any(of_rows(algebra, i) for m, _ in multiple for i, _ in m) or len(multiple) != 1:
        return None
    guards: dict[str, float | bool] = {}
    if norm.least:
        if norm.scale.number is None:
            return NearMiss(target, f"the norm is clamped at {norm.least:g} after scaling", "other_guard")
        guards["min_norm"] = norm.least / norm.scale.number
    if norm.low:
        guards["min_norm"] = max(norm.low, float(guards.get("min_norm", 0.0)))
    return Match(target, (Operand(x.vector), Operand(y.vector)), c, guards, multiple=multiple)


def _tangent(algebra: Algebra, form: Form, x: _Row, v: _Row) -> Match | None:
    """`<x, w> = 0`, whatever the row `v` is."""
    held = {index for monomial, _ in algebra.parted(form)[1] for index, _ in monomial}
    if x.curvature is None or v.vector not in held or len(inner(algebra, x.form, form)):
        return None
    return Match("tangent", (Operand(x.vector), Operand(v.vector)), x.curvature)


def _norm(algebra: Algebra, form: Form, squares: Form) -> _Norm | None:
    """The multiple of the root of some squares that a form is, clamped or not."""
    least, most = 0.0, INFINITY
    while (root := _root(algebra, form, squares)) is None:
        index = algebra.single(form)
        if index is None or algebra.atoms[index].kind != "clamp":
            return None
        form, low, high = algebra.atoms[index].parts
        least, most = max(low, min(least, high)), min(most, high)
    return _Norm(root.scale, root.low, max(least, 0.0), most)


def _root(algebra: Algebra, form: Form, squares: Form) -> _Norm | None:
    """The same without a clamp after scaling."""
    if len(form) != 1 or not len(squares):
        return None
    ((monomial, coefficient),) = form.terms
    factors = [(i, e) for i, e in monomial if of_rows(algebra, i)]
    if len(factors) != 1:
        return None
    ((index, exponent),) = factors
    scale = Form(((tuple(f for f in monomial if f not in factors), coefficient),))
    base, low, atom = Form(((tuple(factors), 1.0),)), 0.0, algebra.atoms[index]
    if atom.kind == "clamp" and exponent in (1, HALF):
        inside, bound, high = atom.parts
        if high != INFINITY or bound < 0:
            return None
        base, low = algebra.power(inside, exponent), bound ** float(exponent)
    ratio = quotient(algebra, base, algebra.power(squares, HALF))
    if len(ratio) != 1 or any(of_rows(algebra, i) for m, _ in ratio for i, _ in m):
        return None
    if low:
        if ratio.number is None:
            return None
        low /= ratio.number
    return _Norm(algebra.multiply(scale, ratio), low, 0.0, INFINITY)
