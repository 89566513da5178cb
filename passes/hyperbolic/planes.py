"""Recognises what class scores are multiples of: the asinh of points and hyperplanes, through the origin or shifted."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from .clamps import of_rows
from .rays import gap_curvature
from .rows.algebra import Algebra
from .rows.forms import HALF, ONE, ZERO, Form, join
from .rows.functions import INFINITY, cosh, sinh
from .rows.matching import Match, NearMiss, Operand

TARGET, NAME = "hnnpp_planes", "poincare_mlr"
Factor = tuple[int, Fraction]


def match_planes(algebra: Algebra, form: Form, x: int, y: int) -> Match | NearMiss | None:
    """Compare a number with the distance of points to hyperplanes; None where it does not look like one.

    `asinh((2 s <x, z> / ||z|| cosh(t) - (1 + c||x||^2) sinh(t)) / (1 - c||x||^2))`, where `t` is 0 for hyperplanes
    through the origin: then `x` may be a Möbius sum, which makes them hyperplanes through its first row.
    """
    found = _argument(algebra, form)
    if found is None:
        return None
    argument, guards = found
    for point, normal in ((x, y), (y, x)):
        outcome = _Planes(algebra, point, normal).match(argument, guards)
        if outcome is not None:
            return outcome
    return None


def _argument(algebra: Algebra, form: Form) -> tuple[Form, dict[str, float | bool]] | None:
    """What asinh is taken of, and from where its value is kept up."""
    guards: dict[str, float | bool] = {}
    index = algebra.single(form)
    if index is not None and algebra.atoms[index].kind == "clamp":
        form, low, high = algebra.atoms[index].parts
        if high != INFINITY:
            return None
        guards["min_result"] = low
    if len(form) != 1 or abs(form.terms[0][1]) != 1:
        return None
    ((monomial, sign),) = form.terms
    if len(monomial) != 1 or monomial[0][1] != 1:
        return None
    atom = algebra.atoms[monomial[0][0]]
    if atom.kind != "asinh" or len(atom.parts) != 1:  # that of arcosh has no sign
        return None
    return algebra.scale(atom.parts[0], sign), guards


class _Planes:
    """Compares the argument of asinh, with one of two rows as the point and the other as the normal."""

    def __init__(self, algebra: Algebra, point: int, normal: int) -> None:
        self.algebra, self.point, self.normal = algebra, point, normal
        self.xx, self.zz = (algebra.index("inner", i, i, nonnegative=True) for i in (point, normal))
        self.xz = algebra.index("inner", *sorted((point, normal)))
        self.unsigned = algebra.index("abs", self._form((self.xz, Fraction(1))), nonnegative=True)

    def match(self, argument: Form, guards: dict[str, float | bool]) -> Match | NearMiss | None:
        products = [(m, k) for m, k in argument if self._product(m) is not None]
        if not products or self.xx not in self.algebra.indices(argument):
            return None
        if len(products) > 1:
            return self._miss(argument, None, "the product of the rows stands in more than one term")
        for divisor, c, of_gap in self._gaps(products[0][0]):
            # What an offset is added to is the gap times the length; they are looked at together.
            offset = "quotient_offset" in of_gap
            numerator = self._over(argument, divisor)
            return self._compare(argument, numerator, c, {**guards, **of_gap}, offset)
        return self._miss(argument, None, "nothing is divided by 1 - c||x||^2")

    def _compare(
        self, argument: Form, numerator: Form, c: Form, guards: dict[str, float | bool], offset: bool
    ) -> Match | NearMiss:
        algebra = self.algebra
        along = next((m, k) for m, k in numerator if self._product(m) is not None)
        rest = algebra.add(numerator, Form((along,)), alpha=-1.0)
        product = self._product(along[0])
        assert product is not None
        guards = {**guards, **({"unsigned": True} if product == self.unsigned else {})}
        factor = Form(((tuple(f for f in along[0] if f[0] != product), along[1]),))
        wanted = algebra.scale(algebra.power(c, HALF), 2.0)
        shift = ZERO
        if not offset:
            length, of_length = self._length(along[0])
            guards |= of_length
            wanted = algebra.multiply(wanted, length)
            if length == ONE:
                guards["unit"] = True
        if len(rest):
            angles = [
                algebra.atoms[i].parts[0] for i, e in along[0] if algebra.atoms[i].kind == "cosh" and e == 1
            ]
            if len(angles) != 1:
                return self._miss(argument, c, "the product is not multiplied by cosh(t)")
            found = [t for t in (angles[0], algebra.scale(angles[0], -1.0)) if self._is_shift(rest, t, c)]
            if not found:
                return self._miss(
                    argument,
                    c,
                    f"beside the product stands {algebra.describe(rest)}, expected "
                    f"{algebra.describe(self._rest(angles[0], c))}",
                )
            shift = found[0]
            wanted = algebra.multiply(wanted, cosh(algebra, shift))
        if any(of_rows(algebra, i) for m, _ in shift for i, _ in m):
            return self._miss(argument, c, "the shift depends on the rows")
        if not algebra.equal(factor, wanted):
            return self._miss(
                argument,
                c,
                f"the product of the rows has the factor {algebra.describe(factor)}, expected "
                f"{algebra.describe(wanted)}",
            )
        operands = (Operand(self.point), Operand(self.normal))
        return Match(TARGET, operands, c, guards, (shift,), rule=NAME)

    def _rest(self, angle: Form, c: Form) -> Form:
        """`-(1 + c||x||^2) sinh(t)`."""
        algebra = self.algebra
        lift = algebra.add(ONE, algebra.multiply(c, self._form((self.xx, Fraction(1)))))
        return algebra.scale(algebra.multiply(lift, sinh(algebra, angle)), -1.0)

    def _is_shift(self, rest: Form, angle: Form, c: Form) -> bool:
        return self.algebra.equal(rest, self._rest(angle, c))

    def _length(self, monomial: tuple[Factor, ...]) -> tuple[Form, dict[str, float | bool]]:
        """`1 / ||z||` as it stands in a monomial, and its guard; 1 where nothing is divided by it."""
        root = self._form((self.zz, HALF))
        for index, exponent in monomial:
            if (index, exponent) == (self.zz, -HALF):
                return self._form((index, exponent)), {}
            atom = self.algebra.atoms[index]
            clamped = exponent == -1 and atom.kind == "clamp" and self.algebra.equal(atom.parts[0], root)
            if clamped and atom.parts[2] == INFINITY and atom.parts[1] >= 0:
                return self._form((index, exponent)), {"min_length": atom.parts[1]}
        return ONE, {}

    def _product(self, monomial: tuple[Factor, ...]) -> int | None:
        """The product of the two rows in a monomial, or its size."""
        return next((i for i, e in monomial if i in (self.xz, self.unsigned) and e == 1), None)

    def _gaps(self, monomial: tuple[Factor, ...]) -> Iterator[tuple[Form, Form, dict[str, float | bool]]]:
        """What a term is divided by that is `1 - c||x||^2`, guarded or not, with `c` and the guards."""
        for index, exponent in monomial:
            if exponent != -1:
                continue
            if (found := self._gap(index)) is not None:
                scale, c, guards = found
                yield self.algebra.scale(self._form((index, Fraction(1))), 1 / scale), c, guards
            elif (offset := self._offset(index, monomial)) is not None:
                yield offset

    def _gap(self, index: int) -> tuple[float, Form, dict[str, float | bool]] | None:
        """A multiple of `max(1 - c||x||^2, min_alpha)`, or of the gap with a least square: by what, `c` and guards."""
        algebra, guards = self.algebra, {}
        atom = algebra.atoms[index]
        inside = atom.parts[0]
        if atom.kind == "clamp":
            if atom.parts[2] != INFINITY or atom.parts[1] < 0:
                return None
            guards["min_alpha"] = atom.parts[1]
        elif atom.kind != "sum":
            return None
        if not isinstance(inside, Form):
            return None
        inside, least = self._without_least(inside)
        if least is not None:
            guards["min_square"] = least
        plain = next((k for m, k in inside if not m), 0.0)
        if not plain or (plain < 0 and "min_alpha" in guards):
            return None
        c = gap_curvature(algebra, algebra.scale(inside, 1 / plain), self.point)
        if c is None:
            return None
        if "min_alpha" in guards:
            guards["min_alpha"] /= plain
        return plain, c, guards

    def _without_least(self, form: Form) -> tuple[Form, float | None]:
        """A form with `||x||^2` in the place of `max(||x||^2, e)`, and e."""
        algebra = self.algebra
        terms, least = [], None
        for monomial, coefficient in form:
            for index, exponent in monomial:
                atom = algebra.atoms[index]
                inside = algebra.single(atom.parts[0]) if atom.kind == "clamp" else None
                if inside == self.xx and inside is not None and atom.parts[2] == INFINITY and exponent == 1:
                    least = atom.parts[1]
                    rest = tuple(f for f in monomial if f[0] != index)
                    monomial = join(rest, ((self.xx, Fraction(1)),))
                    break
            terms.append((monomial, coefficient))
        return algebra.multiply(Form(tuple(sorted(terms))), ONE), least

    def _offset(
        self, index: int, monomial: tuple[Factor, ...]
    ) -> tuple[Form, Form, dict[str, float | bool]] | None:
        """`side(u) (|u| + e)` of `u = (1 - c||x||^2) ||z||`, which is never 0."""
        algebra = self.algebra
        atom = algebra.atoms[index]
        if atom.kind != "sum" or len(atom.parts[0]) != 2:
            return None
        offset = next((k for m, k in atom.parts[0] if not m), 0.0)
        sizes = [(m, k) for m, k in atom.parts[0] if m]
        if offset <= 0 or len(sizes) != 1 or len(sizes[0][0]) != 1:
            return None
        ((of_size, exponent),) = sizes[0][0]
        if algebra.atoms[of_size].kind != "abs" or exponent != 1 or sizes[0][1] <= 0:
            return None
        u, scale = algebra.atoms[of_size].parts[0], sizes[0][1]
        side = algebra.index("side", u)
        sides = [(i, e) for i, e in monomial if i == side and abs(e) == 1]
        whole = algebra.power(u, -1)
        lengths, guards = self._length(whole.terms[0][0] if len(whole) == 1 else ())
        factors = whole.terms[0][0] if len(whole) == 1 else ()
        gaps = [found for i, e in factors if e == -1 and (found := self._gap(i)) is not None]
        alone = len(whole) == 1 and len(whole.terms[0][0]) == 2
        if not sides or len(gaps) != 1 or not alone or lengths == ONE:
            return None
        multiple, c, of_gap = gaps[0]
        if not algebra.close(multiple, whole.terms[0][1]):
            return None
        divisor = algebra.scale(self._form((index, Fraction(1)), (side, -sides[0][1])), 1 / scale)
        return divisor, c, {**guards, **of_gap, "quotient_offset": offset / scale}

    def _over(self, form: Form, divisor: Form) -> Form:
        """A form times a product of atoms, term by term: a sum that is multiplied out no longer cancels."""
        ((factors, number),) = divisor.terms
        terms = sorted((join(monomial, factors), number * k) for monomial, k in form)
        return self.algebra.multiply(Form(tuple(terms)), ONE)

    @staticmethod
    def _form(*factors: Factor) -> Form:
        return Form(((tuple(sorted(factors)), 1.0),))

    def _miss(self, argument: Form, c: Form | None, reason: str) -> NearMiss:
        found = self.algebra.describe(argument)
        of_curvature = "" if c is None else f" for c = {self.algebra.describe(c)}"
        return NearMiss(TARGET, f"in asinh of {found}: {reason}{of_curvature}", "other_constant", NAME)
