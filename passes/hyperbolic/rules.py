"""The other table: identities on recognised operators, each with what must be proved and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from .pairs import Pair, curvatures, plain, same_curvature, times
from .rows.forms import ONE, constant
from .rows.functions import quotient
from .rows.matching import Match, Operand
from .steps import expmap, logmap


@dataclass(frozen=True)
class Rule:
    """One identity: an operator of what another one gives.

    Args:
        name: the identity.
        outer, inner: the operators.
        apply: the one operator that both make, or why they do not, in words.
        needs: the condition that is proved, and the example that shows why it is needed.
        target: what reports call the site; the operator where it is empty.
        position: which operand of the outer operator the inner one gives.
    """

    name: str
    outer: str
    inner: str
    apply: Callable[[Pair], Match | str]
    needs: str
    target: str = ""
    position: int = 0


def _dist_of_sum(pair: Pair) -> Match | str:
    """`2 / s artanh(s ||x + y||)`."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    if reason := curvatures(pair):
        return reason
    if inner.multiple != ONE or not plain(outer):
        return "the sum is scaled before its norm is taken"
    low = outer.guards.get("min_norm", 0.0)
    # A norm below the clamp belongs to points nearer than it: the distance differs by twice the clamp at most, which is
    # less than the rounding of a sum whose terms are near 1.
    if low > max(0.01 * algebra.eps, 2e-15):
        return f"the norm of the sum is clamped at {low:g}, which the distance has no guard for"
    x, y = inner.operands
    signed = (times(x, algebra, -1.0), y)
    if all(operand.factor.number == -1 for operand in signed):
        signed = (x, times(y, algebra, -1.0))
    guards = dict(inner.guards)
    if "atanh_limit" in outer.guards:
        guards["atanh_limit"] = outer.guards["atanh_limit"]
    return Match("poincare_dist", signed, inner.curvature, guards, multiple=outer.multiple)


def _scaled_twice(pair: Pair) -> Match | str:
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


def _projected_map(pair: Pair) -> Match | str:
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


def _projected(pair: Pair) -> Match | str:
    """The same operator with a bound of its result."""
    reach = _reach(pair)
    if isinstance(reach, str):
        return reach
    return replace(pair.inner, guards={**pair.inner.guards, "max_radius": reach})


def _projected_twice(pair: Pair) -> Match | str:
    """The projection to the smaller of two balls."""
    reach = _reach(pair)
    if isinstance(reach, str):
        return reach
    if reach < 1 - float(pair.inner.guards.get("eps", 0.0)):
        return replace(pair.outer, operands=pair.inner.operands)
    return pair.inner


def _log_of_exp(pair: Pair) -> Match | str:
    """`min(1, R / (s n)) x`: the row, but for the length `R / s` that a limit between the two leaves of longer ones."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    if reason := curvatures(pair):
        return reason
    if inner.multiple != ONE or not plain(outer):
        return "the inner map is scaled"
    lows = [v for guards in (outer.guards, inner.guards) for k, v in guards.items() if "min" in k or "offset" in k]
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


def _added_and_taken(pair: Pair) -> Match | str:
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


def _on_it_already(pair: Pair) -> Match | str:
    """A point of the hyperboloid has the time that the projection gives it."""
    return curvatures(pair) or pair.inner


def _dist0_of_exp(pair: Pair) -> Match | str:
    """`2 min(n, R / s)`."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    if reason := curvatures(pair):
        return reason
    lows = [v for guards in (outer.guards, inner.guards) for k, v in guards.items() if "min" in k or "offset" in k]
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


def _there_and_back(pair: Pair) -> Match | str:
    """A point of one ball, taken to the other and back."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    if reason := curvatures(pair):
        return reason
    if inner.multiple != ONE or outer.operands[0].factor != ONE or outer.multiple != ONE:
        return "the inner map is scaled"
    if not pair.fast:
        return "a point beyond the ball comes back as another, and a NaN would not reach the whole row"
    return Match("identity", inner.operands, inner.curvature)


MERGED = "project_merge"
RULES = (
    Rule(
        "dist0(x + y) = dist(-x, y)",
        "poincare_dist0",
        "mobius_add",
        _dist_of_sum,
        "equal curvatures; a clamp of the norm below rounding: clamped at 1e-5, all nearer points are 2e-5 apart",
    ),
    Rule(
        "r (q x) = (r q) x",
        "mobius_scalar_mul",
        "mobius_scalar_mul",
        _scaled_twice,
        "no limit of artanh or tanh that can act between: 0.1 (100 x) saturates at the boundary and does not come back",
    ),
    Rule(
        "x + tanh(s g n / 2) / (s n) v = expmap(x, v), g = 2 / (1 - c||x||^2)",
        "mobius_add",
        "expmap_step",
        expmap,
        "g is that of the row that is added to: with the factor of another point it is no geodesic",
        position=1,
    ),
    Rule(
        "2 / (s g) artanh(s ||w||) w / ||w|| = logmap(x, y), w = -x + y",
        "logmap_step",
        "mobius_add",
        logmap,
        "g is that of the row that is taken away: with the factor of y the length is another",
    ),
    *(
        Rule(
            f"project({name}) = {name} with a limit of tanh",
            "project",
            name,
            _projected_map,
            "the norms of the map are guarded alike, else its result may be shorter than tanh",
            MERGED,
        )
        for name in ("expmap0", "mobius_matvec", "mobius_scalar_mul")
    ),
    *(
        Rule(
            f"project({name}) = {name} with a largest radius",
            "project",
            name,
            _projected,
            "the result is taken as it is: twice it is shortened elsewhere",
            MERGED,
        )
        for name in ("mobius_add", "expmap")
    ),
    Rule(
        "project(project(x)) = project(x)",
        "project",
        "project",
        _projected_twice,
        "the ratio of the curvatures is a number: of two balls that vary either may be the smaller",
        MERGED,
    ),
    Rule(
        "project of a point of the hyperboloid is the point",
        "lorentz_project",
        "lorentz_expmap0",
        _on_it_already,
        "equal curvatures: a point of c = 1 gets another time at c = 2",
        MERGED,
    ),
    Rule(
        "logmap0(expmap0(v)) = min(1, R / (s n)) v",
        "logmap0",
        "expmap0",
        _log_of_exp,
        "equal curvatures, norms that are clamped below rounding; without a limit between, the length of v: of a row of "
        "length 100 tanh is 1, and artanh of that infinite",
        "log_exp_cancel",
    ),
    Rule(
        "dist0(expmap0(v)) = 2 min(n, R / s)",
        "poincare_dist0",
        "expmap0",
        _dist0_of_exp,
        "as for logmap0: of a row of length 100 the distance is infinite",
        "log_exp_cancel",
    ),
    Rule(
        "-x + (x + y) = y",
        "mobius_add",
        "mobius_add",
        _added_and_taken,
        "no offset of a denominator, which keeps y from coming back; with numerics fast alone, since a NaN of x is lost and, of "
        "opposite points at the boundary, the denominator is 0",
        "mobius_cancel",
        1,
    ),
    *(
        Rule(
            f"{outer}({inner}(x)) = x",
            outer,
            inner,
            _there_and_back,
            "with numerics fast alone: of a point at twice the radius that at half of it comes back",
            "model_conversion",
        )
        for outer, inner in (
            ("klein_to_poincare", "poincare_to_klein"),
            ("poincare_to_klein", "klein_to_poincare"),
        )
    ),
)
