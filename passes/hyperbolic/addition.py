"""Recognises `mobius_add`: two rows with polynomial coefficients over their common denominator."""

from __future__ import annotations

from fractions import Fraction

from .clamps import code_of
from .rows.algebra import Algebra
from .rows.forms import OF_ROWS, ONE, ZERO, Form, Monomial, constant, join
from .rows.matching import Match, NearMiss, Operand

TARGET = "mobius_add"


def match_addition(algebra: Algebra, form: Form, x: int, y: int) -> Match | NearMiss | None:
    """Compare a form with the Möbius sum of two row vectors; None where it does not look like one.

    `((1 + 2c<x,y> + c||y||^2) x + (1 - c||x||^2) y) / (1 + 2c<x,y> + c^2||x||^2||y||^2)`
    """
    comparison = _Comparison(algebra, x, y)
    if comparison.takes_last_first(form):
        return _Comparison(algebra, y, x).compare(form)
    return comparison.compare(form)


class _Comparison:
    def __init__(self, algebra: Algebra, x: int, y: int) -> None:
        self.algebra = algebra
        self.x, self.y = x, y
        self.xx, self.yy = (algebra.atom("inner", i, i, nonnegative=True) for i in (x, y))
        self.xy = algebra.atom("inner", *sorted((x, y)))

    def takes_last_first(self, form: Form) -> bool:
        """Whether the inner product stands in the coefficient of y and not in that of x."""
        numerator, _ = self._fraction(form)
        of_x, of_y = (self._factor(self._coefficient(numerator, i), self.xy) for i in (self.x, self.y))
        return len(of_y) > 0 and not len(of_x)

    def compare(self, form: Form) -> Match | NearMiss | None:
        if len(form) < 3 or any(self.algebra.degree(m) != 1 for m, _ in form):
            return None
        numerator, denominator = self._fraction(form)
        of_x, of_y = self._coefficient(numerator, self.x), self._coefficient(numerator, self.y)
        in_x = self._factor(of_x, self.xy), self._factor(of_x, self.yy)
        curvature = self.algebra.scale(self._factor(of_y, self.xx), -1.0)
        if not len(curvature) or not any(map(len, in_x)) or len(of_x) + len(of_y) != len(numerator):
            return None
        lead_x, lead_y = self._plain(of_x), self._plain(of_y)
        if abs(lead_x) == 0 or denominator is None:
            return NearMiss(TARGET, self._without(denominator, lead_x), "other_constant")
        scale = 1 / abs(lead_x)
        sign_x = 1 if lead_x > 0 else -1
        sign_y = 1 if lead_y > 0 else -1
        if not self.algebra.close(abs(lead_y), abs(lead_x)):
            return NearMiss(
                TARGET, f"the coefficient of y begins with {lead_y * scale:g}, not with 1", "other_constant"
            )
        curvature = self.algebra.scale(curvature, scale * sign_y)
        if self.algebra.kinds(curvature) & OF_ROWS:
            return None
        of_x, of_y = (self.algebra.scale(f, scale * s) for f, s in ((of_x, sign_x), (of_y, sign_y)))
        sign = sign_x * sign_y
        if (miss := self._wrong_numerator(of_x, of_y, curvature, sign)) is not None:
            return miss
        guards = self._guards(denominator, curvature, sign, scale)
        if isinstance(guards, NearMiss):
            return guards
        operands = (Operand(self.x, constant(sign_x)), Operand(self.y, constant(sign_y)))
        return Match(TARGET, operands, curvature, guards)

    def _fraction(self, form: Form) -> tuple[Form, int | None]:
        """The numerator, and the index of the atom that divides every term."""
        for index, exponent in form.terms[0][0]:
            atom = self.algebra.atoms[index]
            if exponent != -1 or atom.kind not in ("sum", "clamp"):
                continue
            if all((index, exponent) in monomial for monomial, _ in form):
                inverse: Monomial = ((index, Fraction(1)),)
                return Form(tuple(sorted((join(m, inverse), k) for m, k in form))), index
        return form, None

    def _coefficient(self, form: Form, index: int) -> Form:
        """What one atom is multiplied by."""
        inverse: Monomial = ((index, Fraction(-1)),)
        return Form(tuple(sorted((join(m, inverse), k) for m, k in form if (index, Fraction(1)) in m)))

    def _factor(self, form: Form, atom: Form) -> Form:
        """What an inner product is multiplied by, over the terms that hold no other one."""
        index = self.algebra.single(atom)
        assert index is not None
        found = self._coefficient(form, index)
        return Form(tuple(t for t in found if not self.algebra.kinds(Form((t,))) & {"inner"}))

    @staticmethod
    def _plain(form: Form) -> float:
        return next((k for m, k in form if not m), 0.0)

    @staticmethod
    def _without(denominator: int | None, lead: float) -> str:
        if denominator is None:
            return "the numerator of a Möbius sum is not divided by 1 + 2c<x,y> + c^2||x||^2||y||^2"
        return f"the coefficient of x begins with {lead:g}, not with 1"

    def _wrong_numerator(self, of_x: Form, of_y: Form, c: Form, sign: int) -> NearMiss | None:
        algebra = self.algebra
        parts = (("<x, y>", self.xy, 2.0 * sign), ("||y||^2", self.yy, 1.0))
        for name, atom, factor in parts:
            found, expected = self._factor(of_x, atom), algebra.scale(c, factor)
            if not algebra.equal(found, expected):
                return NearMiss(
                    TARGET,
                    f"in the coefficient of x, {name} has the factor {algebra.describe(found)}, "
                    f"expected {algebra.describe(expected)} (from the coefficient of y, where ||x||^2 has -c)",
                    code_of(algebra, found, expected),
                )
        cxy = algebra.scale(algebra.multiply(c, self.xy), 2.0 * sign)
        expected_x = algebra.add(algebra.add(ONE, cxy), algebra.multiply(c, self.yy))
        expected_y = algebra.add(ONE, algebra.multiply(c, self.xx), alpha=-1.0)
        for name, found, expected in (("x", of_x, expected_x), ("y", of_y, expected_y)):
            if not algebra.equal(found, expected):
                return NearMiss(
                    TARGET,
                    f"the coefficient of {name} is {algebra.describe(found)}, "
                    f"expected {algebra.describe(expected)}",
                    "other_constant",
                )
        return None

    def _guards(
        self, index: int | None, c: Form, sign: int, scale: float
    ) -> dict[str, float | bool] | NearMiss:
        """The guards of the denominator, or what is wrong with it."""
        algebra = self.algebra
        cxy = algebra.scale(algebra.multiply(c, self.xy), 2.0 * sign)
        cc = algebra.multiply(algebra.power(c, 2), algebra.multiply(self.xx, self.yy))
        expected = algebra.add(algebra.add(ONE, cxy), cc)
        assert index is not None
        atom = algebra.atoms[index]
        inverse: Monomial = ((index, Fraction(1)),)
        whole = algebra.scale(algebra.multiply(Form(((inverse, 1.0),)), ONE), scale)
        guards: dict[str, float | bool] = {}
        offset = ZERO
        clamped = [m for m, _ in whole if len(m) == 1 and algebra.atoms[m[0][0]].kind == "clamp"]
        if clamped:
            atom = algebra.atoms[clamped[0][0][0]]
            offset = algebra.add(whole, Form(((clamped[0], 1.0),)), alpha=-1.0)
            whole, low, high = atom.parts
            if high != float("inf") or low < 0 or offset.number is None or offset.number < 0:
                below = algebra.describe(Form(((inverse, scale),)))
                return NearMiss(TARGET, f"the denominator {below} has a guard of another kind", "other_guard")
            if low > 0:  # the denominator is (1 + c<x,y>)^2 + c^2 (||x||^2||y||^2 - <x,y>^2), never negative
                guards["min_denominator"] = low
        elif (surplus := self._plain(whole) - 1) > 1e-14:
            # Nine digits: `1 + 1e-5 - 1` carries the rounding of the sum.
            offset = constant(float(f"{surplus:.9g}"))
            expected = algebra.add(expected, constant(surplus))
        if not algebra.equal(whole, expected):
            return NearMiss(
                TARGET,
                f"the denominator is {algebra.describe(whole)}, expected {algebra.describe(expected)}",
                self._below(whole, expected),
            )
        if offset.number:
            guards["denominator_offset"] = offset.number
        return guards

    def _below(self, found: Form, expected: Form) -> str:
        """The kind of the first difference between two denominators, in the terms that the curvature stands in."""
        squares = self.algebra.multiply(self.xx, self.yy)
        for atoms in (self.xy, squares):
            ((monomial, _),) = atoms.terms
            parts = []
            for form in (found, expected):
                held = [(m, k) for m, k in form if set(monomial) <= set(m)]
                inverse = tuple((i, -e) for i, e in monomial)
                parts.append(Form(tuple(sorted((join(m, inverse), k) for m, k in held))))
            if not self.algebra.equal(*parts):
                return code_of(self.algebra, *parts)
        return "other_constant"
