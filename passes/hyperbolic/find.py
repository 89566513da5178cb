"""Finds the formulas in a graph: every root that matches, and every look-alike with its first difference."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import fx

from ..graph.arguments import aliases, is_operator
from ..graph.nodes import val
from ..graph.shapes import is_row_major
from .formulas import FLOOR, FORMULAS
from .match import match
from .points import map_behind, supposed, tangent_behind
from .read.candidates import Vectors, candidates
from .read.evaluate import Evaluator, operator_name
from .read.values import ROWS, Axes, Label, Value, has_time, number_axes, row_of
from .region import Region, region_of
from .rows.algebra import Algebra
from .rows.forms import ONE, Form, TooLarge
from .rows.matching import Match, NearMiss
from .steps import STEPS

PAIRED = {"poincare_dist": "poincare_cdist", "klein_dist": "klein_cdist", "lorentz_dist": "lorentz_cdist"}


@dataclass(frozen=True)
class Found:
    """A formula or a look-alike in the graph.

    Args:
        outcome: what it is.
        region: its nodes.
        values: what the nodes of the region are to the row algebra.
        algebra: the table of atoms, one for the whole graph.
        proofs: of operands that are points of the hyperboloid, the maps that make them.
        supposed: the operands whose time is stored, and supposed to be that of a point.
        rule: the name of the rule that made it of two; empty where it was found as it is.
    """

    outcome: Match | NearMiss
    region: Region
    values: Mapping[fx.Node, Value]
    algebra: Algebra
    proofs: Mapping[fx.Node, Found] = field(default_factory=dict)
    supposed: tuple[fx.Node, ...] = ()
    rule: str = ""


def find(graph: fx.Graph, order: Mapping[fx.Node, int], algebra: Algebra) -> tuple[list[Found], list[Found]]:
    """Every formula and look-alike of a graph, in order, and every step of a longer one; no two have the same root.

    Args:
        graph: a functional ATen graph with fake values.
        order: the position of each node.
        algebra: the table of atoms.
    """
    maps: dict[fx.Node, Found] = {}
    misses: dict[fx.Node, Found] = {}
    steps_to: dict[fx.Node, Found] = {}
    tangents: dict[fx.Node, Found] = {}
    for alternatives in candidates(graph):
        for nearest in alternatives:
            vectors = _named(nearest, maps)
            every = _found(algebra, vectors, order, maps, tangents)
            steps_to |= {item.region.root: item for item in every if item.outcome.target in STEPS.values()}
            found = _settled([item for item in every if item.outcome.target not in STEPS.values()])
            maps |= {item.region.root: item for item in found if isinstance(item.outcome, Match)}
            near = [item for item in found if isinstance(item.outcome, NearMiss)]
            misses = {item.region.root: item for item in near} | misses
            if len(near) < len(found):
                break
    steps = {node for item in maps.values() for node in item.region.rows[:-1]}
    maps = {root: item for root, item in maps.items() if root not in steps}
    covered = {node for item in maps.values() for node in item.region.rows}
    lone = [
        item
        for root, item in misses.items()
        if root not in covered and not _leads_on(root, maps | steps_to, misses) and not _beside(item, maps)
    ]
    # A multiple of a distance inside of a look-alike is a step of it.
    steps = {node for item in lone for node in item.region.rows}
    kept = [item for root, item in maps.items() if root not in steps or _stands_alone(item)]
    in_order = sorted([*kept, *lone], key=lambda item: order[item.region.root])
    return in_order, [item for root, item in steps_to.items() if root not in maps]


def _named(nearest: Vectors, maps: Mapping[fx.Node, Found]) -> Vectors:
    """Row vectors with the dimensions that they were found to have, those of the others named alike."""
    known = {node: _axes(node, axes, maps) for node, axes in nearest.items()}
    names: dict[Label, Label] = {}
    for node, axes in nearest.items():
        names |= {a: b for a, b in zip(axes, known[node], strict=True) if a != b and a is not None}
    return {
        node: tuple(names.get(label, label) for label in axes) if axes == nearest[node] else axes
        for node, axes in known.items()
    }


def _axes(node: fx.Node, axes: Axes, maps: Mapping[fx.Node, Found]) -> Axes:
    """Of a row that a formula gives, the dimensions are those that it was found to have."""
    held = maps[node].values[node].axes if node in maps else axes
    alike = [label if label in ROWS else None for label in held] == [
        label if label in ROWS else None for label in axes
    ]
    # What the rows have by their shape alone says nothing of the views of them that make pairs.
    natural = all(label in (None, len(held) - dim) for dim, label in enumerate(held) if label not in ROWS)
    return held if alike and not natural else axes


def _found(
    algebra: Algebra,
    vectors: Vectors,
    order: Mapping[fx.Node, int],
    maps: Mapping[fx.Node, Found],
    tangents: dict[fx.Node, Found],
) -> list[Found]:
    """What there is in some rows; where they store a time, also what there is if it is that of a point.

    Rows that are tangent at a point are no formulas, and are kept in `tangents`.
    """
    stored = [node for node, axes in vectors.items() if has_time(axes)]
    proofs = {node: proof for node in stored if (proof := map_behind(node, maps)) is not None}
    known = {node: proof.outcome.curvature for node, proof in proofs.items()}
    # A conformal factor is a part of the maps at its point.
    ends = [root for root, item in maps.items() if item.outcome.target != "conformal_factor"]
    evaluator = Evaluator(algebra, vectors, order, ends, known)
    found = []
    for each in _search(evaluator, vectors):
        item = replace(each, proofs=proofs)
        if item.outcome.target == "tangent":
            tangents.setdefault(item.region.root, item)
        else:
            found.append(_grounded(item, maps, tangents))
    open_ones = tuple(node for node in stored if node not in proofs)
    if not open_ones:
        return found
    roots = {item.region.root for item in found if isinstance(item.outcome, Match)}
    for c in supposed(algebra, [value.form for value in evaluator.values.values()]):
        evaluator = Evaluator(algebra, vectors, order, ends, {**dict.fromkeys(open_ones, c), **known})
        for item in _search(evaluator, vectors):
            known_one = item.outcome.target == "tangent" or item.region.root in roots
            if isinstance(item.outcome, Match) and not known_one:
                found = [other for other in found if other.region.root is not item.region.root]
                found.append(replace(item, proofs=proofs, supposed=open_ones))
                roots.add(item.region.root)
    return found


def _grounded(item: Found, maps: Mapping[fx.Node, Found], tangents: Mapping[fx.Node, Found]) -> Found:
    """A map at a point with what makes its row a tangent there; else that is supposed."""
    if not isinstance(item.outcome, Match) or item.outcome.target != "lorentz_expmap":
        return item
    x, v = operand_nodes(item.outcome, item.algebra)
    proof, tangent = item.proofs.get(x), tangent_behind(v, x, maps, tangents)
    found = [each.outcome if each is not None else None for each in (proof, tangent)]
    equal = [
        isinstance(each, Match) and item.algebra.equal(each.curvature, item.outcome.curvature)
        for each in found
    ]
    if not all(equal) or tangent is None:
        open_ones = tuple(node for node, known in zip((x, v), equal, strict=True) if not known)
        return replace(item, supposed=open_ones)
    return replace(item, proofs={**item.proofs, v: tangent})


def _beside(item: Found, maps: Mapping[fx.Node, Found]) -> bool:
    """Whether a look-alike of one row holds a formula of that row and of others."""
    inner = (maps[node].region.vectors for node in item.region.rows if node in maps)
    return any(not set(vectors) <= set(item.region.vectors) for vectors in inner)


def _leads_on(root: fx.Node, maps: Mapping[fx.Node, Found], misses: Mapping[fx.Node, Found]) -> bool:
    """Whether a look-alike is only a step on the way to a formula or to another look-alike."""
    return any(user in maps or user in misses for user in root.users)


def _search(evaluator: Evaluator, vectors: Vectors) -> Iterator[Found]:
    indices = [evaluator.vectors[node] for node in vectors]
    rows = [evaluator.values[node].form for node in vectors]
    curvatures = [evaluator.curvatures.get(node) for node in vectors]
    matched: set[fx.Node] = set()
    for node, value in evaluator.cone():
        if node.all_input_nodes and node.all_input_nodes[0] in matched and _turns(node):
            continue
        try:
            outcome = match(evaluator.algebra, value.form, indices, has_time(value.axes), rows, curvatures)
            if (
                isinstance(outcome, Match)
                and (outcome := _placed(outcome, value, vectors, evaluator)) is None
            ):
                continue
        except (TooLarge, ArithmeticError):
            continue
        if outcome is None:
            continue
        values = ChainMap({node: value}, evaluator.values)
        if isinstance(outcome, Match):
            matched.add(node)
        yield Found(outcome, region_of(evaluator, node), values, evaluator.algebra)
        # A number may be a step on the way to a row: 2 artanh(n) is a distance, and in logmap0.
        if isinstance(outcome, Match) and is_exact(outcome) and _is_row(value, outcome) and not _chosen(node):
            evaluator.cut(node)


def _turns(node: fx.Node) -> bool:
    """Whether a node shows a row-major operand otherwise, as a transpose does: that operand is the formula's result."""
    shown = is_operator(node) and aliases(node.target)
    return shown and is_row_major(val(node.all_input_nodes[0])) and not is_row_major(val(node))


