"""Forms as text: the formula that a reason quotes."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .algebra import Algebra
    from .forms import Form


def formula(algebra: Algebra, form: Form) -> str:
    """A form as a formula such as `2 c <x, y>`; norms are written `||x||`."""
    if not form.terms:
        return "0"
    text = ""
    for position, (monomial, coefficient) in enumerate(form):
        factors = [_factor(algebra, index, exponent) for index, exponent in monomial]
        size = abs(coefficient)
        if size != 1 or not factors:
            factors.insert(0, f"{size:.9g}")
        sign = "-" if coefficient < 0 else ("+" if position else "")
        text += (f" {sign} " if position else sign) + " ".join(factors)
    return text


def _factor(algebra: Algebra, index: int, exponent: Fraction) -> str:
    atom = algebra.atoms[index]
    if atom.kind == "inner" and atom.parts[0] == atom.parts[1]:
        name, exponent = f"||{_name(algebra, atom.parts[0])}||", 2 * exponent
    else:
        name = _name(algebra, index)
    if exponent == 1:
        return name
    if exponent == Fraction(1, 2):
        return f"sqrt({name.strip('()')})" if atom.kind in ("sum", "scalar") else f"{name}^0.5"
    return f"{name}^{float(exponent):g}"


def _name_of(node: object) -> str:
    return str(getattr(node, "name", node))


def _name(algebra: Algebra, index: int) -> str:
    atom = algebra.atoms[index]
    first = atom.parts[0]
    match atom.kind:
        case "vector" | "scalar":
            return _name_of(first)
        case "inner":
            return f"<{_name(algebra, first)}, {_name(algebra, atom.parts[1])}>"
        case "sum":
            return f"({formula(algebra, first)})"
        case "abs":
            return f"|{formula(algebra, first)}|"
        case "clamp":
            low, high = atom.parts[1:]
            bounds = [f"min={low:g}"] * (low > float("-inf")) + [f"max={high!r}"] * (high < float("inf"))
            return f"clamp({formula(algebra, first)}, {', '.join(bounds)})"
        case "time":
            return f"time of {_name_of(first)}"
        case "mask" | "foreign":
            return str(first)
        case _:
            return f"{atom.kind}({formula(algebra, first)})"
