"""Recognises distances that are spelled out as polynomials of the squares and the inner product of two rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

from .clamps import code_of
from .rows.algebra import Algebra
from .rows.forms import HALF, OF_ROWS, ONE, Form, Monomial, TooLarge, constant, power_of
from .rows.functions import INFINITY, clamp
from .rows.matching import Match, NearMiss, Operand

# Coefficients that are multiplied out differ by the rounding of a few products of Python's floats. What is added on
# purpose is more: an offset of 1e-8 is a guard against dividing by zero.
EXACT = 64 * 2.0**-52
FUNCTIONS = {"acosh": math.acosh, "asinh": math.asinh, "artanh": math.atanh}


def match_distance(algebra: Algebra, form: Form, x: int, y: int) -> Match | NearMiss | None:
    """Compare a number with the distances of two points of the ball, of Klein's ball and of the hyperboloid.

    With `Q = ||x - y||^2`, `A = 1 - c||x||^2`, `B = 1 - c||y||^2` and `D = A B + c Q`, that of the Poincaré ball is
    `arcosh(1 + 2 c Q / (A B)) / s`, `2 asinh(sqrt(c Q / (A B))) / s` or `2 artanh(sqrt(c Q / D)) / s`; that of Klein's
    is `arcosh((1 - c <x, y>) / sqrt(A B)) / s`; that of the hyperboloid over space components
    `arcosh(sqrt(1 + c||x||^2) sqrt(1 + c||y||^2) - c <x, y>) / s`.
    """
    if len(form) != 1:
        return None
    ((monomial, coefficient),) = form.terms
    functions = [(i, e) for i, e in monomial if algebra.atoms[i].kind in FUNCTIONS]
    if len(functions) != 1 or functions[0][1] != 1:
        return None
    rest = Form(((tuple(f for f in monomial if f != functions[0]), coefficient),))
    atom = algebra.atoms[functions[0][0]]
    if algebra.kinds(rest) & OF_ROWS:
        return None
    return _Distances(algebra, x, y).match(atom.kind, atom.parts[0], rest)


def _shortened(text: str, longest: int = 120) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def _told_apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers with as many digits as tell them apart, six at least.

    >>> _told_apart(2.0, -4.0), _told_apart(1.0, 1.00000001)
    (('2', '-4'), ('1', '1.00000001'))
    """
    for digits in range(6, 18):
        texts = f"{one:.{digits}g}", f"{other:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


