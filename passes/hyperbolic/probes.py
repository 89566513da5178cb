"""Inputs on which a rewritten formula is compared with the original, and the error it may have there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import fx

from ..graph.evaluation import example
from ..graph.nodes import is_weight
from ..site import Probe
from .find import Found, operand_nodes
from .formulas import FORMULAS
from .read.values import has_time, row_of
from .rows.algebra import Algebra
from .rows.forms import Form
from .rows.matching import Match

# Norms of the rows in units of 1 / sqrt(c), taken in turn. The points of the ball stop short of its boundary:
# artanh amplifies the rounding of its argument by 1 / (2 (1 - u)), so 1 - 1e-3 costs 500 eps.
NORMS = {
    "tangent": (1.0, 1e-3, 0.0, 0.1, 4.0, 30.0),
    "short": (1.0, 1e-3, 0.0, 0.1, 4.0),
    "point": (0.5, 1e-3, 0.0, 0.1, 0.9, 0.999),
    "second": (0.3, 0.1, 0.6, 0.0, 0.8, 0.5),
    "any": (0.7, 2.0, 0.0, 0.2, 1.1, 0.01),
    "normal": (0.7, 0.3, 0.5, 0.2),
}
# Of all pairs the norms of either side keep apart. Near points arcosh loses digits in float64 too, which is what the
# original is evaluated in: eps / (d D) at a distance d where the largest is D.
PAIRS = {
    "point": (0.4, 0.8, 0.0, 0.999),
    "second": (0.2, 0.6, 0.0),
    "near": (0.4, 0.8, 0.0),
    "far": (0.2, 0.6, 2.0),
}
HALF_POINT = (0.5, 1e-2, 0.0, 0.1, 0.9, 0.75)
Maker = Callable[[torch.Generator], torch.Tensor]
UNKNOWN = 0.1
SAMPLED = 0.4


def bound(match: Match, dtype: torch.dtype) -> float:
    """Relative error, row by row, that the operator may have on the probes against the formula in float64.

    In float32 and float64: 64 eps for a norm, a tanh and a quotient, 1024 eps for what holds artanh at
    `u <= 1 - 1e-3`. Half types compute in float32 and round once: 4 eps.
    """
    eps = torch.finfo(dtype).eps
    return (4.0 if dtype.itemsize == 2 else FORMULAS[match.target].bound) * eps


def inputs(found: Found) -> dict[fx.Node, Maker]:
    """What a formula is probed on, each with what draws it: of points that a map makes, what that map reads."""
    match, region = found.outcome, found.region
    assert isinstance(match, Match)
    makers: dict[fx.Node, Maker] = {}
    curvature = match.curvature.number
    if curvature is not None:
        reach = abs(curvature) ** -0.5
    else:
        reach = UNKNOWN if any(map(is_weight, region.scalars)) else SAMPLED
    nodes = operand_nodes(match, found.algebra)  # one node may be two of the operands
    kinds = dict(zip(nodes, FORMULAS[match.target].operands, strict=True))
    factors = {node: abs(o.factor.number or 1.0) for node, o in zip(nodes, match.operands, strict=True)}
    for node in region.vectors:
        if node in found.proofs:
            makers |= inputs(found.proofs[node])
            continue
        axes = found.values[node].axes
        norms = _norms(match, kinds.get(node, "point"), node.meta["val"].dtype)
        makers[node] = _rows(node, row_of(axes) or 0, norms, reach / factors.get(node, 1.0), has_time(axes))
    for node in region.scalars:
        makers.setdefault(node, _scalar(node, _sign(found.algebra, match.curvature, node)))
    for node in region.others:
        makers.setdefault(node, _filler(node))
    return makers


def probes(found: Found) -> Probe:
    """A function that draws the inputs of a formula that are not weights, in their order."""
    # What was folded before has a value of its own, as a weight has.
    free = [
        make for node, make in inputs(found).items() if not (is_weight(node) or "fold_input" in node.meta)
    ]

    def draw(generator: torch.Generator) -> Sequence[torch.Tensor]:
        return [make(generator) for make in free]

    return draw


def _norms(match: Match, kind: str, dtype: torch.dtype) -> tuple[float, ...]:
    norms = (PAIRS if FORMULAS[match.target].gives == "pairs" else NORMS)[kind]
    norms = HALF_POINT if kind == "point" and dtype.itemsize == 2 else norms
    # An unguarded spelling gives 0 / 0 at zero, and so may the operator; there is nothing to measure.
    quotient = match.target in ("mobius_matvec", "mobius_scalar_mul") and "min_norm" not in match.guards
    # Where M x is zero, libraries choose zero, whatever x is; a product of an x that is NaN never is.
    if match.target == "mobius_matvec":
        return tuple(norm or 1e-3 for norm in norms)
    quotient = quotient or (match.target in ("lorentz_expmap0", "lorentz_logmap0"))
    unsure = match.guards.get("nan_at_zero") or match.guards.get("separate") or quotient
    return tuple(norm for norm in norms if norm or not unsure)


def _shape(node: fx.Node) -> list[int]:
    return [example(size) for size in node.meta["val"].shape]


def _rows(node: fx.Node, row: int, norms: Sequence[float], reach: float, timed: bool) -> Maker:
    """Rows whose space components have given norms, under any time."""

    def make(generator: torch.Generator) -> torch.Tensor:
        shape = _shape(node)
        lengths = shape[:row] + shape[row + 1 :]
        rows = torch.randn([*lengths, shape[row] - timed], generator=generator, dtype=torch.float64)
        rows = rows / rows.norm(dim=-1, keepdim=True)
        count = rows[..., 0].numel()
        turn = torch.tensor(norms, dtype=torch.float64).repeat(count // len(norms) + 1)[:count]
        rows = rows * (reach * turn).reshape(*rows.shape[:-1], 1)
        if timed:
            time = torch.rand([*rows.shape[:-1], 1], generator=generator, dtype=torch.float64)
            rows = torch.cat([time, rows], -1)
        return rows.movedim(-1, row).contiguous().to(node.meta["val"].dtype)

    return make


def _scalar(node: fx.Node, sign: float) -> Maker:
    def make(generator: torch.Generator) -> torch.Tensor:
        uniform = torch.rand(_shape(node), generator=generator, dtype=torch.float64)
        return (sign * (0.5 + uniform)).to(node.meta["val"].dtype)

    return make


def _filler(node: fx.Node) -> Maker:
    def make(generator: torch.Generator) -> torch.Tensor:
        return torch.zeros(_shape(node), dtype=node.meta["val"].dtype)

    return make


def _sign(algebra: Algebra, curvature: Form, node: fx.Node) -> float:
    """The sign that makes the curvature positive."""
    if len(curvature) != 1 or curvature.terms[0][1] > 0:
        return 1.0
    odd = [algebra.atoms[i].parts[0] for i, e in curvature.terms[0][0] if e % 2 == 1]
    return -1.0 if odd[:1] == [node] else 1.0