def _is_row(value: Value, outcome: Match) -> bool:
    """Whether a row is the whole one that the operator gives, and not its space components alone."""
    if outcome.target in (*STEPS.values(), "tangent"):
        return False
    return row_of(value.axes) is not None and FORMULAS[outcome.target].time_out == has_time(value.axes)


def _stands_alone(item: Found) -> bool:
    """Whether a formula inside of a look-alike is one of its own: exact, and no part of a row with its time."""
    outcome, value = item.outcome, item.values[item.region.root]
    if not isinstance(outcome, Match) or not is_exact(outcome):
        return False
    return FORMULAS[outcome.target].time_out <= has_time(value.axes)


def _chosen(node: fx.Node) -> bool:
    """Whether a choice follows, as that of zero where the row is zero: it is part of the formula."""
    users = list(node.users)
    return len(users) == 1 and operator_name(users[0]) == "where"


def is_exact(outcome: Match) -> bool:
    """Whether the form is the operator's own and no multiple of it."""
    return outcome.multiple == ONE and all(abs(o.factor.number or 0.0) == 1 for o in outcome.operands)


def _settled(found: list[Found]) -> list[Found]:
    """Of formulas one inside of the other a row rather than a number, else an exact one, else the first."""
    matches = [item for item in found if isinstance(item.outcome, Match)]
    matches.sort(key=_rank)
    kept: list[Found] = []
    for item in matches:
        root, rows = item.region.root, item.region.rows
        if not any(root in other.region.rows or other.region.root in rows for other in kept):
            kept.append(item)
    chosen = {item.region.root for item in kept}
    return [item for item in found if isinstance(item.outcome, NearMiss) or item.region.root in chosen]


