"""Row algebra: sums of monomials over row vectors, their inner products, row scalars and functions of these."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from .forms import MOST_TERMS, ONE, Atom, Form, Kind, Monomial, TooLarge, join, power_of
from .formula import formula

TIME_AXIS, MASK = "the time axis", "the space axes"


class Algebra:
    """Arithmetic on forms over one table of atoms, in which equal atoms share one index.

    A row that begins with a time coordinate is its time times the vector `(1, 0, ..., 0)`, plus its space
    components. As the product of two rows is taken entry by entry, that of the time axis with any other vector
    is zero; the mask, which is 1 at the space components and 0 at the time, takes the time away.

    Args:
        tolerance: relative difference up to which two constants count as equal.
        eps: the rounding of the graph's numbers; what changes a result by less than a hundredth of it changes nothing.

    >>> from stonefx.passes.hyperbolic.rows.forms import HALF
    >>> algebra = Algebra()
    >>> x = algebra.atom("vector", "x")
    >>> norm = algebra.power(algebra.inner(x, x), HALF)
    >>> algebra.describe(algebra.multiply(x, algebra.power(norm, -1)))
    'x ||x||^-1'
    """

    def __init__(self, tolerance: float = 32 * 2.0**-52, eps: float = 2.0**-52) -> None:
        self.tolerance = tolerance
        self.eps = eps
        self.atoms: list[Atom] = []
        self._of_kind: dict[tuple[Kind, Any], list[int]] = {}
        self.time_axis = self.atom("vector", TIME_AXIS)
        self.mask = self.atom("mask", MASK)
        self._time, self._mask = (self.index(*named) for named in (("vector", TIME_AXIS), ("mask", MASK)))

    def index(self, kind: Kind, *parts: Any, nonnegative: bool = False) -> int:
        """Index of the atom with this kind and these parts, which is added where it is new."""
        # Equal forms have equally many terms.
        alike = self._of_kind.setdefault(
            (kind, len(first) if isinstance(first := parts[0], Form) else first), []
        )
        for index in alike:
            if all(map(self._same, self.atoms[index].parts, parts)):
                return index
        self.atoms.append(Atom(kind, parts, nonnegative))
        alike.append(len(self.atoms) - 1)
        return alike[-1]

    def atom(self, kind: Kind, *parts: Any, nonnegative: bool = False) -> Form:
        """The form that is one atom."""
        return power_of(self.index(kind, *parts, nonnegative=nonnegative))

    def _same(self, left: Any, right: Any) -> bool:
        if isinstance(left, Form) and isinstance(right, Form):
            return self.equal(left, right)
        if isinstance(left, float) and isinstance(right, float):
            return self.close(left, right)
        return left is right or left == right

    def close(self, left: float, right: float) -> bool:
        """Whether two constants are equal to the relative tolerance."""
        return left == right or math.isclose(left, right, rel_tol=self.tolerance)

    def equal(self, left: Form, right: Form) -> bool:
        """Whether two forms have the same monomials with the same coefficients."""
        return len(left) == len(right) and all(
            a == b and self.close(p, q) for (a, p), (b, q) in zip(left, right, strict=True)
        )

    def add(self, left: Form, right: Form, alpha: float = 1.0) -> Form:
        """`left + alpha * right`."""
        scaled = [(monomial, alpha * coefficient) for monomial, coefficient in right]
        return self._collect([*left, *scaled])

    def scale(self, form: Form, factor: float) -> Form:
        """`factor * form`."""
        return self._collect((monomial, factor * coefficient) for monomial, coefficient in form)

    def multiply(self, left: Form, right: Form) -> Form:
        """`left * right`, multiplied out."""
        if len(left) * len(right) > MOST_TERMS:
            raise TooLarge
        terms: list[tuple[Monomial, float]] = []
        for a, p in left:
            for b, q in right:
                terms.extend(self._simplify(join(a, b), p * q))
        return self._collect(terms)

    def _simplify(self, monomial: Monomial, coefficient: float) -> Iterable[tuple[Monomial, float]]:
        """Multiply out sums raised to 1, 2, ... and turn `|a| ** 2` into `a ** 2`."""
        held = [index for index, exponent in monomial if exponent > 0]
        if self._time in held or self._mask in held:
            others = any(self.atoms[i].kind == "vector" and i != self._time for i in held)
            if self._mask in held and any(self.atoms[i].kind == "time" for i in held):
                raise ValueError("a stored time is multiplied by zero, which is none where it is not finite")
            if self._time in held and (others or self._mask in held):
                return []
            if self._mask in held:
                unmasked = tuple(f for f in monomial if f[0] != self._mask)
                if others:
                    return self._simplify(unmasked, coefficient)
                monomial = join(unmasked, ((self._mask, Fraction(1)),))
        for index, exponent in monomial:
            atom = self.atoms[index]
            whole = exponent.denominator == 1
            if (atom.kind == "sum" and whole and exponent > 0) or (
                atom.kind == "abs" and whole and exponent % 2 == 0
            ):
                rest = Form(((tuple(f for f in monomial if f[0] != index), coefficient),))
                return self.multiply(rest, self.power(atom.parts[0], exponent))
        return [(monomial, coefficient)]

    @staticmethod
    def _collect(terms: Iterable[tuple[Monomial, float]]) -> Form:
        total: dict[Monomial, float] = {}
        largest: dict[Monomial, float] = {}
        for monomial, coefficient in terms:
            total[monomial] = total.get(monomial, 0.0) + coefficient
            largest[monomial] = max(largest.get(monomial, 0.0), abs(coefficient))
        kept = [(m, k) for m, k in total.items() if abs(k) > 1e-15 * largest[m]]
        if len(kept) > MOST_TERMS:
            raise TooLarge
        return Form(tuple(sorted(kept)))

    def power(self, form: Form, exponent: Fraction | int) -> Form:
        """`form ** exponent`, exact where the form is real: no sign is lost under an even root."""
        exponent = Fraction(exponent)
        if exponent == 1 or form == ONE:
            return form
        if exponent == 0:
            return ONE
        if not form.terms:
            raise ZeroDivisionError("a power of zero")
        if len(form) > 1 and exponent.denominator == 1 and 2 <= exponent <= 4:
            return self.multiply(self.power(form, exponent - 1), form)
        root = exponent.denominator != 1
        if root and (bounded := self._root_of_clamp(form, exponent)) is not None:
            return bounded
        content, primitive = self.content(form, keep_sign=root)
        (monomial, coefficient) = content.terms[0]
        factors = []
        for index, power in monomial:
            if root and power % 2 == 0 and not self.atoms[index].nonnegative:
                index = self._absolute(index)
            factors.append((index, power * exponent))
        result = Form(((tuple(sorted(factors)), coefficient ** float(exponent)),))
        if primitive != ONE:
            index = self.index("sum", primitive, nonnegative=self.nonnegative(primitive))
            result = self.multiply(result, power_of(index, exponent))
        return self.multiply(result, ONE)

    def _absolute(self, index: int) -> int:
        return self.index("abs", power_of(index), nonnegative=True)

    def _root_of_clamp(self, form: Form, exponent: Fraction) -> Form | None:
        """`clamp_min(f, e) ** p = clamp_min(f ** p, e ** p)` for f >= 0, e > 0 and p > 0; one over that for p < 0."""
        if (single := self.single(form)) is None:
            return None
        if exponent < 0:
            root = self._root_of_clamp(form, -exponent)
            return None if root is None else self.power(root, -1)
        if (atom := self.atoms[single]).kind != "clamp":
            return None
        inside, low, high = atom.parts
        if low <= 0 or not self.nonnegative(inside):
            return None
        low, high = low ** float(exponent), high ** float(exponent)
        return self.atom("clamp", self.power(inside, exponent), low, high, nonnegative=True)

    def content(self, form: Form, keep_sign: bool) -> tuple[Form, Form]:
        """Split a form into a monomial and a rest whose leading coefficient is 1 (or -1, if kept).

        Under a root a factor may be split off only where it is known to be >= 0, or where it is all there is.
        """
        leading = form.terms[0][1]
        coefficient = abs(leading) if keep_sign else leading
        # 1 / k + ||x||^2 is (1 + k ||x||^2) / k: no sum holds a quotient.
        all_exponents = [dict(monomial) for monomial, _ in form]
        least = {
            index: min(exponents.get(index, Fraction(0)) for exponents in all_exponents)
            for index in {i for exponents in all_exponents for i in exponents}
        }
        shared = {index: exponent for index, exponent in least.items() if exponent}
        if keep_sign:
            unknown = [i for i, e in shared.items() if not self.atoms[i].nonnegative and e % 2 == 1]
            # sqrt(c p) = sqrt(c) sqrt(p) needs the sign of all but one of the factors.
            if len(unknown) + (not self.nonnegative(self._divide(form, shared, coefficient))) > 1:
                shared = {i: e for i, e in shared.items() if i not in unknown}
        rest = self._divide(form, shared, coefficient)
        return Form(((tuple(sorted(shared.items())), coefficient),)), rest

    def _divide(self, form: Form, exponents: dict[int, Fraction], coefficient: float) -> Form:
        divisor = tuple((index, -exponent) for index, exponent in sorted(exponents.items()))
        return self._collect((join(m, divisor), k / coefficient) for m, k in form)

    def nonnegative(self, form: Form) -> bool:
        """Whether every term is visibly >= 0 wherever the form is real."""
        return all(
            k >= 0 and all(self.atoms[i].nonnegative or e % 2 == 0 or e.denominator % 2 == 0 for i, e in m)
            for m, k in form
        )

    def at_least(self, form: Form) -> float:
        """A number that a form is never below: its constant, where every other term is visibly >= 0."""
        others = Form(tuple(term for term in form if term[0]))
        return sum(k for m, k in form if not m) if self.nonnegative(others) else -math.inf

    def single(self, form: Form) -> int | None:
        """The index of the atom that the form is, None where it is anything else."""
        if len(form) != 1 or form.terms[0][1] != 1.0:
            return None
        monomial = form.terms[0][0]
        return monomial[0][0] if len(monomial) == 1 and monomial[0][1] == 1 else None

    def degree(self, monomial: Monomial) -> Fraction:
        """Total exponent of the vectors in a monomial."""
        return sum((e for i, e in monomial if self.atoms[i].kind == "vector"), Fraction(0))

    def inner(self, left: Form, right: Form) -> Form:
        """`<left, right>` over the row, for two forms that are linear in vectors."""
        return self.sum(self.multiply(left, right))

    def sum(self, form: Form) -> Form:
        """Sum over the row of a form of degree two in vectors; `ValueError` for any other."""
        terms = []
        for monomial, coefficient in form:
            vectors = [(i, e) for i, e in monomial if self.atoms[i].kind == "vector"]
            pair = [i for i, e in vectors for _ in range(int(e))]
            if len(pair) != 2 or sum(e for _, e in vectors) != 2:
                raise ValueError("a sum over the row of something that is not a product of two row vectors")
            rest = tuple(f for f in monomial if f not in vectors)
            if pair == [self._time, self._time]:
                terms.append((rest, coefficient))
                continue
            product = self.index("inner", *sorted(pair), nonnegative=pair[0] == pair[1])
            terms.append((join(rest, ((product, Fraction(1)),)), coefficient))
        return self._collect(terms)

    def parted(self, form: Form) -> tuple[Form, Form]:
        """The time of a row, as a number, and its space components."""
        times, space = [], []
        for monomial, coefficient in form:
            if self._time in dict(monomial):
                times.append((tuple(f for f in monomial if f[0] != self._time), coefficient))
            elif self._mask not in dict(monomial):
                space.append((monomial, coefficient))
            else:
                space.append((tuple(f for f in monomial if f[0] != self._mask), coefficient))
        return self._collect(times), self._collect(space)

    def indices(self, form: Form) -> set[int]:
        """Every atom in a form, those inside other atoms included."""
        found: set[int] = set()
        pending = [i for m, _ in form for i, _ in m]
        while pending:
            if (index := pending.pop()) in found:
                continue
            found.add(index)
            for part in self.atoms[index].parts:
                if isinstance(part, Form):
                    pending.extend(i for m, _ in part for i, _ in m)
                elif self.atoms[index].kind == "inner":
                    pending.append(part)
        return found

    def kinds(self, form: Form) -> set[str]:
        """The kinds of every atom in a form, those inside other atoms included."""
        return {self.atoms[index].kind for index in self.indices(form)}

    def describe(self, form: Form) -> str:
        """The form as a formula, for a reason that a user reads."""
        return formula(self, form)
