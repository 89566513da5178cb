"""What each ATen operator does to forms: one small function an operator, one table."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from ..rows import functions
from ..rows.forms import ONE, ZERO, Form, constant
from .parts import PARTS
from .reductions import REDUCTIONS, dimensions, reduced
from .values import NotRowwise, Value, combine, row_of, tensor
from .views import VIEWS

if TYPE_CHECKING:
    from ..rows.algebra import Algebra
    from .evaluate import Evaluator

Handler = Callable[["Evaluator", fx.Node, dict[str, Any]], Value]

# Row scalars of which only the sign is known.
NONNEGATIVE = frozenset({"softplus", "exp", "exp2", "sigmoid", "special_expit", "relu", "cosh"})


def _unary(function: Callable[[Algebra, Form], Form], *, of_vectors: bool = False) -> Handler:
    def handle(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
        value = evaluator.value(given["self"])
        if not of_vectors:
            _only_scalars(evaluator, value)
        return Value(function(evaluator.algebra, value.form), value.axes)

    return handle


def _binary(function: Callable[[Algebra, Form, Form], Form]) -> Handler:
    def handle(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
        if given.get("rounding_mode") is not None:
            raise NotRowwise("a division that rounds")
        left, right = evaluator.value(given["self"]), evaluator.value(given["other"])
        if function is functions.quotient:
            _only_scalars(evaluator, right)
        return Value(function(evaluator.algebra, left.form, right.form), combine(left, right))

    return handle


def _only_scalars(evaluator: Evaluator, value: Value) -> None:
    if any(evaluator.algebra.degree(monomial) for monomial, _ in value.form):
        raise NotRowwise("a non-linear function of the entries of the rows")


def _add(algebra: Algebra, left: Form, right: Form) -> Form:
    return functions.log_sum(algebra, functions.gap_of_limited(algebra, algebra.add(left, right)))


def _plus(sign: float) -> Handler:
    def handle(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
        left, right = evaluator.value(given["self"]), evaluator.value(given["other"])
        alpha = sign * (evaluator.number(given["alpha"]) or 0.0)
        terms = [_flushed(node, left.form), evaluator.algebra.scale(_flushed(node, right.form), alpha)]
        return Value(_add(evaluator.algebra, *terms), combine(left, right))

    return handle


def _flushed(node: fx.Node, form: Form) -> Form:
    """A constant as the node's dtype holds it where that is zero: 1e-15 guards nothing in float16."""
    if form.number is None:
        return form
    return form if torch.tensor(form.number, dtype=tensor(node).dtype).item() else ZERO


def _held(node: fx.Node, limit: float) -> float:
    """A limit near 1 as the node's dtype holds it: 1 - 1e-7 is 1 - 2**-23 in float32, where artanh is 1 % less."""
    if limit == 1 or not 0.5 < limit < 2:
        return limit
    return float(torch.tensor(limit, dtype=torch.float64).to(tensor(node).dtype))


