"""What one operator of another one's result is, or why it is nothing shorter: the functions of the rules."""

from __future__ import annotations

import math
from dataclasses import replace

from .formulas import FLOOR
from .pairs import Pair, curvatures, plain, times
from .rows.forms import ONE, constant
from .rows.functions import quotient
from .rows.matching import Match, Operand


def dist_of_sum(pair: Pair) -> Match | str:
    """`2 / s artanh(s ||x + y||)`."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    if reason := curvatures(pair):
        return reason
    if inner.multiple != ONE or not plain(outer):
        return "the sum is scaled before its norm is taken"
    low = outer.guards.get("min_norm", 0.0)
    # A norm below the clamp belongs to points nearer than it: the distance differs by twice the clamp at most, which is
    # less than the rounding of a sum whose terms are near 1.
    floor: dict[str, float | bool] = {}
    if low > max(0.01 * algebra.eps, 2e-15):
        c = inner.curvature.number
        if c is None or c**0.5 * low >= float(outer.guards.get("atanh_limit", 1.0)):
            return f"the norm of the sum is clamped at {low:g}, and how near that is depends on the curvature"
        floor = {FLOOR: 2 * math.atanh(c**0.5 * low)}
    x, y = inner.operands
    signed = (times(x, algebra, -1.0), y)
    if all(operand.factor.number == -1 for operand in signed):
        signed = (x, times(y, algebra, -1.0))
    guards = {**inner.guards, **floor}
    if "atanh_limit" in outer.guards:
        guards["atanh_limit"] = outer.guards["atanh_limit"]
    return Match("poincare_dist", signed, inner.curvature, guards, multiple=outer.multiple)


def scaled_twice(pair: Pair) -> Match | str:
    """`r (q x)`."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    if reason := curvatures(pair):
        return reason
    if inner.multiple != ONE or not plain(outer):
        return "the inner map is scaled"
    if (reason := _limits_between(pair)) and not pair.fast:
        return reason
    low = float(outer.guards.get("min_norm", 0.0))
    if 12 * low * low > algebra.eps / 16:
        return f"the norm between the two is clamped at {low:g}"
    operand = times(inner.operands[0], algebra, outer.operands[0].factor.number or 1.0)
    number = algebra.multiply(outer.numbers[0], inner.numbers[0])
    guards = {k: v for k, v in inner.guards.items() if k in ("min_norm", "atanh_limit")}
    if "tanh_limit" in outer.guards:
        guards["tanh_limit"] = outer.guards["tanh_limit"]
    return Match(outer.target, (operand,), inner.curvature, guards, (number,), outer.multiple)


def _limits_between(pair: Pair) -> str | None:
    """Which limit between two scalar products may act, None where none can."""
    outer, inner = pair.outer.guards, pair.inner.guards
    low, limit = inner.get("atanh_limit"), outer.get("atanh_limit")
    if limit is None and "tanh_limit" not in inner:
        return None
    number = pair.inner.numbers[0].number
    reach = math.inf if low is None or number is None else abs(number) * math.atanh(low)
    if reach > inner.get("tanh_limit", math.inf):
        return "tanh_limit may act between the two"
    if limit is not None and reach > math.atanh(limit) * (1 + pair.algebra.eps):
        return "atanh_limit may act between the two"
    return None


