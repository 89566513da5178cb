"""What the matchers share: limits of arguments, clamps of several norms, and what depends on the rows."""

from __future__ import annotations

from fractions import Fraction

from .formulas import FORMULAS, NORM
from .guards import NoRadius, Radius
from .rows.algebra import Algebra
from .rows.forms import OF_ROWS, Form, power_of
from .rows.functions import INFINITY, quotient
from .rows.matching import NearMiss

# An offset, or a constant with a wrong digit, is off by less.
NEAR = 2e-3


def without_zero(
    algebra: Algebra, monomial: tuple[tuple[int, Fraction], ...]
) -> tuple[tuple[tuple[int, Fraction], ...], Form | None]:
    """A monomial without what `where` puts in place at zero, and the value there."""
    found = [i for i, _ in monomial if algebra.atoms[i].kind == "at_zero"]
    value = algebra.atoms[found[0]].parts[1] if found else None
    return tuple(f for f in monomial if f[0] not in found), value


def of_rows(algebra: Algebra, index: int) -> bool:
    """Whether an atom depends on the rows."""
    kinds = algebra.kinds(power_of(index))
    return bool(kinds & OF_ROWS)


def artanh_in(algebra: Algebra, argument: Form) -> int | None:
    """The artanh of the row that the argument of a tanh is a multiple of."""
    if len(argument) != 1:
        return None
    found = [i for i, e in argument.terms[0][0] if e == 1 and algebra.atoms[i].kind == "artanh"]
    return found[0] if len(found) == 1 else None


def limited(algebra: Algebra, kind: str, argument: Form) -> tuple[Form, float]:
    """Split the clamp from above off the argument of tanh or artanh; one from below stays."""
    index = algebra.single(argument)
    if index is None or algebra.atoms[index].kind != "clamp" or algebra.atoms[index].parts[2] == INFINITY:
        return argument, INFINITY
    inside, low, high = algebra.atoms[index].parts
    if low == -high or low == -INFINITY:
        if low == -high or algebra.nonnegative(inside):
            return inside, high
    elif 0 <= low < high:
        return algebra.atom("clamp", inside, low, INFINITY, nonnegative=True), high
    raise NoRadius(
        f"the argument of {kind} is clamped to [{low:g}, {high:g}]; the operator clamps it from above, and from below "
        "at zero or more"
    )


def code_of(algebra: Algebra, found: Form, expected: Form) -> str:
    """What a factor that differs speaks of: another curvature; or a wrong constant, which is near a small fraction."""
    if not len(found) or not len(expected):
        return "other_constant"
    ratio = quotient(algebra, found, expected)
    if (number := ratio.number) is None:
        alike = len(ratio) == 1 and not any(of_rows(algebra, i) for m, _ in ratio for i, _ in m)
        return "other_curvature" if alike and ratio.terms[0][1] > 0 else "other_constant"
    small = Fraction(number).limit_denominator(8)
    typed = number <= 0 or (small.numerator <= 8 and abs(number - small) <= NEAR * small)
    return "other_constant" if typed else "other_curvature"


def same_guards(algebra: Algebra, left: dict[str, float], right: dict[str, float]) -> bool:
    """Whether two norms are guarded alike."""
    return left.keys() == right.keys() and all(algebra.close(left[name], right[name]) for name in left)


def stretched(guards: dict[str, float], factor: float) -> dict[str, float]:
    """The guards of the norm of `factor * x` that act on it as the given ones on the norm of `x`."""
    powers = dict(zip(NORM, (2, 1, 1, 1), strict=True))
    return {name: value * factor ** powers[name] for name, value in guards.items()}


def one_clamp(algebra: Algebra, target: str, *radii: Radius) -> dict[str, float | bool] | NearMiss:
    """The one clamp of all norms that the operator takes; the first other guard as a near miss."""
    clamps: dict[float, None] = {}
    for radius in radii:
        rest = radius.guards.keys() - {"min_norm"}
        if rest:
            name = sorted(rest)[0]
            slots = ", ".join(FORMULAS[target].slots)
            return NearMiss(
                target,
                f"a norm is guarded by {name} = {radius.guards[name]:g}; the operator has {slots}",
                "other_guard",
            )
        clamps[radius.guards.get("min_norm", 0.0)] = None
    lows = sorted(clamps)
    # The maps are smooth in the square of the norm, with a derivative of 12 at most for the limits that artanh has: a
    # clamp at e changes them by 12 e^2, relatively.
    if 12 * lows[-1] ** 2 > algebra.eps / 16 and any(not algebra.close(low, lows[-1]) for low in lows):
        found = " and at ".join(f"{low:g}" for low in lows)
        return NearMiss(
            target, f"norms are clamped at {found}; the operator has one clamp for all", "other_guard"
        )
    return {"min_norm": lows[-1]} if lows[-1] else {}