def _rsub(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    left, right = evaluator.value(given["other"]), evaluator.value(given["self"])
    alpha = evaluator.number(given["alpha"]) or 0.0
    result = _add(evaluator.algebra, left.form, evaluator.algebra.scale(right.form, -alpha))
    return Value(result, combine(left, right))


def _pow(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    base = evaluator.value(given["self"])
    exponent = evaluator.number(given["exponent"])
    fraction = Fraction(exponent or 0.0).limit_denominator(8)
    if float(fraction) != exponent:
        raise NotRowwise("an exponent that is no small fraction")
    if fraction.denominator != 1 or fraction < 0:
        _only_scalars(evaluator, base)
    return Value(evaluator.algebra.power(base.form, fraction), base.axes)


def _clamp(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    value = evaluator.value(given["self"])
    _only_scalars(evaluator, value)
    low = evaluator.number(given.get("min", given.get("min_val")))
    high = evaluator.number(given.get("max", given.get("max_val")))
    low = -functions.INFINITY if low is None else _held(node, _flushed(node, constant(low)).number or 0.0)
    high = functions.INFINITY if high is None else high
    return Value(functions.clamp(evaluator.algebra, value.form, low, _held(node, high)), value.axes)


def _extremum(bound: str) -> Handler:
    def handle(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
        if "other" not in given:
            raise NotRowwise(f"{node.target} reduces")
        left, right = evaluator.value(given["self"]), evaluator.value(given["other"])
        axes = combine(left, right)
        if left.form.number is not None:
            left, right = right, left
        if (number := _flushed(node, right.form).number) is None:
            raise NotRowwise("the larger or smaller of two values, neither of them a constant")
        _only_scalars(evaluator, left)
        number = _held(node, number) if bound == "high" else number
        return Value(functions.clamp(evaluator.algebra, left.form, **{bound: number}), axes)

    return handle


def _addcmul(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    algebra = evaluator.algebra
    start, left, right = (evaluator.value(given[name]) for name in ("self", "tensor1", "tensor2"))
    divide = "addcdiv" in str(node.target)
    product = (functions.quotient if divide else functions.product)(algebra, left.form, right.form)
    term = Value(algebra.scale(product, evaluator.number(given["value"]) or 0.0), combine(left, right))
    return Value(_add(algebra, start.form, term.form), combine(start, term))


def _filled(number: float | None) -> Handler:
    def handle(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
        fill = given.get("fill_value", given.get("s")) if number is None else number
        return Value(constant(evaluator.number(fill) or 0.0))

    return handle


def _compare(turned: bool) -> Handler:
    """`self > other`, or turned `self < other`; at equality what is chosen is the same."""

    def handle(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
        left, right = evaluator.value(given["self"]), evaluator.value(given["other"])
        _only_scalars(evaluator, left)
        _only_scalars(evaluator, right)
        pair = (right.form, left.form) if turned else (left.form, right.form)
        return Value(functions.above(evaluator.algebra, *pair), combine(left, right))

    return handle


def _is_zero(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    left, right = evaluator.value(given["self"]), evaluator.value(given["other"])
    if right.form.number != 0 or not len(left.form):
        raise NotRowwise("a comparison with something else than zero")
    return Value(functions.zero(evaluator.algebra, left.form), left.axes)


def _all_zero(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    """All entries of a row are zero."""
    value = evaluator.value(given["self"])
    index = evaluator.algebra.single(value.form)
    dim = given.get("dim")
    if index is None or evaluator.algebra.atoms[index].kind != "zero" or dim is None:
        raise NotRowwise(f"{node.target} of something else than entries that are zero")
    over_row, axes = reduced(
        given["self"], value.axes, dimensions(given["self"], dim), bool(given.get("keepdim"))
    )
    if not over_row:
        raise NotRowwise("zeros along another dimension than the row")
    return Value(value.form, axes)


def _where(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    condition, chosen, other = (evaluator.value(given[name]) for name in ("condition", "self", "other"))
    form = functions.select(evaluator.algebra, condition.form, chosen.form, other.form)
    if form is None or row_of(condition.axes) is not None:
        raise NotRowwise("a choice between values that is no formula of ours")
    return Value(form, combine(condition, chosen, other))


CONSTANTS = frozenset(
    f"{fill}{kind}" if kind != "new" else f"new_{fill}"
    for fill in ("full", "ones", "zeros")
    for kind in ("", "_like", "new")
)

HANDLERS: dict[str, Handler] = {
    "add": _plus(1.0),
    **dict.fromkeys(("sub", "subtract"), _plus(-1.0)),
    "rsub": _rsub,
    **dict.fromkeys(("mul", "multiply"), _binary(functions.product)),
    **dict.fromkeys(("div", "divide", "true_divide"), _binary(functions.quotient)),
    **dict.fromkeys(("neg", "negative"), _unary(lambda g, a: g.scale(a, -1.0), of_vectors=True)),
    "reciprocal": _unary(lambda g, a: g.power(a, -1)),
    "sqrt": _unary(lambda g, a: g.power(a, Fraction(1, 2))),
    "rsqrt": _unary(lambda g, a: g.power(a, Fraction(-1, 2))),
    "square": _unary(lambda g, a: g.power(a, 2), of_vectors=True),
    "pow": _pow,
    **dict.fromkeys(("abs", "absolute"), _unary(functions.absolute)),
    **dict.fromkeys(("sign", "sgn"), _unary(functions.sign)),
    "tanh": _unary(functions.tanh),
    **dict.fromkeys(("atanh", "arctanh"), _unary(functions.artanh)),
    **dict.fromkeys(("acosh", "arccosh"), _unary(functions.acosh)),
    **dict.fromkeys(("asinh", "arcsinh"), _unary(functions.asinh)),
    "sinh": _unary(functions.sinh),
    "cosh": _unary(functions.cosh),
    **dict.fromkeys(("sigmoid", "special_expit"), _unary(functions.sigmoid)),
    "log": _unary(functions.log),
    "log1p": _unary(lambda g, a: functions.log(g, g.add(ONE, a))),
    **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max", "hardtanh"), _clamp),
    **dict.fromkeys(("maximum", "max"), _extremum("low")),
    **dict.fromkeys(("minimum", "min"), _extremum("high")),
    **dict.fromkeys(("addcmul", "addcdiv"), _addcmul),
    **dict.fromkeys(("full", "full_like", "new_full", "scalar_tensor"), _filled(None)),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), _filled(1.0)),
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), _filled(0.0)),
    **dict.fromkeys(("gt", "greater", "ge", "greater_equal"), _compare(turned=False)),
    **dict.fromkeys(("lt", "less", "le", "less_equal"), _compare(turned=True)),
    "eq": _is_zero,
    **dict.fromkeys(("all", "prod"), _all_zero),
    "where": _where,
    **REDUCTIONS,
    **VIEWS,
    **PARTS,
}