def _rank(item: Found) -> tuple[bool, bool, int]:
    """A row first, then what is exact; of these the last, with the choice at zero, and of multiples the first."""
    assert isinstance(item.outcome, Match)
    exact, size = is_exact(item.outcome), len(item.region.rows)
    axes = item.values[item.region.root].axes
    return row_of(axes) is None, not exact, -size if exact else size


def _placed(outcome: Match, value: Value, vectors: Vectors, evaluator: Evaluator) -> Match | NearMiss | None:
    """The match where the result has the axes that the operator gives: over pairs it becomes that of pairs."""
    formula = FORMULAS[outcome.target]
    gives = formula.gives
    if (gives == "row") != (row_of(value.axes) is not None) or has_time(value.axes) > formula.time_out:
        return None
    stored = any(len(evaluator.algebra.atoms[operand.vector].parts) > 1 for operand in outcome.operands)
    if stored and not formula.time_in:  # its space components are rows of their own
        return None
    if outcome.target in STEPS and outcome.guards.keys() - set(formula.slots):
        return replace(outcome, target=STEPS[outcome.target])
    if not _is_constant(outcome.multiple, evaluator.algebra):
        if outcome.target in STEPS:
            return replace(outcome, target=STEPS[outcome.target])
        return None
    if gives == "row" or len(outcome.operands) < 2:
        return outcome
    return paired(outcome, evaluator.values, evaluator.algebra)


def _is_constant(multiple: Form, algebra: Algebra) -> bool:
    """Whether a factor is the same for all rows: one of each row would make every scaled norm a map of its own."""
    held = [
        algebra.atoms[index].parts[0]
        for index in algebra.indices(multiple)
        if algebra.atoms[index].kind == "scalar"
    ]
    return all(
        axes is not None and not any(axes) for axes in (number_axes(node.meta["val"]) for node in held)
    )


def paired(outcome: Match, values: Mapping[fx.Node, Value], algebra: Algebra) -> Match | NearMiss:
    """A distance whose points have a dimension each of their own is one of all pairs."""
    if len(outcome.operands) < 2:
        return outcome
    axes = [values[node].axes for node in operand_nodes(outcome, algebra)]
    labels = [{label for label in each if label is not None and label not in ROWS} for each in axes]
    if labels[0] - labels[1] and labels[1] - labels[0] and outcome.target in PAIRED:
        target = PAIRED[outcome.target]
        guards = dict(outcome.guards)
        if "min_argument" in guards:
            guards[FLOOR] = math.acosh(guards.pop("min_argument"))
        if "min_gap" in guards:  # over pairs it has another name
            guards["min_alpha"] = guards.pop("min_gap")
        for name, value in guards.items():
            if name not in FORMULAS[target].slots:
                return NearMiss(
                    target,
                    f"it is guarded by {name} = {value:g}; over pairs the operator has no such guard",
                    "other_guard",
                )
        return replace(outcome, target=target, guards=guards)
    return outcome


def operand_nodes(outcome: Match, algebra: Algebra) -> list[fx.Node]:
    """The nodes behind the operands."""
    return [algebra.atoms[operand.vector].parts[0] for operand in outcome.operands]
