"""Recognises maps along the ray of a row: shortened rows, and conversions between models."""

from __future__ import annotations

from fractions import Fraction

from .clamps import of_rows
from .guards import NoRadius, RadiusReader
from .rows.algebra import Algebra
from .rows.forms import HALF, Form, join, power_of
from .rows.functions import INFINITY
from .rows.matching import Match, Operand


class Rays:
    """Rows that are a multiple of one row vector, without a function of its norm.

    Args:
        algebra: the table of atoms.
        vector: the index of the row vector's atom.
    """

    def __init__(self, algebra: Algebra, vector: int) -> None:
        self.algebra, self.vector = algebra, vector
        self.reader = RadiusReader(algebra, vector)

    def match(self, form: Form) -> Match | None:
        """The map along the ray that a form of one term is."""
        for compare in (self._shortened, self._to_klein, self._from_klein, self._from_hyperboloid):
            if (found := compare(form)) is not None:
                return found
        return None

    def _shortened(self, form: Form) -> Match | None:
        """`min(1, R / n) x`, which `where(n > R, R x / n, x)` is."""
        algebra = self.algebra
        ((monomial, coefficient),) = form.terms
        rest = [f for f in monomial if f != (self.vector, Fraction(1))]
        if len(rest) != 1 or rest[0][1] != 1 or (self.vector, Fraction(1)) not in monomial:
            return None
        atom = algebra.atoms[rest[0][0]]
        if atom.kind != "clamp" or atom.parts[1:] != (-INFINITY, 1.0):
            return None
        try:
            radius = self.reader.read(algebra.power(atom.parts[0], -1))
        except (NoRadius, ArithmeticError):
            return None
        if radius.guards.keys() - {"min_norm"} or not algebra.nonnegative(radius.scale):
            return None
        # radius.scale is sqrt(c) / (1 - eps); where c is a number, both are one.
        curvature, eps = algebra.power(radius.scale, 2), 0.0
        largest = max((k for m, k in curvature if m), default=0.0)
        if curvature.number is None and largest > 1:
            eps = 1 - largest**-0.5
            curvature = algebra.scale(curvature, 1 / largest)
        if coefficient != 1:
            return None
        guards: dict[str, float | bool] = dict(radius.guards)
        if eps:
            guards["eps"] = float(f"{eps:.12g}")
        return Match("project", (Operand(self.vector),), curvature, guards)

    def _over_sum(self, form: Form) -> tuple[float, Form] | None:
        """The factor and the sum of a form `factor x / sum`; None for any other."""
        ((monomial, coefficient),) = form.terms
        rest = [f for f in monomial if f != (self.vector, Fraction(1))]
        if len(rest) != 1 or rest[0][1] != -1 or self.algebra.atoms[rest[0][0]].kind != "sum":
            return None
        return coefficient, self.algebra.atoms[rest[0][0]].parts[0]

    def _to_klein(self, form: Form) -> Match | None:
        """`2 / (1 + c||x||^2) x`."""
        algebra = self.algebra
        if (parts := self._over_sum(form)) is None:
            return None
        coefficient, denominator = parts
        curvature = self._curvature_of(denominator, 1.0)
        if curvature is None:
            return None
        plain = next(k for m, k in denominator if not m)
        if not algebra.close(coefficient, 2 * plain):
            return None
        return Match("poincare_to_klein", (Operand(self.vector),), curvature)

    def _from_klein(self, form: Form) -> Match | None:
        """`x / (1 + sqrt(1 - c||x||^2))`."""
        algebra = self.algebra
        if (parts := self._over_sum(form)) is None:
            return None
        coefficient, below = parts
        plain = next((k for m, k in below if not m), 0.0)
        roots = [(m, k) for m, k in below if m]
        if len(below) != 2 or plain == 0 or len(roots) != 1:
            return None
        width = algebra.scale(Form((roots[0],)), 1 / plain)
        gap, guards = algebra.power(width, 2), {}
        index = algebra.single(gap)
        if index is not None and algebra.atoms[index].kind == "clamp":
            gap, low, high = algebra.atoms[index].parts
            if high != INFINITY or low < 0:
                return None
            guards["min_gap"] = low
        if not algebra.nonnegative(width) or (curvature := self._curvature_of(gap, -1.0)) is None:
            return None
        if not algebra.close(coefficient, plain):
            return None
        return Match("klein_to_poincare", (Operand(self.vector),), curvature, guards)

    def _from_hyperboloid(self, form: Form) -> Match | None:
        """`x / (1 + s t)` and `x / (s t)` of a row with its time `t = sqrt(1 / c + ||x||^2)`, or constant multiples."""
        algebra = self.algebra
        if len(algebra.atoms[self.vector].parts) < 2:
            return None
        inverse = power_of(self.vector, -1)
        parts = algebra.power(algebra.multiply(form, inverse), -1)
        times = [(m, k) for m, k in parts if any(of_rows(algebra, i) for i, _ in m)]
        rest = Form(tuple(term for term in parts if term not in times))
        if len(times) != 1 or len(rest) > 1:
            return None
        width = Form((times[0],))
        if len(rest):
            width = algebra.multiply(width, algebra.power(rest, -1))
        if not algebra.nonnegative(width):  # the curvature is read off its square
            return None
        if len(rest):
            c = gap_curvature(algebra, algebra.power(width, 2), self.vector, 1.0)
            target, multiple = "lorentz_to_poincare", algebra.power(rest, -1)
        else:
            square = algebra.power(width, 2)
            plain = Form(tuple((m, k) for m, k in square if not any(of_rows(algebra, i) for i, _ in m)))
            if len(plain) != 1:
                return None
            c = gap_curvature(algebra, algebra.multiply(square, algebra.power(plain, -1)), self.vector, 1.0)
            target, multiple = "lorentz_to_klein", algebra.power(plain, -HALF)
        return None if c is None else Match(target, (Operand(self.vector),), c, multiple=multiple)

    def _curvature_of(self, form: Form, sign: float) -> Form | None:
        """`c` in a multiple of `1 + sign c||x||^2`."""
        return gap_curvature(self.algebra, form, self.vector, sign)


