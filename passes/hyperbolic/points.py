"""Which rows are points of the hyperboloid: what the graph itself proves, and what a formula would need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import fx

from ..graph.arguments import named_arguments
from ..graph.shapes import same_size
from .formulas import FORMULAS
from .read.evaluate import operator_name
from .read.values import has_time
from .rows.algebra import Algebra
from .rows.forms import OF_ROWS, Form
from .rows.matching import Match

# What keeps, moves or repeats whole rows.
CARRIES = frozenset(
    {
        "clone",
        "contiguous",
        "alias",
        "unsqueeze",
        "squeeze",
        "expand",
        "view",
        "reshape",
        "_unsafe_view",
        "flatten",
    }
)
# The rows with a time that are no points.
TANGENTS = frozenset({"lorentz_logmap0", "lorentz_logmap", "tangent"})
CHOICES = frozenset({"slice", "narrow", "select", "index_select"})


def map_behind(node: fx.Node, maps: Mapping[fx.Node, Any]) -> Any | None:
    """The recognised map whose points a node holds, all or some of them; None where the graph does not say."""
    while node not in maps:
        name = operator_name(node)
        if name not in CARRIES | CHOICES:
            return None
        given = named_arguments(node)
        source = given["self"]
        before, after = source.meta["val"], node.meta["val"]
        if not after.ndim or not before.ndim or not same_size(before.shape[-1], after.shape[-1]):
            return None
        if name in CHOICES and given["dim"] % before.ndim == before.ndim - 1:
            return None
        node = source
    found = maps[node]
    whole = has_time(found.values[found.region.root].axes)
    target = found.outcome.target
    on_it = isinstance(found.outcome, Match) and FORMULAS[target].time_out and target not in TANGENTS
    on_it = on_it and not found.supposed
    return found if whole and on_it else None


def tangent_behind(
    node: fx.Node, point: fx.Node, maps: Mapping[fx.Node, Any], tangents: Mapping[fx.Node, Any]
) -> Any | None:
    """What makes a row tangent at a point: a projection, or the logarithm of another point, times a number or not."""
    while True:
        found = tangents.get(node) or maps.get(node)
        if found is not None and found.outcome.target in ("tangent", "lorentz_logmap") and not found.supposed:
            at = found.algebra.atoms[found.outcome.operands[0].vector].parts[0]
            return found if at is point else None
        given = named_arguments(node) if operator_name(node) in ("mul", "div", "neg") else {}
        if not given or isinstance(given.get("other"), fx.Node):
            return None
        node = given["self"]


def supposed(algebra: Algebra, forms: Iterable[Form]) -> Iterator[Form]:
    """What `1 / t^2 - ||x||^2` would be for the stored times `t`, by the factors that stand beside them."""
    found: list[Form] = []
    for form in forms:
        for index in sorted(algebra.indices(form)):
            atom = algebra.atoms[index]
            if atom.kind not in ("acosh", "sum"):
                continue
            for c in _beside(algebra, atom.parts[0], atom.kind == "acosh"):
                known = not algebra.kinds(c) & OF_ROWS
                if known and not any(algebra.equal(c, other) for other in found):
                    found.append(c)
                    yield c


def _beside(algebra: Algebra, form: Form, alone: bool) -> Iterator[Form]:
    """`c` of `c t u`, and of `sqrt(c) t`, which stands alone or beside 1."""
    clamped = algebra.single(form)
    if clamped is not None and algebra.atoms[clamped].kind == "clamp":
        form = algebra.atoms[clamped].parts[0]
    for monomial, coefficient in form:
        times = [(i, e) for i, e in monomial if algebra.atoms[i].kind == "time"]
        rest = Form(((tuple(f for f in monomial if f not in times), abs(coefficient)),))
        if sum(e for _, e in times) == 2:
            yield rest
        if [e for _, e in times] != [1]:
            continue
        if alone and len(form) == 1:
            yield algebra.power(rest, 2)
        others = [(m, k) for m, k in form if m != monomial]
        if not alone and len(others) == 1:
            yield algebra.power(algebra.multiply(rest, algebra.power(Form((others[0],)), -1)), 2)
