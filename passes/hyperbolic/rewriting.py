"""The pass `hyperbolic`: maps of the Poincaré ball, recognised by what they compute, become one operator each."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx

from ..graph.effects import Effects, effects
from ..graph.nodes import module_path, source_line
from ..site import Context, Site
from .cost import flops_after, flops_before
from .maps import Match
from .operands import NoOperand, Operands
from .probes import bound, probes
from .recognise import Found, recognise
from .region import escaping, obstacle

# Constants written in float32 agree to 1e-7 and no better; only a float64 graph can tell them apart.
TOLERANCE, TOLERANCE_DOUBLE = 1e-7, 1e-9


class Hyperbolic:
    """Replaces every spelling of `expmap0`, `logmap0` and `mobius_add` by `torch.ops.stone`'s operator.

    A site is recognised by row algebra: the value of a node is written as a sum of monomials in the row
    vectors, their norms and inner products, row scalars, and tanh or artanh of such. Guards against
    division by zero are part of the meaning and become attributes of the operator.
    """

    name = "hyperbolic"
    targets = ("expmap0", "logmap0", "mobius_add")

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Rewrite the graph in place and report every map and every look-alike."""
        facts = effects(module.graph)
        found = recognise(module.graph, facts.position, _tolerance(module.graph))
        reasons = {item.region.root: _refusal(item, facts, context) for item in found}
        accepted = _closed(found, reasons)
        sites = []
        for item in found:
            site = _site(item, reasons[item.region.root])
            if item in accepted:
                _rewrite(item, site, context)
            sites.append(site)
        _erase(node for item in accepted for node in (*item.region.rows[:-1], *item.region.constants))
        if accepted:
            module.graph.lint()
            module.recompile()
        return sites


def _tolerance(graph: fx.Graph) -> float:
    values = (node.meta.get("val") for node in graph.nodes)
    floats = {v.dtype for v in values if isinstance(v, torch.Tensor) and v.is_floating_point() and v.ndim}
    return TOLERANCE_DOUBLE if floats == {torch.float64} else TOLERANCE


def _refusal(item: Found, facts: Effects, context: Context) -> str | None:
    """Why a map or a look-alike is not rewritten, as far as it alone can tell."""
    if not isinstance(item.outcome, Match):
        return item.outcome.reason
    if (reason := obstacle(item.region, facts, context.grad)) is not None:
        return reason
    try:
        Operands(item.evaluator, item.region).check(item.outcome.curvature)
    except NoOperand as error:
        return str(error)
    return context.denied.get(f"{item.outcome.target}:{item.region.root.name}")


def _closed(found: list[Found], reasons: dict[fx.Node, str | None]) -> list[Found]:
    """The maps whose intermediates nothing needs but maps that are replaced too; sets the others' reasons."""
    accepted = [item for item in found if reasons[item.region.root] is None]
    while True:
        replaced = {node for item in accepted for node in item.region.rows}
        kept = []
        for item in accepted:
            if (reason := escaping(item.region, item.evaluator, replaced)) is None:
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
        target=item.outcome.target,
        status="rewritten" if reason is None else ("refused" if is_map else "near miss"),
        reason=reason or "",
        module_path=module_path(root),
        source=source_line(root),
        nodes=tuple(node.name for node in item.region.rows),
        guards=dict(item.outcome.guards) if isinstance(item.outcome, Match) else {},
        flops_before=flops_before(item.region),
        flops_after=flops_before(item.region),
        output=root.name,
    )


def _rewrite(item: Found, site: Site, context: Context) -> None:
    match, region = item.outcome, item.region
    assert isinstance(match, Match)
    make = Operands(item.evaluator, region)
    vectors = [make.vector(region.vectors[i], sign) for i, sign in zip(match.order, match.signs, strict=True)]
    curvature = make.curvature(match.curvature, context.grad)
    value = region.root.meta["val"]
    with value.fake_mode, torch.no_grad():
        result = value.new_empty(value.shape).requires_grad_(value.requires_grad)
    # The root itself is turned into the call, so that its name stays: another map may read it.
    region.root.target = getattr(torch.ops.stone, match.target).default
    region.root.args, region.root.kwargs = (*vectors, curvature), dict(match.guards)
    region.root.meta["val"] = result
    site.inputs = tuple(node.name for node in region.inputs)
    site.replacement = region.root.name
    site.flops_after = flops_after(region, match.target)
    site.probes = probes(item.evaluator.algebra, match, region)
    site.bound, site.error_norm = bound(match, value.dtype), "row"


def _erase(nodes: Iterable[fx.Node]) -> None:
    """Erase the nodes that nothing needs any more, users first."""
    for node in sorted(set(nodes), reverse=True):
        if not node.users:
            node.graph.erase_node(node)


HYPERBOLIC = Hyperbolic()
