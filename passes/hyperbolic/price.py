"""Whether a formula is worth an operator: what it costs as it is, and what as one call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from ..cost.flops import node_flops
from ..cost.machine import Machine
from ..graph.shapes import entries, hint
from ..refusal import Refusal
from .find import Found
from .formulas import FLOOR, FORMULAS, OWN
from .price_fused import fused_price
from .read.evaluate import operator_name
from .read.values import row_of
from .read.views import VIEWS
from .region import Region
from .rows.forms import ONE
from .rows.matching import Match, Operand


def flops_before(region: Region) -> int:
    """Operations of the nodes of a formula."""
    return sum(map(node_flops, region.rows))


def operator_flops(target: str, vector: torch.Tensor, root: torch.Tensor) -> int:
    """What the operator of a formula computes.

    Args:
        target: of the formula, and the name of its operator.
        vector: one of its row vectors.
        root: its result.
    """
    formula, width = FORMULAS[target], hint(vector.shape[-1], 1)
    rows = entries(root) // max(hint(root.shape[-1], 1), 1) if formula.gives == "row" else entries(root)
    return formula.per_entry * rows * width + formula.per_row * rows


@dataclass(frozen=True)
class Price:
    """Seconds that an operator costs, with what brings operands and result into place, and that it saves.

    Args:
        cost: of the operator; under a compiler that fuses, of the cut through its code.
        saving: of the formula; under a compiler that fuses, as far as the operator is faster than its code.
        rows: how many rows, or pairs, there are at the example's sizes.
    """

    cost: float
    saving: float
    rows: int

    @property
    def refusal(self) -> Refusal | None:
        """Why the formula stays as it is, None where the operator is no slower."""
        if self.cost <= self.saving:
            return None
        return Refusal("operator_no_faster", cost=self.cost * 1e6, saving=self.saving * 1e6, rows=self.rows)


# One thread of an AVX-512 CPU, torch 2.13, rows of 64. Eager: seconds of a call, of an entry that a call reads or
# writes, and of what an operator computes for a row. Inductor: seconds that a call of an operator takes in its code,
# and that the operator saves a row (of pairs: a pair) over the code that inductor fuses; forward, then with backward.
EAGER_CALL, EAGER_ENTRY, EAGER_ROW = 2e-6, 2.5e-10, 1.5e-8
OPERATOR_CALL = (1.7e-5, 4.5e-5)
SAVED = {
    "expmap0": (6e-9, 1.8e-8),
    "logmap0": (6.2e-8, 2.05e-7),
    "mobius_add": (-1.2e-8, 3.4e-8),
    "mobius_matvec": (-1.1e-8, 8.5e-8),
    "mobius_scalar_mul": (-1.2e-8, 1e-8),
    "project": (-2e-9, -4e-8),
    "poincare_dist": (5e-9, 1.1e-7),
    "poincare_dist0": (-6e-9, -3.5e-8),
    "poincare_cdist": (2e-8, 1e-7),
    "klein_cdist": (2e-8, 1e-7),
    # Of pairs in 128 dimensions 2.5e-7 and 1e-6; of matrix products that are there already, what their end takes.
    "poincare_planes": (1e-7, 4e-7),
    "hnnpp_planes": (2e-9, 4e-9),
}


def price(found: Found, inner: str, grad: bool, machine: Machine | None = None) -> Price:
    """What a formula costs as it is, and as an operator.

    Args:
        found: the formula, whose outcome is a match.
        inner: what will run the graph: "eager", "aot_eager" or "inductor".
        grad: whether gradients are wanted.
        machine: the facts of a CUDA device; None for the defaults.
    """
    match, region = found.outcome, found.region
    assert isinstance(match, Match)
    gives, root = FORMULAS[match.target].gives, region.root.meta["val"]
    rows = entries(root) / (
        hint(root.shape[row_of(found.values[region.root].axes) or 0], 1) if gives == "row" else 1
    )
    extra = [o for o in match.operands if o.factor != ONE]
    moved = sum(2 * entries(_value(found, o)) for o in extra) + (
        2 * entries(root) if match.multiple != ONE else 0
    )
    if inner == "inductor" and match.target in OWN:  # torch's own operations, which it fuses
        return Price(0.0, 0.0, int(rows))
    if FLOOR in match.guards:
        moved += 2 * entries(root)
    if inner != "inductor":
        steps = len(extra) + (match.multiple != ONE) + (FLOOR in match.guards)
        steps += 7 if match.target == "lorentz_logmap" and match.guards else 0
        return _eager_price(region, rows, steps, moved)
    if root.device.type == "cuda":
        flops = operator_flops(match.target, region.vectors[0].meta["val"], root)
        cost, saving = fused_price(region, match.target, moved, flops, machine, grad)
        return Price(cost, saving, int(rows))
    # A formula over pairs that is one in rows would write a row for each pair, where fused code writes none.
    broadcast = gives == "row" and any(entries(v.meta["val"]) < entries(root) / 2 for v in region.vectors[:2])
    saved = SAVED.get(match.target, (0.0, 0.0))[grad]
    if root.device.type != "cpu" and gives == "number":
        saved = 0.0
    if gives == "row" and (_only_measured(region.root) or (broadcast and len(region.vectors) > 1)):
        saved = min(saved, 0.0)
    if match.target == "poincare_dist" and _by_arcosh(found):
        saved = 0.0
    call = OPERATOR_CALL[grad] + EAGER_ENTRY * moved
    return Price(call + max(-rows * saved, 0.0), max(rows * saved, 0.0), int(rows))


def price_of_look_alike(region: Region, target: str, inner: str) -> Price | None:
    """What a look-alike costs as it is, and what the operator that it is nearly would cost; None where it is not known.

    Args:
        region: the look-alike.
        target: the formula that it is nearly.
        inner: what will run the graph.
    """
    if target not in FORMULAS or inner == "inductor" or not region.vectors:
        return None
    value = region.root.meta["val"]
    width = hint(value.shape[-1], 1) if FORMULAS[target].gives == "row" and value.dim() else 1
    return _eager_price(region, entries(value) / max(width, 1), 0, 0)


def _eager_price(region: Region, rows: float, steps: int, moved: int) -> Price:
    """Both costs where each call runs by itself.

    Args:
        region: the nodes that compute the formula.
        rows: that the operator computes.
        steps: calls that bring operands and result into place.
        moved: entries that these read and write.
    """
    after = EAGER_CALL * (1.5 + steps) + EAGER_ENTRY * (moved + _traffic(region)) + EAGER_ROW * rows
    before = sum(EAGER_CALL + EAGER_ENTRY * _entries(node) for node in region.rows if _runs(node))
    return Price(after, before, int(rows))


def _by_arcosh(found: Found) -> bool:
    """Whether a distance is computed by arcosh or arsinh of gaps, which takes less than a Möbius sum and its norm."""
    assert isinstance(found.outcome, Match)
    names = {operator_name(node) for node in found.region.rows}
    return "min_gap" in found.outcome.guards or not names.isdisjoint(("acosh", "arccosh", "asinh", "arcsinh"))


def _value(found: Found, operand: Operand) -> torch.Tensor:
    return found.algebra.atoms[operand.vector].parts[0].meta["val"]


def _runs(node: fx.Node) -> bool:
    """Whether a node computes something in eager mode, and is not a view."""
    name = operator_name(node)
    return isinstance(node.meta.get("val"), torch.Tensor) and (name not in VIEWS or name in COPIES)


def _entries(node: fx.Node) -> int:
    read = [a.meta["val"] for a in node.all_input_nodes if isinstance(a.meta.get("val"), torch.Tensor)]
    return sum(map(entries, [node.meta["val"], *read]))


def _traffic(region: Region) -> int:
    """The entries that an operator reads and writes."""
    return sum(entries(node.meta["val"]) for node in (*region.vectors, region.root))


def _only_measured(root: fx.Node) -> bool:
    """Whether a row is read by norms and inner products alone, and never written by fused code."""
    users = [u for user in root.users for u in (user.users if operator_name(user) in SQUARES else (user,))]
    return bool(users) and all(operator_name(user) in REDUCED for user in users)


COPIES = frozenset({"clone", "contiguous", "to", "_to_copy", "type_as"})
SQUARES = frozenset({"mul", "square", "pow"})
REDUCED = frozenset({"linalg_vector_norm", "norm", "linalg_norm", "sum", "linalg_vecdot"})