class _Distances:
    def __init__(self, algebra: Algebra, x: int, y: int) -> None:
        self.algebra, self.x, self.y = algebra, x, y
        self.xx, self.yy = (algebra.atom("inner", i, i, nonnegative=True) for i in (x, y))
        self.xy = algebra.atom("inner", *sorted((x, y)))

    def match(self, kind: str, argument: Form, rest: Form) -> Match | NearMiss | None:
        guards: dict[str, float | bool] = {}
        argument, low, high = self._unclamped(argument)
        if kind == "artanh" and high < INFINITY:
            guards["atanh_limit"] = high
        elif high < INFINITY:
            return self._miss(f"the argument of {kind} is clamped from above at {high:g}")
        if kind != "acosh" and not self._signed(argument):
            return None
        for c in self._curvatures(argument):
            for target, expected, halves, min_gap in self._guarded(kind, argument, c):
                if self._same(argument, expected, c):
                    if min_gap:
                        guards["min_gap"] = min_gap
                    # Below 0 an argument of asinh only comes by rounding: a clamp there changes nothing.
                    if low > (1.0 if kind == "acosh" else 0.0):
                        if target == "lorentz_dist":
                            guards["min_argument"] = low
                        elif kind == "artanh" and low >= min(high, 1.0):
                            return self._miss(
                                f"the argument of {kind} is clamped at {low:g}, where it has no value"
                            )
                        else:
                            guards["min_distance"] = halves * FUNCTIONS[kind](low)
                    root = self.algebra.power(c, HALF)
                    multiple = self.algebra.scale(self.algebra.multiply(rest, root), 1.0 / halves)
                    operands = (Operand(self.x), Operand(self.y))
                    return Match(target, operands, c, guards, multiple=multiple)
        return self._near(kind, argument)

    def _signed(self, argument: Form) -> bool:
        """Whether no factor of an argument may turn its sign, since it is compared by its square."""
        given = [(i, e) for m, _ in argument for i, e in m if not self.algebra.kinds(power_of(i)) & OF_ROWS]
        return len(argument) > 1 or all(
            self.algebra.atoms[i].nonnegative or e % 2 == 0 or e.denominator % 2 == 0 for i, e in given
        )

    def _near(self, kind: str, argument: Form) -> NearMiss | None:
        """The first monomial in which an argument of both squares and the inner product differs from a distance's."""
        a = self.algebra
        needed = {a.single(each) for each in (self.xx, self.yy, self.xy)}
        if not needed <= a.indices(argument) or a.kinds(argument) & {
            "tanh",
            "artanh",
            "acosh",
            "asinh",
            "log",
        }:
            return None
        if all((a.single(self.xy), Fraction(1)) in monomial for monomial, _ in argument):
            return None  # a multiple of the inner product is the side of a hyperplane, and no distance
        c = next(self._curvatures(argument), ONE)
        target, expected = self._alike(kind, argument, c)
        given, looked_for = (_shortened(a.describe(form)) for form in (argument, expected))
        where = f"{kind} of {given}, expected {looked_for} for c = {a.describe(c)}"
        try:
            left, right = (
                dict(self._cleared(*pair)) for pair in ((argument, expected), (expected, argument))
            )
        except (TooLarge, ArithmeticError):
            return NearMiss(target, where)
        for monomial in self._differing(left, right, c)[:1]:
            found, wanted = (each.get(monomial, 0.0) for each in (left, right))
            name = a.describe(Form(((monomial, 1.0),)))
            has, should = _told_apart(found, wanted)
            return NearMiss(
                target,
                f"{where}: squared and multiplied out, has {has} times {name}, expected {should}",
                self._code(argument, constant(found), constant(wanted)),
            )
        return None

    def _code(self, argument: Form, differing: Form, wanted: Form) -> str:
        """Whether what is beside the squares and the inner product, or a factor that differs, is another curvature."""
        found = list(self._curvatures(argument))
        codes = [code_of(self.algebra, other, found[0]) for other in found[1:]]
        codes.append(code_of(self.algebra, differing, wanted))
        return "other_curvature" if "other_curvature" in codes else "other_constant"

    def _alike(self, kind: str, argument: Form, c: Form) -> tuple[str, Form]:
        """The distance that an argument looks like: by the roots that it is a sum of, or is divided by."""
        exponents = {e for m, _ in argument for i, e in m if self.algebra.atoms[i].kind == "sum"}
        likely = (
            "lorentz_dist" if HALF in exponents else "klein_dist" if -HALF in exponents else "poincare_dist"
        )
        known = [(target, expected) for target, expected, _ in self._expected(kind, c)]
        return next((pair for pair in known if pair[0] == likely), known[0])

    @staticmethod
    def _miss(reason: str) -> NearMiss:
        return NearMiss("poincare_dist", reason, "other_guard")

    def _unclamped(self, form: Form) -> tuple[Form, float, float]:
        index = self.algebra.single(form)
        if index is None or self.algebra.atoms[index].kind != "clamp":
            return form, -INFINITY, INFINITY
        inside, low, high = self.algebra.atoms[index].parts
        return inside, low, high

    def _curvatures(self, form: Form) -> Iterator[Form]:
        """What `c` may be: what the squares and the inner product are multiplied by, in sums with a constant."""
        found: list[Form] = []
        for monomial, coefficient in form:  # c <x, y> alone, of the hyperboloid
            if coefficient < 0 and (self.algebra.single(self.xy), Fraction(1)) in monomial and len(form) == 2:
                others = tuple(f for f in monomial if f[0] != self.algebra.single(self.xy))
                c = Form(((others, -coefficient),))
                if not self.algebra.kinds(c) & OF_ROWS:
                    found.append(c)
        for part in self._sums(form):
            plain = next((k for m, k in part if not m), 0.0)
            if not plain:
                continue
            for monomial, coefficient in part:
                for atom, factor in ((self.xx, 1.0), (self.yy, 1.0), (self.xy, 1.0), (self.xy, 0.5)):
                    index = self.algebra.single(atom)
                    if (index, Fraction(1)) not in monomial:
                        continue
                    others = tuple(f for f in monomial if f != (index, Fraction(1)))
                    c = Form(((others, abs(factor * coefficient / plain)),))
                    if self.algebra.kinds(c) & OF_ROWS:
                        continue
                    if not any(self.algebra.equal(c, other) for other in found):
                        found.append(c)
        yield from found

    def _sums(self, form: Form) -> Iterator[Form]:
        yield form
        for index in sorted(self.algebra.indices(form)):
            atom = self.algebra.atoms[index]
            if atom.kind in ("sum", "clamp"):
                yield atom.parts[0]

    def _guarded(self, kind: str, argument: Form, c: Form) -> Iterator[tuple[str, Form, float, float | None]]:
        """What is expected, with the gaps to the boundary as they are, and at the bound that the argument has."""
        for target, expected, halves in self._expected(kind, c):
            yield target, expected, halves, None
        if kind == "artanh":
            return
        a = self.algebra
        clamps = [a.atoms[i].parts for i in sorted(a.indices(argument)) if a.atoms[i].kind == "clamp"]
        for bound in dict.fromkeys(low for _, low, high in clamps if low > 0 and high == INFINITY):
            for target, expected, halves in self._expected(kind, c, bound):
                if target == "poincare_dist":
                    yield target, expected, halves, bound

    def _expected(self, kind: str, c: Form, min_gap: float = -INFINITY) -> Iterator[tuple[str, Form, float]]:
        """Each distance of this curvature as the argument of a function, and how many of it make the distance."""
        a = self.algebra
        product = a.multiply
        apart = a.add(a.add(self.xx, self.yy), self.xy, alpha=-2.0)
        gaps = [
            clamp(a, a.add(ONE, product(c, square), alpha=-1.0), low=min_gap) for square in (self.xx, self.yy)
        ]
        both = product(*(a.power(gap, -1) for gap in gaps))
        odds = product(product(c, apart), both)
        if kind == "acosh":
            yield "poincare_dist", a.add(ONE, a.scale(odds, 2.0)), 1.0
            width = a.power(product(*gaps), -HALF)
            of_klein = a.add(ONE, product(c, self.xy), alpha=-1.0)
            yield "klein_dist", product(of_klein, width), 1.0
            yield "klein_dist", product(of_klein, product(*(a.power(gap, -HALF) for gap in gaps))), 1.0
            times = [a.power(a.add(ONE, product(c, square)), HALF) for square in (self.xx, self.yy)]
            yield "lorentz_dist", a.add(product(*times), product(c, self.xy), alpha=-1.0), 1.0
            # Where the sign of c is not known, sqrt(1 / c + ||x||^2) is a form of its own.
            times = [a.power(a.add(a.power(c, -1), square), HALF) for square in (self.xx, self.yy)]
            product_of_times = product(product(*times), c)
            yield "lorentz_dist", a.add(product_of_times, product(c, self.xy), alpha=-1.0), 1.0
        elif kind == "asinh":
            yield "poincare_dist", a.power(odds, HALF), 2.0
        else:
            whole = a.add(product(*gaps), product(c, apart))
            yield "poincare_dist", product(a.power(product(c, apart), HALF), a.power(whole, -HALF)), 2.0

    def _same(self, found: Form, expected: Form, c: Form) -> bool:
        """Whether two forms are the same function: as they are, or else as quotients of polynomials."""
        if self.algebra.equal(found, expected):
            return True
        try:
            left, right = (dict(self._cleared(*pair)) for pair in ((found, expected), (expected, found)))
        except (TooLarge, ArithmeticError):
            return False
        return not self._differing(left, right, c)

    def _differing(
        self, left: Mapping[Monomial, float], right: Mapping[Monomial, float], c: Form
    ) -> list[Monomial]:
        """The monomials whose coefficients differ, by more than the rounding of the largest term in the ball."""
        monomials = sorted(left.keys() | right.keys())
        sizes = {monomial: self._size(monomial, abs(c.terms[0][1])) for monomial in monomials}
        largest = max((abs(k) * sizes[m] for m, k in right.items()), default=0.0)
        return [
            m for m in monomials if abs(left.get(m, 0.0) - right.get(m, 0.0)) * sizes[m] > EXACT * largest
        ]

    def _size(self, monomial: Monomial, c: float) -> float:
        """How large a monomial is near the boundary, where squares and the inner product are `1 / c`."""
        size = 1.0
        for index, exponent in monomial:
            atom = self.algebra.atoms[index]
            if atom.kind == "inner":
                size *= c ** -float(exponent)
            elif atom.kind == "sum":
                size *= max(abs(k) * self._size(m, c) for m, k in atom.parts[0]) ** float(exponent)
        return size

    def _cleared(self, form: Form, other: Form) -> Form:
        """The square of a form, times every sum that either form's square is divided by."""
        a = self.algebra
        squares = [a.power(each, 2) if len(each) == 1 else each for each in (form, other)]
        if any(len(each) == 1 for each in (form, other)) and not all(
            len(each) == 1 for each in (form, other)
        ):
            squares = [a.multiply(each, each) for each in (form, other)]
        divisors: dict[int, Fraction] = {}
        for square in squares:
            for monomial, _ in square:
                for index, exponent in monomial:
                    if exponent < 0:
                        divisors[index] = max(divisors.get(index, Fraction(0)), -exponent)
        cleared = squares[0]
        for index, exponent in sorted(divisors.items()):
            cleared = a.multiply(cleared, power_of(index, exponent))
        return cleared
