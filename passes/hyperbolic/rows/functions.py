"""Functions of forms, with the identities that make their spellings fall together."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

from .algebra import Algebra
from .forms import OF_ROWS, ONE, Form, constant, join

INFINITY = math.inf
BY_ARCOSH = "by arcosh"


def absolute(algebra: Algebra, form: Form) -> Form:
    """`|form|`."""
    if algebra.nonnegative(form):
        return form
    if len(form) > 1:
        return algebra.atom("abs", form, nonnegative=True)
    return algebra.power(algebra.power(form, 2), Fraction(1, 2))


def sign(algebra: Algebra, form: Form) -> Form:
    """The sign of a form; `sign(sign(u) + 1/2)`, or with another number between 0 and 1, is its side: never 0."""
    if (number := form.number) is not None:
        return constant((number > 0) - (number < 0))
    plain = next((k for m, k in form if not m), 0.0)
    rest = algebra.single(Form(tuple(term for term in form if term[0])))
    if 0 < plain < 1 and rest is not None and algebra.atoms[rest].kind == "sign":
        return algebra.atom("side", algebra.atoms[rest].parts[0])
    return algebra.atom("sign", form)


def clamp(algebra: Algebra, form: Form, low: float = -INFINITY, high: float = INFINITY) -> Form:
    """`min(max(form, low), high)`; a bound that a non-negative form cannot reach is dropped."""
    if (number := form.number) is not None:
        return constant(min(max(number, low), high))
    if low == high:
        return constant(low)
    if low <= algebra.at_least(form):
        low = -INFINITY
    if low == -INFINITY and high == INFINITY:
        return form
    if low == -high and form.terms[0][1] < 0:
        return algebra.scale(clamp(algebra, algebra.scale(form, -1.0), low, high), -1.0)
    nonnegative = low >= 0 or (algebra.nonnegative(form) and high >= 0)
    return algebra.atom("clamp", form, float(low), float(high), nonnegative=nonnegative)


def tanh(algebra: Algebra, form: Form) -> Form:
    """`tanh(form)`; odd, so that the leading coefficient inside is positive."""
    return _odd(algebra, "tanh", form)


def artanh(algebra: Algebra, form: Form) -> Form:
    """`artanh(form)`; odd, so that the leading coefficient inside is positive."""
    return _odd(algebra, "artanh", form)


def sinh(algebra: Algebra, form: Form) -> Form:
    """`sinh(form)`; odd, so that the leading coefficient inside is positive."""
    return _odd(algebra, "sinh", form)


def cosh(algebra: Algebra, form: Form) -> Form:
    """`cosh(form)`; even, so that the leading coefficient inside is positive."""
    if form.number is not None:
        return constant(math.cosh(form.number))
    return algebra.atom("cosh", algebra.scale(form, -1.0 if form.terms[0][1] < 0 else 1.0), nonnegative=True)


def _sinh(algebra: Algebra, form: Form) -> Form | None:
    """`u` where a form is `sqrt(1 + u^2)`."""
    if len(form) != 1 or not any(exponent == Fraction(1, 2) for _, exponent in form.terms[0][0]):
        return None
    rest = algebra.add(algebra.power(form, 2), ONE, alpha=-1.0)
    if len(rest) != 1 or rest.terms[0][1] < 0 or rest.number is not None:
        return None
    return algebra.power(rest, Fraction(1, 2))


def sigmoid(algebra: Algebra, form: Form) -> Form:
    """`1 / (1 + exp(-form))`."""
    if form.number is not None:
        return constant(1 / (1 + math.exp(-form.number)))
    return algebra.atom("sigmoid", form, nonnegative=True)


_VALUES = {"tanh": math.tanh, "artanh": math.atanh, "asinh": math.asinh, "sinh": math.sinh}


def _odd(algebra: Algebra, kind: Literal["tanh", "artanh", "asinh", "sinh"], form: Form) -> Form:
    if form.number is not None:
        return constant(_VALUES[kind](form.number))
    if form.terms[0][1] < 0:
        return algebra.scale(_odd(algebra, kind, algebra.scale(form, -1.0)), -1.0)
    nonnegative = algebra.nonnegative(form)
    return algebra.atom(kind, form, nonnegative=nonnegative)


def asinh(algebra: Algebra, form: Form) -> Form:
    """`asinh(form)`; odd, so that the leading coefficient inside is positive."""
    return _odd(algebra, "asinh", form)


def acosh(algebra: Algebra, form: Form) -> Form:
    """`arcosh(form)`; `arcosh(sqrt(1 + u^2))` is `|asinh(u)|`."""
    if form.number is not None:
        return constant(math.acosh(form.number))
    low = 1.0
    if (index := algebra.single(form)) is not None and algebra.atoms[index].kind == "clamp":
        inside, bound, high = algebra.atoms[index].parts
        # Below 1, or nearer to it than the numbers of the graph come, an argument only lies by rounding.
        if high == INFINITY and (bound <= 1 + 0.01 * algebra.eps or _sinh(algebra, inside) is not None):
            form, low = inside, max(bound, 1.0) if bound > 1 + 0.01 * algebra.eps else 1.0
    if (of_sinh := _sinh(algebra, form)) is not None:
        # One of its own, since it knows nothing of arguments below the root of the rounding of 1.
        inside = clamp(algebra, of_sinh, math.sqrt(low * low - 1))
        return algebra.atom("asinh", inside, BY_ARCOSH, nonnegative=True)
    return algebra.atom("acosh", form, nonnegative=True)


def log(algebra: Algebra, form: Form) -> Form:
    """`log(form)`; `log((1 + u) / (1 - u))` is `2 artanh(u)`."""
    if form.number is not None:
        return constant(math.log(form.number))
    for index, exponent in form.terms[0][0]:
        atom = algebra.atoms[index]
        if atom.kind != "sum" or exponent != -1:
            continue
        inverse = ((index, Fraction(1)),)
        if all((index, exponent) in monomial for monomial, _ in form):
            numerator = Form(tuple(sorted((join(m, inverse), k) for m, k in form)))
            if (half := _half_difference(algebra, numerator, atom.parts[0])) is not None:
                return algebra.scale(artanh(algebra, half), 2.0)
    return _area(algebra, form) or algebra.atom("log", form)


def _area(algebra: Algebra, form: Form) -> Form | None:
    """`log(z + sqrt(z^2 - 1))` is `arcosh(z)`, `log(z + sqrt(z^2 + 1))` is `asinh(z)`."""
    index = algebra.single(form)
    if index is not None and algebra.atoms[index].kind == "clamp":
        inside, low, high = algebra.atoms[index].parts
        # z + sqrt(z^2 +- 1) is 1 or more for the z that a distance has.
        area = _area(algebra, inside) if high == INFINITY and 0 < low < 1 else None
        if area is None or all(algebra.nonnegative(algebra.atoms[i].parts[0]) for i in _arguments(area)):
            return area
        return clamp(algebra, area, low=math.log(low))
    for monomial, coefficient in form:
        root = Form(((monomial, coefficient),))
        rest = algebra.add(form, root, alpha=-1.0)
        if len(rest) and (low := _of_bounded_root(algebra, root, rest)) is not None:
            # z + max(sqrt(z^2 - 1), e) is that of max(z, sqrt(1 + e^2)): below, both are e to within e^2.
            return acosh(algebra, clamp(algebra, rest, (1 + low * low) ** 0.5))
        # z itself may hold a root, and be negative.
        is_root = any(e == Fraction(1, 2) for _, e in monomial) and algebra.nonnegative(root)
        if not len(rest) or not is_root:
            continue
        for sign, function in ((-1.0, acosh), (1.0, asinh)):
            if algebra.equal(
                algebra.power(root, 2), algebra.add(algebra.multiply(rest, rest), ONE, alpha=sign)
            ):
                return function(algebra, rest)
    return None


def _of_bounded_root(algebra: Algebra, root: Form, rest: Form) -> float | None:
    """`e` where a form is `max(sqrt(rest^2 - 1), e)`, or that with the clamp on the square."""
    ((monomial, coefficient),) = root.terms
    if len(monomial) != 1 or coefficient != 1 or algebra.atoms[monomial[0][0]].kind != "clamp":
        return None
    ((index, exponent),) = monomial
    inside, low, high = algebra.atoms[index].parts
    square = algebra.add(algebra.multiply(rest, rest), ONE, alpha=-1.0)
    if high != INFINITY or exponent not in (1, Fraction(1, 2)):
        return None
    return low ** float(exponent) if algebra.equal(algebra.power(inside, 2 * exponent), square) else None


def _arguments(form: Form) -> list[int]:
    return [index for monomial, _ in form for index, _ in monomial]


def gap_of_limited(algebra: Algebra, form: Form) -> Form:
    """`1 - min(n^2, h)`, which keeps points off the boundary, as `max(1 - n^2, 1 - h)`; another form as it is."""
    terms = dict(form)
    if len(terms) != 2 or terms.get(()) != 1.0:
        return form
    limited = Form(tuple((monomial, -k) for monomial, k in form if monomial))
    index = algebra.single(limited)
    if index is None or algebra.atoms[index].kind != "clamp":
        return form
    inside, low, high = algebra.atoms[index].parts
    squares = [i for m, _ in inside for i, e in m if e == 1 and algebra.atoms[i].kind == "inner"]
    if low != -INFINITY or not 0.5 < high < 1 or len(inside) != 1 or len(squares) != 1:
        return form
    return clamp(algebra, algebra.add(constant(1.0), inside, alpha=-1.0), low=1.0 - high)


def log_sum(algebra: Algebra, form: Form) -> Form:
    """Turn every `k log(1 + u) - k log(1 - u)` in a sum into `2 k artanh(u)`."""
    for position, (monomial, coefficient) in enumerate(form):
        for other, (partner, opposite) in enumerate(form.terms[:position]):
            if not algebra.close(coefficient, -opposite):
                continue
            left = [f for f in monomial if f not in partner]
            right = [f for f in partner if f not in monomial]
            if len(left) != 1 or len(right) != 1 or left[0][1] != 1 or right[0][1] != 1:
                continue
            a, b = algebra.atoms[left[0][0]], algebra.atoms[right[0][0]]
            if a.kind != "log" or b.kind != "log":
                continue
            if (half := _half_difference(algebra, a.parts[0], b.parts[0])) is None:
                continue
            shared = tuple(f for f in monomial if f != left[0])
            factor = Form(((shared, 2.0 * coefficient),))
            rest = Form(tuple(t for i, t in enumerate(form) if i not in (position, other)))
            artanhs = algebra.multiply(factor, artanh(algebra, half))
            return log_sum(algebra, algebra.add(rest, artanhs))
    return form


def _half_difference(algebra: Algebra, plus: Form, minus: Form) -> Form | None:
    """`u` where `plus / minus` is `(1 + u) / (1 - u)`, else None."""
    total = algebra.add(plus, minus).number
    if not total:
        return None
    return algebra.scale(algebra.add(plus, minus, alpha=-1.0), 1.0 / total)


def product(algebra: Algebra, left: Form, right: Form) -> Form:
    """`left * right`."""
    return algebra.multiply(left, right)


def quotient(algebra: Algebra, left: Form, right: Form) -> Form:
    """`left / right`."""
    return algebra.multiply(left, algebra.power(right, -1)) if right != ONE else left


def above(algebra: Algebra, left: Form, right: Form) -> Form:
    """`left > right`, as a condition: 1 or 0 where the signs decide, and at equality nothing depends on it."""
    for sign, number in ((1.0, 1.0), (-1.0, 0.0)):
        difference = algebra.scale(algebra.add(left, right, alpha=-1.0), sign)
        if not (algebra.kinds(difference) & OF_ROWS) and algebra.nonnegative(difference):
            return constant(number)
    return algebra.atom("above", left, right)


def zero(algebra: Algebra, form: Form) -> Form:
    """`form == 0`, as a condition."""
    return algebra.atom("zero", form)


def select(algebra: Algebra, condition: Form, chosen: Form, other: Form) -> Form | None:
    """`where(condition, chosen, other)`, where that is a formula: a row shortened to a length, or a value at zero."""
    if condition.number is not None:
        return chosen if condition.number else other
    index = algebra.single(condition)
    if index is None:
        return None
    atom = algebra.atoms[index]
    if atom.kind == "above":
        left, right = atom.parts
        for high, low, then, default in ((left, right, chosen, other), (right, left, other, chosen)):
            # where(n > R, R / n y, y) is min(1, R / n) y.
            if (
                len(default) != 1
                or len(then) != 1
                or not (algebra.nonnegative(high) and algebra.nonnegative(low))
            ):
                continue
            ratio = quotient(algebra, low, high)
            if algebra.equal(algebra.multiply(default, ratio), then):
                return algebra.multiply(default, clamp(algebra, ratio, high=1.0))
        return None
    if atom.kind == "zero" and len(other) == 1:
        return algebra.multiply(other, algebra.atom("at_zero", atom.parts[0], chosen))
    return None
