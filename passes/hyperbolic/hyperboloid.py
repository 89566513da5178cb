"""Recognises rows of the hyperboloid, time coordinate first: what the time is decides which map the row is."""

from __future__ import annotations

from fractions import Fraction

from .profiles import Profiles
from .rays import gap_curvature, over_gap
from .rows.algebra import Algebra
from .rows.forms import HALF, OF_ROWS, ONE, Form, power_of
from .rows.functions import quotient
from .rows.matching import Match, NearMiss, Operand


def match_whole(algebra: Algebra, form: Form, vector: int) -> Match | NearMiss | None:
    """Compare `(time, space)` with the maps to the hyperboloid; None where it looks like none."""
    time, space = algebra.parted(form)
    if not len(space):
        return None
    return _Whole(algebra, vector, time, space).match()


class _Whole:
    def __init__(self, algebra: Algebra, vector: int, time: Form, space: Form) -> None:
        self.algebra, self.vector = algebra, vector
        self.time, self.space = time, space
        self.squares = algebra.atom("inner", vector, vector, nonnegative=True)

    def match(self) -> Match | NearMiss | None:
        for compare in (self._lifted, self._from_ball, self._rescaled, self._mapped):
            if (found := compare()) is not None:
                return found
        return None

    def _lifted(self) -> Match | NearMiss | None:
        """`(sqrt(1 / c + ||x||^2), x)`."""
        algebra = self.algebra
        stored = len(algebra.atoms[self.vector].parts) > 1
        if algebra.single(self.space) != self.vector or not len(self.time):
            return None
        target = "lorentz_project" if stored else "add_time"
        square = algebra.power(self.time, 2)
        index = algebra.single(self.squares)
        plain = Form(tuple(term for term in square if not self._of_rows(Form((term,)))))
        rest = algebra.add(square, plain, alpha=-1.0)
        if index not in algebra.indices(rest) or "time" in algebra.kinds(rest):
            return None
        # The square says nothing of the sign: that of a root times what may be negative is not known.
        positive = algebra.nonnegative(self.time) and (plain.number or 1.0) > 0
        if algebra.nonnegative(algebra.scale(self.time, -1.0)):
            return None  # a point with its time turned, as it stands in Lorentz products
        if positive and len(plain) == 1 and algebra.equal(rest, self.squares):
            return Match(target, (Operand(self.vector),), algebra.power(plain, -1))
        return NearMiss(
            target,
            f"the time is {algebra.describe(self.time)}, expected sqrt(1 / c + {algebra.describe(self.squares)})",
            "other_constant",
        )

    def _mapped(self) -> Match | NearMiss | None:
        """`(cosh(u) / s, sinh(u) / u x)` and `(0, asinh(u) / u x)`."""
        algebra = self.algebra
        found = Profiles(algebra, self.vector).match(self.space)
        if found is None or found.target not in ("lorentz_expmap0", "lorentz_logmap0"):
            return None
        if isinstance(found, NearMiss):
            return found
        expected = Form(())
        if found.target == "lorentz_expmap0":
            arguments = [
                algebra.atoms[i].parts[0]
                for m, _ in self.space
                for i, _ in m
                if algebra.atoms[i].kind == "sinh"
            ]
            cosh = algebra.atom("cosh", *arguments, nonnegative=True)
            expected = algebra.multiply(cosh, algebra.power(found.curvature, -HALF))
        if found.multiple != ONE or not algebra.equal(self.time, expected):
            return NearMiss(
                found.target,
                f"the time is {algebra.describe(self.time)}, expected {algebra.describe(expected)} "
                f"(of the space components {algebra.describe(self.space)})",
                "other_constant",
            )
        return found

    def _from_ball(self) -> Match | NearMiss | None:
        """`(1, s x) / (s sqrt(1 - c||x||^2))`."""
        algebra, target = self.algebra, "klein_to_lorentz"
        if len(self.space) != 1 or not len(self.time):
            return None
        if (parts := over_gap(algebra, self.space, self.vector, HALF)) is None:
            return None
        number, inside, guards = parts
        if (c := gap_curvature(algebra, inside, self.vector)) is None:
            return None
        inverse = Form(((((self.vector, Fraction(-1)),), 1.0 / number),))
        time = algebra.multiply(algebra.multiply(self.space, inverse), algebra.power(c, -HALF))
        if algebra.close(number, 1.0) and algebra.equal(self.time, time):
            return Match(target, (Operand(self.vector),), c, guards)
        return NearMiss(
            target,
            f"the row is ({algebra.describe(self.time)}, {algebra.describe(self.space)}), expected a time of "
            f"{algebra.describe(time)} over the space components, for c = {algebra.describe(c)}",
            "other_constant",
        )

    def _rescaled(self) -> Match | NearMiss | None:
        """`w / s` over `sqrt((w^2 - 1) / (c max(||x||^2, e))) x`, with `w = offset + scale sigmoid(t)`."""
        algebra, target = self.algebra, "lorentz_rescale"
        stored = algebra.atoms[self.vector].parts
        if len(stored) < 2 or len(self.space) != 1 or "sigmoid" not in algebra.kinds(self.time):
            return None
        ((monomial, coefficient),) = self.space.terms
        if (self.vector, Fraction(1)) not in monomial:
            return None
        rest = Form(((tuple(f for f in monomial if f != (self.vector, Fraction(1))), coefficient),))
        divisors = [i for m, _ in rest for i, e in m if e == -HALF and self._is_square(i)]
        if len(divisors) != 1:
            return None
        below = power_of(divisors[0])
        whole = algebra.multiply(algebra.power(rest, 2), below)
        offset_of_squares = algebra.add(algebra.power(self.time, 2), whole, alpha=-1.0)
        if self._of_rows(offset_of_squares) or not len(offset_of_squares):
            return NearMiss(
                target,
                f"the space components are scaled by the root of {algebra.describe(whole)} over their square, expected "
                f"the square of the time less 1 / c, {algebra.describe(algebra.power(self.time, 2))} - 1 / c",
            )
        c = algebra.power(offset_of_squares, -1)
        w = algebra.multiply(self.time, algebra.power(c, HALF))
        sigmoid = algebra.atom("sigmoid", algebra.atom("time", stored[0]), nonnegative=True)
        index = algebra.single(sigmoid)
        scaled = Form(tuple((m, k) for m, k in w if (index, Fraction(1)) in m))
        offset = algebra.add(w, scaled, alpha=-1.0).number
        scale = quotient(algebra, scaled, sigmoid) if len(scaled) else scaled
        if not algebra.nonnegative(rest):
            return NearMiss(
                target,
                f"the space components are turned round, or may be: their factor is {algebra.describe(rest)}",
                "other_constant",
            )
        if offset is None or not len(scale) or self._of_rows(scale):
            return NearMiss(
                target,
                f"the time is {algebra.describe(self.time)}, expected offset + scale sigmoid(t) of the time t before",
            )
        if offset < 1 or not algebra.nonnegative(scale):
            return NearMiss(
                target,
                f"the time may be below 1 / s, where no point is: {algebra.describe(w)} with an offset of {offset:g}; "
                "the operator keeps it there",
                "other_guard",
            )
        guards: dict[str, float | bool] = {"offset": offset}
        atom = algebra.atoms[divisors[0]]
        if atom.kind == "clamp":
            guards["min_squares"] = atom.parts[1]
        return Match(target, (Operand(self.vector),), c, guards, (scale,))

    def _is_square(self, index: int) -> bool:
        """Whether an atom is `||x||^2`, or that clamped from below."""
        algebra = self.algebra
        atom, own = algebra.atoms[index], algebra.single(self.squares)
        inside = atom.kind == "clamp" and atom.parts[2] == float("inf") and algebra.single(atom.parts[0])
        return index == own or (inside is not False and inside == own)

    def _of_rows(self, form: Form) -> bool:
        return bool(self.algebra.kinds(form) & OF_ROWS)
