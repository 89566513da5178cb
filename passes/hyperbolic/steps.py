"""The maps and hyperplanes at a point of the ball: a Möbius sum, and what is a map or hyperplane at the origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import fx

from .pairs import Pair, curvatures, times
from .read.values import ROWS, Value
from .rows.algebra import Algebra
from .rows.forms import ONE, Form, join, power_of
from .rows.matching import Match

# What a map at the origin is called whose scale differs from row to row.
# The distance to hyperplanes through the origin, with guards that only that to others has.
STEPS = {"expmap0": "expmap_step", "logmap0": "logmap_step", "hnnpp_planes": "planes_step"}


def expmap(pair: Pair) -> Match | str:
    """`x + tanh(s g n / 2) / (s n) v`: inside tanh the norm is scaled by `s / (1 - c||x||^2)`, outside by `s`."""
    algebra, outer, step = pair.algebra, pair.outer, pair.inner
    gap = algebra.power(step.multiple, -1)
    if len(step.multiple) != 1:
        return "the step has a factor of another kind"
    # Term by term, since a sum that is multiplied out no longer cancels.
    ((monomial, number),) = step.multiple.terms
    inverse = tuple((index, -2 * exponent) for index, exponent in monomial)
    terms = ((join(of_c, inverse), size / number**2) for of_c, size in step.curvature)
    c = algebra.multiply(Form(tuple(sorted(terms))), ONE)
    step = Match(step.target, step.operands, c, step.guards)
    x, u = outer.operands
    if u.factor.number not in (1.0, -1.0):
        return "the step is scaled before it is added"
    guards = _gap(pair, gap, x.vector, outer.curvature, pair.of_outer)
    if isinstance(guards, str):
        return guards
    if reason := curvatures(replace(pair, inner=step)):
        return reason
    for name, value in step.guards.items():
        if name in ("min_norm", "tanh_limit"):
            guards[name] = value
        elif name != "nan_at_zero":
            return f"the norm of the step is guarded by {name}"
    v = times(step.operands[0], algebra, u.factor.number)
    return Match("expmap", (x, v), outer.curvature, {**outer.guards, **guards}, multiple=outer.multiple)


def logmap(pair: Pair) -> Match | str:
    """`(1 - c||x||^2) artanh(s ||w||) / (s ||w||) w`."""
    algebra, step, inner = pair.algebra, pair.outer, pair.inner
    if inner.multiple != ONE or step.operands[0].factor != ONE:
        return "the sum is scaled"
    (x, y) = inner.operands
    guards = _gap(pair, step.multiple, x.vector, inner.curvature, pair.of_inner)
    if isinstance(guards, str):
        return guards
    if reason := curvatures(pair):
        return reason
    for name, value in step.guards.items():
        # Below a clamp of the norm, points are nearer than it.
        if name == "min_norm" and 12 * value**2 > algebra.eps / 16:
            return f"the norm of the sum is clamped at {value:g}"
        if name == "atanh_limit":
            guards[name] = value
        elif name not in ("min_norm", "nan_at_zero"):
            return f"the norm of the sum is guarded by {name}"
    return Match("logmap", (times(x, algebra, -1.0), y), inner.curvature, {**inner.guards, **guards})


def planes(pair: Pair) -> Match | str:
    """The distance of `w = -p + x` to hyperplanes through the origin, that of `x` to those through `p`."""
    algebra, outer, inner = pair.algebra, pair.outer, pair.inner
    (p, x), (w, a) = inner.operands, outer.operands
    if inner.multiple != ONE or w.factor != ONE:
        return "the sum is scaled"
    if reason := curvatures(pair):
        return reason
    if any(map(len, outer.numbers)) or outer.guards.get("unit"):
        return "the hyperplanes of the sum are shifted, or their normals not divided by their lengths"
    of_p, of_x, of_a = (
        {label for label in values[algebra.atoms[o.vector].parts[0]].axes if label not in (None, *ROWS)}
        for values, o in ((pair.of_inner, p), (pair.of_inner, x), (pair.of_outer, a))
    )
    if len(of_a) != 1 or of_p != of_a or of_a & of_x:
        return "points and hyperplanes are no pairs"
    guards = {("min_gap" if name == "min_alpha" else name): value for name, value in outer.guards.items()}
    return Match(
        "poincare_planes", (x, times(p, algebra, -1.0), a), inner.curvature, {**inner.guards, **guards}
    )


def _gap(
    pair: Pair, form: Form, x: int, c: Form, values: Mapping[fx.Node, Value]
) -> dict[str, float | bool] | str:
    """The guard of a form that is `max(1 - c||x||^2, min_gap)` in the numbers that the graph has for it."""
    algebra = pair.algebra
    guards: dict[str, float | bool] = {}
    index = algebra.single(form)
    if index is not None and algebra.atoms[index].kind == "clamp":
        form, low, high = algebra.atoms[index].parts
        if high != float("inf") or low < 0:
            return "the conformal factor is guarded by another clamp than one from below"
        guards["min_gap"] = low
    square = algebra.atom("inner", x, x, nonnegative=True)
    found = _in_rows(algebra, form, values)
    expected = algebra.add(ONE, algebra.multiply(c, square), alpha=-1.0)
    if found is None or not algebra.equal(found, expected):
        came = algebra.describe(found or form)
        return f"the factor is 2 / ({came}), expected 2 / ({algebra.describe(expected)})"
    return guards


def _in_rows(algebra: Algebra, form: Form, values: Mapping[fx.Node, Value]) -> Form | None:
    """A form with the numbers of each row written by what they are of the rows."""
    total = Form(())
    for monomial, coefficient in form:
        product = Form((((), coefficient),))
        for index, exponent in monomial:
            atom = algebra.atoms[index]
            value = values.get(atom.parts[0]) if atom.kind == "scalar" else None
            if atom.kind != "scalar":
                return None
            factor = value.form if value is not None else power_of(index)
            product = algebra.multiply(product, algebra.power(factor, exponent))
        total = algebra.add(total, product)
    return total
