"""The pass `hyperbolic`: formulas of hyperbolic geometry, recognised by what they compute, become one operator each."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx

from ..graph.effects import Effects, effects
from ..graph.nodes import module_path, source_line
from ..refusal import Refusal
from ..site import Context, Site
from .build import Builder, NoOperand
from .find import Found, find, operand_nodes
from .formulas import FORMULAS, OWN
from .price import Price, flops_before, operator_flops, price, price_of_look_alike
from .probes import bound, inputs, probes
from .region import escaping, obstacle
from .rows.algebra import Algebra
from .rows.matching import Match
from .rules import RULES
from .simplify import simplify

LONGEST = 300
# Constants written in float32 agree to 1e-7 and no better. Where a graph computes in float64 they must agree to what a
# few products of Python's floats are rounded by.
TOLERANCE, TOLERANCE_DOUBLE = 1e-7, 32 * 2.0**-52


class Hyperbolic:
    """Replaces every spelling of a formula of the table by `torch.ops.stone`'s operator.

    A site is recognised by row algebra: the value of a node is written as a sum of monomials in the row
    vectors, their norms and inner products, row scalars, and tanh or artanh of such. Guards against
    division by zero are part of the meaning and become attributes of the operator.
    """

    name = "hyperbolic"
    targets = tuple(
        dict.fromkeys((*(n for n in FORMULAS if n not in OWN), *(r.target for r in RULES if r.target)))
    )

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Rewrite the graph in place and report every formula and every look-alike."""
        graph = module.graph
        facts = effects(graph)
        found, reasons, accepted = _decided(*find(graph, facts.position, _algebra(graph)), facts, context)
        sites = []
        for item in found:
            site = _priced(_site(item, reasons[item.region.root]), item, context)
            if item in accepted:
                _rewrite(item, site, context)
            sites.append(site)
        _erase(node for item in accepted for node in (*item.region.rows[:-1], *item.region.constants))
        if accepted:
            graph.lint()
            module.recompile()
        return sites


def _algebra(graph: fx.Graph) -> Algebra:
    values = (node.meta.get("val") for node in graph.nodes)
    floats = {v.dtype for v in values if isinstance(v, torch.Tensor) and v.is_floating_point() and v.ndim}
    if torch.float64 in floats:
        return Algebra(TOLERANCE_DOUBLE, torch.finfo(torch.float64).eps)
    return Algebra(TOLERANCE, torch.finfo(torch.float32).eps)


def _decided(
    formulas: list[Found], steps: list[Found], facts: Effects, context: Context
) -> tuple[list[Found], dict[fx.Node, str | None], list[Found]]:
    """What there is after the rules, why each of it stays as it is, and what is rewritten.

    A rule whose result is refused, whatever for, is none: its two parts are looked at as they were found.
    """
    refused: set[tuple[fx.Node, str]] = set()
    while True:
        found = simplify(formulas, steps, context.numerics == "fast", refused)
        reasons = {item.region.root: _refusal(item, facts, context) for item in found}
        accepted = _closed(found, reasons)
        undone = {
            (item.region.root, item.rule)
            for item in found
            if item.rule and reasons[item.region.root] is not None
        }
        if not undone:
            return found, reasons, accepted
        refused |= undone


def _refusal(item: Found, facts: Effects, context: Context) -> str | None:
    """Why a formula or a look-alike is not rewritten, as far as it alone can tell."""
    if not isinstance(item.outcome, Match):
        found = item.algebra.describe(item.values[item.region.root].form)
        return Refusal(
            item.outcome.code,
            difference=item.outcome.reason,
            found=found if len(found) <= LONGEST else f"{found[:LONGEST]}...",
            target=item.outcome.target,
            formula=FORMULAS[item.outcome.target].text,
        )
    if item.supposed and item.outcome.target == "lorentz_expmap":
        point, vector = operand_nodes(item.outcome, item.algebra)
        if point not in item.supposed:
            figures = {"vector": repr(vector.name), "point": repr(point.name)}
            return Refusal("not_tangent", target=item.outcome.target, **figures)
    if item.supposed:
        names = ", ".join(repr(node.name) for node in item.supposed)
        return Refusal("stored_time", target=item.outcome.target, points=names, count=len(item.supposed))
    if (reason := obstacle(item.region, item.values, facts, context.grad, _apart(item))) is not None:
        return reason
    try:
        Builder(item).check()
    except NoOperand as error:
        return Refusal("no_operand", problem=str(error))
    denied = context.denied.get(_site(item, None).key) if context.denied else None
    return denied or price(item, context.inner, context.grad, context.machine).refusal


def _apart(item: Found) -> list[fx.Node]:
    """The operands of which the norm alone counts."""
    assert isinstance(item.outcome, Match)
    if not FORMULAS[item.outcome.target].apart:
        return []
    first, *others = operand_nodes(item.outcome, item.algebra)
    return [node for node in others if node is not first]


def _closed(found: list[Found], reasons: dict[fx.Node, str | None]) -> list[Found]:
    """The formulas whose intermediates nothing needs but ones that are replaced too; sets the others' reasons."""
    accepted = [item for item in found if reasons[item.region.root] is None]
    while True:
        replaced = {node for item in accepted for node in item.region.rows}
        kept = []
        for item in accepted:
            planes = FORMULAS[item.outcome.target].gives == "planes"
            if (reason := escaping(item.region, item.values, replaced, item.algebra, planes)) is None:
                kept.append(item)
            reasons[item.region.root] = reason
        if len(kept) == len(accepted):
            return kept
        accepted = kept


def _site(item: Found, reason: str | None) -> Site:
    root = item.region.root
    is_map = isinstance(item.outcome, Match)
    return Site(
        pass_name=Hyperbolic.name,
        target=item.outcome.name,
        status="rewritten" if reason is None else ("refused" if is_map else "near miss"),
        reason=reason or "",
        module_path=module_path(root),
        source=source_line(root),
        nodes=tuple(node.name for node in item.region.rows),
        guards=dict(item.outcome.guards) if isinstance(item.outcome, Match) else {},
        flops_before=flops_before(item.region),
        flops_after=flops_before(item.region),
        output=root.name,
        rule=item.rule,
    )


def _priced(site: Site, item: Found, context: Context) -> Site:
    """A site with the seconds of the formula, and of the operator that it is or nearly is."""
    priced: Price | None
    if not isinstance(item.outcome, Match):
        priced = price_of_look_alike(item.region, item.outcome.target, context.inner)
    else:
        known = item.outcome.target in FORMULAS
        priced = price(item, context.inner, context.grad, context.machine) if known else None
    if priced is not None:
        site.seconds_before, site.seconds_after = priced.saving, priced.cost
    return site


def _rewrite(item: Found, site: Site, context: Context) -> None:
    match, region = item.outcome, item.region
    assert isinstance(match, Match)
    dtype, read = region.root.meta["val"].dtype, tuple(node.name for node in inputs(item))
    Builder(item).build(context.grad)
    site.inputs = read
    site.replacement = region.root.name
    vector, root = region.vectors[0].meta["val"], region.root.meta["val"]
    site.flops_after = operator_flops(match.target, vector, root)
    site.probes = probes(item)
    site.keeps_nan = match.target != "identity"
    site.bound = bound(match, dtype)
    site.error_norm = "row" if FORMULAS[match.target].gives == "row" else "tensor"


def _erase(nodes: Iterable[fx.Node]) -> None:
    """Erase the nodes that nothing needs any more, users first."""
    for node in sorted(set(nodes), reverse=True):
        if not node.users:
            node.graph.erase_node(node)


HYPERBOLIC = Hyperbolic()