def gap_curvature(algebra: Algebra, form: Form, vector: int, sign: float = -1.0) -> Form | None:
    """`c` in a positive multiple of `1 + sign c||x||^2`; None for any other form."""
    square = algebra.index("inner", vector, vector, nonnegative=True)
    plain = next((k for m, k in form if not m), 0.0)
    others = [(m, k) for m, k in form if m]
    # 1 + 1e-8 is no 1: what is added there keeps a quotient finite at the boundary.
    if plain <= 0 or 1e-14 < abs(plain - float(f"{plain:.3g}")) < 1e-3:
        return None
    if len(form) != 2 or (square, Fraction(1)) not in others[0][0]:
        return None
    monomial = join(others[0][0], ((square, Fraction(-1)),))
    curvature = Form(((monomial, sign * others[0][1] / plain),))
    if any(of_rows(algebra, i) for i, _ in monomial) or (curvature.number or 1.0) <= 0:
        return None
    return curvature


def over_gap(
    algebra: Algebra, form: Form, vector: int, exponent: Fraction
) -> tuple[float, Form, dict[str, float | bool]] | None:
    """The number, the sum and its guard of a form `number x / max(sum, min_gap)^exponent`; None for any other."""
    ((monomial, coefficient),) = form.terms
    rest = [f for f in monomial if f != (vector, Fraction(1))]
    if len(rest) != 1 or rest[0][1] != -exponent:
        return None
    atom = algebra.atoms[rest[0][0]]
    if atom.kind == "clamp" and atom.parts[2] == INFINITY and atom.parts[1] >= 0:
        return coefficient, atom.parts[0], {"min_gap": atom.parts[1]}
    return (coefficient, atom.parts[0], {}) if atom.kind == "sum" else None