def _reach(pair: Pair) -> float | str:
    """The largest `sqrt(c) ||x||` that a projection leaves, `c` that of the map before."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    if inner.multiple != ONE or outer.multiple != ONE or outer.operands[0].factor != ONE:
        return "the inner map is scaled"
    width = 1.0 - float(outer.guards.get("eps", 0.0))
    ratio = quotient(algebra, inner.curvature, outer.curvature).number
    if ratio is not None and ratio > 0:
        return width * math.sqrt(ratio)
    return curvatures(pair) or width


def projected_map(pair: Pair) -> Match | str:
    """`min(tanh(s n), 1 - eps) / (s n) x`."""
    reach = _reach(pair)
    if isinstance(reach, str):
        return reach
    if pair.inner.guards.get("separate"):
        return "the norms of the inner map are guarded apart"
    limit = float(pair.inner.guards.get("tanh_limit", math.inf))
    limit = min(limit, math.atanh(reach)) if reach < 1 else limit
    guards = {**pair.inner.guards, **({"tanh_limit": limit} if limit < math.inf else {})}
    return replace(pair.inner, guards=guards)


def projected(pair: Pair) -> Match | str:
    """The same operator with a bound of its result."""
    reach = _reach(pair)
    if isinstance(reach, str):
        return reach
    return replace(pair.inner, guards={**pair.inner.guards, "max_radius": reach})


def projected_twice(pair: Pair) -> Match | str:
    """The projection to the smaller of two balls."""
    reach = _reach(pair)
    if isinstance(reach, str):
        return reach
    if reach < 1 - float(pair.inner.guards.get("eps", 0.0)):
        return replace(pair.outer, operands=pair.inner.operands)
    return pair.inner


def log_of_exp(pair: Pair) -> Match | str:
    """`min(1, R / (s n)) x`: the row, but for the length `R / s` that a limit between the two leaves of longer ones."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    if reason := curvatures(pair):
        return reason
    if inner.multiple != ONE or not plain(outer):
        return "the inner map is scaled"
    lows = [
        v for guards in (outer.guards, inner.guards) for k, v in guards.items() if "min" in k or "offset" in k
    ]
    if any(12 * low**2 > algebra.eps / 16 for low in lows) or outer.guards.get("separate"):
        return f"a norm is guarded by {max(lows):g}"
    if inner.guards.get("separate"):
        return "the norms of the inner map are guarded apart"
    limit = float(inner.guards.get("tanh_limit", math.inf))
    if "atanh_limit" in outer.guards:
        limit = min(limit, math.atanh(outer.guards["atanh_limit"]))
    operand = times(inner.operands[0], algebra, outer.operands[0].factor.number or 1.0)
    factor, reach = operand.factor.number, pair.radius(operand.vector, inner.curvature)
    if factor is None:
        return "the row is scaled by what is not a number"
    if limit == math.inf and pair.fast:
        return Match("identity", (operand,), inner.curvature, multiple=outer.multiple)
    if limit == math.inf and reach is not None:
        limit = 2 * abs(factor) * reach  # it never acts, but a NaN reaches the whole row, as before
    if limit == math.inf:
        return "no limit stands between the two, and rounding keeps what is far from coming back"
    return Match("radial_cap", (operand,), inner.curvature, {"largest": limit}, multiple=outer.multiple)


def added_and_taken(pair: Pair) -> Match | str:
    """`-x + (x + y)`."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    if reason := curvatures(pair):
        return reason
    (x, w), (u, y) = outer.operands, inner.operands
    if x.vector != u.vector or not algebra.equal(x.factor, algebra.scale(u.factor, -1.0)) or w.factor != ONE:
        return "another row is taken away than was added"
    if inner.multiple != ONE:
        return "the inner map is scaled"
    guards = [inner.guards, outer.guards]
    if any("denominator_offset" in each for each in guards):
        return "the denominator is offset, so that the row does not come back"
    if bounds := [each["max_radius"] for each in guards if "max_radius" in each]:
        return f"the sum is shortened to the radius {bounds[0]:g}"
    if not pair.fast:
        return "a NaN of the row that is added and taken away would be lost, and a least denominator may act"
    return Match("identity", (y,), inner.curvature, multiple=outer.multiple)


def on_it_already(pair: Pair) -> Match | str:
    """A point of the hyperboloid has the time that the projection gives it."""
    return curvatures(pair) or pair.inner


def dist0_of_exp(pair: Pair) -> Match | str:
    """`2 min(n, R / s)`."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    if reason := curvatures(pair):
        return reason
    lows = [
        v for guards in (outer.guards, inner.guards) for k, v in guards.items() if "min" in k or "offset" in k
    ]
    if inner.multiple != ONE or not plain(outer) or inner.guards.get("separate"):
        return "the inner map is scaled, or its norms are guarded apart"
    if any(12 * low**2 > algebra.eps / 16 for low in lows):
        return f"a norm is guarded by {max(lows):g}"
    factor = inner.operands[0].factor.number
    limit = float(inner.guards.get("tanh_limit", math.inf))
    limit = min(limit, math.atanh(outer.guards["atanh_limit"])) if "atanh_limit" in outer.guards else limit
    if factor is None:
        return "the row is scaled by what is not a number"
    if limit == math.inf:
        if not pair.fast:
            return "no limit stands between the two, and rounding keeps what is far from coming back"
        guards: dict[str, float | bool] = {}
    elif inner.curvature.number is None:
        return "the length where the limit acts depends on the curvature"
    else:
        guards = {"max_norm": limit * inner.curvature.number**-0.5 / abs(factor)}
    operand = Operand(inner.operands[0].vector)
    multiple = algebra.multiply(outer.multiple, constant(2 * abs(factor)))
    return Match("norm", (operand,), inner.curvature, guards, multiple=multiple)


def there_and_back(pair: Pair) -> Match | str:
    """A point of one ball, taken to the other and back."""
    outer, inner = pair.outer, pair.inner
    if reason := curvatures(pair):
        return reason
    if inner.multiple != ONE or outer.operands[0].factor != ONE or outer.multiple != ONE:
        return "the inner map is scaled"
    if not pair.fast:
        return "a point beyond the ball comes back as another, and a NaN would not reach the whole row"
    return Match("identity", inner.operands, inner.curvature)
