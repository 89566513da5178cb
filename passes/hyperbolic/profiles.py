"""Recognises rows that are a profile of the norm over the norm: tanh, artanh, sinh or asinh of `u`, over `u`."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from .clamps import artanh_in, limited, of_rows, same_guards, stretched, without_zero
from .formulas import FORMULAS
from .guards import NoRadius, Radius, RadiusReader
from .rows.algebra import Algebra
from .rows.forms import OF_ROWS, ONE, Form, constant, join
from .rows.functions import BY_ARCOSH, INFINITY, quotient
from .rows.matching import Match, NearMiss, Operand
from .stretches import scalar_mul

TARGETS = {
    "tanh": "expmap0",
    "artanh": "logmap0",
    "log": "logmap0",
    "sinh": "lorentz_expmap0",
    "asinh": "lorentz_logmap0",
}
LIMITS = {"tanh": "tanh_limit", "artanh": "atanh_limit", "sinh": "max_argument", "asinh": "max_argument"}
HYPERBOLOID = ("sinh", "asinh")


class Profiles:
    """Rows that are a multiple of one row vector: the multiple depends on its norm alone.

    Args:
        algebra: the table of atoms.
        vector: the index of the row vector's atom.
    """

    def __init__(self, algebra: Algebra, vector: int) -> None:
        self.algebra, self.vector = algebra, vector
        self.reader = RadiusReader(algebra, vector)

    def match(self, form: Form) -> Match | NearMiss | None:
        """Compare with a tanh, artanh, sinh or asinh of `u` over `u`, and with `tanh(r artanh(u)) / u`."""
        algebra = self.algebra
        found = self._function_of_norm(form)
        if found is None:
            return None
        index, exponent = found
        kind = algebra.atoms[index].kind
        target = TARGETS[kind]
        if kind == "log":
            return NearMiss(
                target,
                f"{algebra.describe(form)} holds logarithms that are not those of artanh(u) for one u",
            )
        if exponent != 1:
            return NearMiss(target, f"{kind} is raised to the power {float(exponent):g}", "other_constant")
        extra = ONE
        if len(form) > 1:  # a sum of numbers of each row, multiplied out
            form, extra = algebra.content(form, keep_sign=False)
            if algebra.kinds(extra) & OF_ROWS:
                return None
        ((monomial, coefficient),) = form.terms
        monomial, at_zero = without_zero(algebra, monomial)
        divisor = ((self.vector, Fraction(-1)), (index, Fraction(-1)))
        rest = Form(((join(monomial, tuple(sorted(divisor))), abs(coefficient)),))
        sign = 1.0 if coefficient > 0 else -1.0
        try:
            argument, limit = limited(algebra, kind, algebra.atoms[index].parts[0])
            outside = self.read(algebra.power(rest, -1), "the denominator")
            if kind == "tanh" and (inner := artanh_in(algebra, argument)) is not None:
                found_map = scalar_mul(algebra, self.vector, inner, argument, limit, outside, sign)
            else:
                inside = self.read(argument, f"the argument of {kind}")
                blind = BY_ARCOSH in algebra.atoms[index].parts
                found_map = self._radial(kind, inside, outside, limit, sign, at_zero, blind)
        except NoRadius as error:
            return NearMiss(target, str(error), "other_norm")
        if isinstance(found_map, NearMiss) or extra == ONE:
            return found_map
        return replace(found_map, multiple=algebra.multiply(found_map.multiple, extra))

    def read(self, form: Form, where: str) -> Radius:
        """The guarded norm that a form is; `NoRadius` says where it is none."""
        try:
            return self.reader.read(form)
        except NoRadius as error:
            raise NoRadius(f"in {where}: {error}") from None

    def _function_of_norm(self, form: Form) -> tuple[int, Fraction] | None:
        """The factor tanh, artanh or log of the row in a form that is linear in it; logs may come in a sum."""
        algebra = self.algebra
        if not 1 <= len(form) <= 2:
            return None
        found = []
        for monomial, _ in form:
            if (self.vector, Fraction(1)) not in monomial:
                return None
            functions = [
                (i, e) for i, e in monomial if algebra.atoms[i].kind in TARGETS and of_rows(algebra, i)
            ]
            if len(functions) != 1:
                return None
            found += functions
        if len(found) > 1 and found[0] != found[1] and any(algebra.atoms[i].kind != "log" for i, _ in found):
            return None
        return found[0]

    def _radial(
        self,
        kind: str,
        inside: Radius,
        outside: Radius,
        limit: float,
        sign: float,
        at_zero: Form | None,
        blind: bool = False,
    ) -> Match | NearMiss:
        """Of two scales, that of the denominator is the curvature's root: `tanh(a n) / (b n) x` is that of `(a / b) x`.

        Where their quotient is no number, that of the argument is, and the result is multiplied.
        """
        algebra, target = self.algebra, TARGETS[kind]
        ratio = quotient(algebra, inside.scale, outside.scale)
        number = 1.0 if algebra.equal(inside.scale, outside.scale) else ratio.number
        if number is not None and number <= 0:
            return NearMiss(
                target, f"{kind} of a norm that is scaled by {algebra.describe(ratio)} is divided by it"
            )
        factor, multiple, scale = constant(sign * (number or 1.0)), ONE, outside.scale
        of_argument, of_divisor = inside.guards, outside.guards
        if number is None:
            multiple, scale = ratio, inside.scale
            if "min_scaled" in outside.guards:
                return NearMiss(
                    target,
                    f"different curvature inside and outside: the norm is scaled by {algebra.describe(inside.scale)} "
                    f"inside {kind} and by {algebra.describe(outside.scale)} in the denominator, where it is "
                    "clamped after scaling",
                    "other_curvature",
                )
        elif number != 1.0:
            of_argument, of_divisor = (stretched(g, number) for g in (of_argument, of_divisor))
            # The clamp after scaling is one of the scaled norm itself inside, and of its 1 / number outside.
            if "min_scaled" in inside.guards:
                of_argument = {**of_argument, "min_scaled": inside.guards["min_scaled"]}
        guards: dict[str, float | bool] = dict(of_divisor)
        if not same_guards(algebra, of_argument, of_divisor):
            guards |= {"separate": True} | {f"argument_{name}": value for name, value in of_argument.items()}
        elif not of_divisor and at_zero is None:
            guards["nan_at_zero"] = True
        if limit != INFINITY:
            guards[LIMITS[kind]] = limit
        curvature = algebra.power(scale, 2)
        if kind in HYPERBOLOID:
            held = self._held(target, guards, curvature, blind)
            if isinstance(held, NearMiss):
                return held
            guards = held
        return Match(target, (Operand(self.vector, factor),), curvature, guards, multiple=multiple)

    def _held(
        self, target: str, guards: dict[str, float | bool], c: Form, blind: bool
    ) -> dict[str, float | bool] | NearMiss:
        """The guards as the maps of the hyperboloid take them, whose norms are clamped alike wherever they stand."""
        eps = self.algebra.eps
        if blind:  # arcosh gives nothing but rounding there
            guards = {
                name: value for name, value in guards.items() if "min" not in name or value > 1e-3 * eps**0.5
            }
            if not any("min" in name or "offset" in name for name in guards):
                guards.pop("separate", None)
        if guards.pop("separate", False):
            names = [name for name in guards if name.startswith("argument_")] or ["min_norm"]
            low = guards.get(names[0], guards.get(names[0].removeprefix("argument_"), 0.0))
            return NearMiss(
                target, f"one of two norms alone is guarded, by {names[0]} = {low:g}", "other_guard"
            )
        guards.pop("nan_at_zero", None)
        for name in ("min_scaled", "min_norm"):
            # Both profiles are 1 + u^2 / 6 or 1 - u^2 / 6 near 0.
            if name in guards and guards[name] ** 2 / 6 <= eps / 4:
                del guards[name]
        if "min_scaled" in guards and c.number is not None and "min_norm" not in guards:
            guards["min_norm"] = guards.pop("min_scaled") / c.number**0.5
        slots = FORMULAS[target].slots
        for name, value in guards.items():
            if name not in slots:
                held = ", ".join(slots) or "no guard"
                return NearMiss(
                    target,
                    f"the norm is guarded by {name} = {value:g}; the operator has {held}",
                    "other_guard",
                )
        return guards
