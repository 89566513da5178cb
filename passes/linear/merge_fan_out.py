"""The pass `linear_fan_out`: several linear maps of one value become one wider map and a split."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from ..cost.flops import node_flops
from ..graph.arguments import aliases, is_operator
from ..graph.effects import Effects, effects
from ..graph.emit import Emitter
from ..graph.nodes import val
from ..graph.shapes import is_row_major
from ..graph.weights import leaves, merged_name, weight_only_nodes
from ..refusal import Refusal
from ..site import Context, Site, refused_site
from .algebra.bound import merge_bound
from .algebra.values import Value
from .plan.price import Costs
from .read.obstacles import kept_or_changed, trained

aten = torch.ops.aten
# A split makes results that are not dense, which whatever reads them may take a little longer over.
_GAIN = 0.05


class LinearFanOut:
    """Merges the linear maps that read one value, such as query, key and value, where that is cheaper.

    One product of a wider matrix keeps the cores busier than several narrow ones, and costs one call.
    """

    name = "linear_fan_out"
    targets = ("linear_fan_out",)

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Rewrite every group of maps in place and return the sites, rewritten and refused."""
        facts = effects(module.graph)
        fixed = weight_only_nodes(module.graph)
        groups: dict[tuple[fx.Node, bool], list[fx.Node]] = {}
        for node in module.graph.nodes:
            if _is_plain_linear(node, fixed) and node not in facts.autocast:
                groups.setdefault((node.args[0], node in facts.no_grad), []).append(node)
        sites = [_visit(maps, fixed, facts, context) for maps in groups.values() if len(maps) > 1]
        module.graph.lint()
        module.recompile()
        return sites


LINEAR_FAN_OUT = LinearFanOut()


def _is_plain_linear(node: fx.Node, fixed: set[fx.Node]) -> bool:
    if node.target is not aten.linear.default or len(node.args) < 2 or node.kwargs:
        return False
    operand: Any = node.args[0]
    weights: list[Any] = [each for each in node.args[1:] if each is not None]
    if not all(isinstance(each, fx.Node) and each in fixed for each in weights) or operand in fixed:
        return False
    same = all(val(each).dtype == val(operand).dtype == val(node).dtype for each in weights)
    return same and val(weights[0]).dim() == 2


def _visit(maps: Sequence[fx.Node], fixed: set[fx.Node], facts: Effects, context: Context) -> Site:
    operand = maps[0].args[0]
    assert isinstance(operand, fx.Node)
    value = Value(operand, val(operand).dim() - 1)
    costs = Costs.of(value.tensor, context)
    inputs, outputs = value.width, [int(val(node).shape[-1]) for node in maps]
    sizes = (None, 1, 16, 1024) if value.varies else (None,)
    looks = costs.looks(weight for node in maps for weight in node.all_input_nodes[1:])
    gains = []
    for size in sizes:
        at = replace(costs, symbols=size)
        rows = value.rows(size)
        before = sum(at.linear(rows, inputs, width) for width in outputs)
        after = at.linear(rows, inputs, sum(outputs)) + len(outputs) * at.view() + looks
        gains.append((before, after))
    before, after = gains[0]
    site = replace(_site(maps, value, outputs), seconds_before=before, seconds_after=after)
    told: dict[str, Any] = {
        "what": f"{inputs} -> {' + '.join(map(str, outputs))}",
        "after": 1e6 * after,
        "before": 1e6 * before,
        "rows": value.rows(),
    }
    reason = context.denied.get(site.key) or _obstacle(maps, operand, facts, context)
    if not reason and after > before * (1 - _GAIN):
        reason = Refusal("fan_out_no_faster", **told)
    if not reason and any(wide > narrow for narrow, wide in gains[1:]):
        reason = Refusal("fan_out_slower_at", **told)
    if not reason and not all(_accepts_parts(node, sum(outputs)) for node in maps):
        reason = Refusal("viewed")
    if reason:
        return replace(site, reason=reason)
    _bring_forward([weight for node in maps for weight in node.all_input_nodes[1:]], maps[0], fixed)
    _merge(maps, operand, outputs)
    return replace(
        site,
        status="rewritten",
        reason=f"{len(maps)} maps of {operand.name!r} became one, {told['what']}; predicted {told['after']:.3g} us "
        f"against {told['before']:.3g} us as they stand at {told['rows']} rows",
        replacement=site.output,
        also=tuple(node.name for node in maps[1:]),
        bound=merge_bound([inputs], val(operand).dtype),
    )


def _obstacle(maps: Sequence[fx.Node], operand: fx.Node, facts: Effects, context: Context) -> str:
    weights = [weight for node in maps for weight in node.all_input_nodes[1:]]
    problem = trained(weights) if context.grad else ""
    if problem:
        return problem
    for node in maps:
        if facts.writer(node) is not None:
            return Refusal("value_changed", role="result", value=node.name, at="")
        if not is_row_major(val(node)):
            return Refusal("not_row_major", value=node.name)
        if any(user.op == "output" for user in node.users):
            return Refusal("returned_part", value=node.name)
    problem = kept_or_changed(weights, facts, context)
    if problem:
        return problem
    if facts.written_between(operand, maps[0], maps[-1]) is not None:
        return Refusal("read_value_changed", value=operand.name, readers="they", when="in between")
    return ""


def _accepts_parts(node: fx.Node, width: int) -> bool:
    """Whether every view of a result can also be taken of a part of a result of `width` features."""
    shape = val(node).shape
    wide = val(node).new_empty((*shape[:-1], width))
    part = wide[..., : shape[-1]]
    return _viewable(node, part)


def _viewable(node: fx.Node, value: torch.Tensor) -> bool:
    """Take the views of a node of another fake value with as many entries; False where one is impossible."""
    environment = value.fake_mode.shape_env  # type: ignore[attr-defined]
    known = len(environment.guards) if environment is not None else 0
    try:
        for user in node.users:
            if not is_operator(user) or not aliases(user.target):
                continue
            args, kwargs = fx.node.map_arg(
                (user.args, user.kwargs),
                lambda argument: value if argument is node else argument.meta["val"],
            )
            with value.fake_mode:  # type: ignore[attr-defined]
                result = user.target(*args, **kwargs)  # type: ignore[operator]
            if not isinstance(result, torch.Tensor) or not _viewable(user, result):
                return False
    except (RuntimeError, ValueError):
        return False
    finally:
        if environment is not None:
            del environment.guards[known:]
    return True


def _bring_forward(weights: Sequence[fx.Node], anchor: fx.Node, fixed: set[fx.Node]) -> None:
    """Let everything that the weights are computed from stand before the first map."""
    needed: set[fx.Node] = set()
    stack = list(weights)
    while stack:
        node = stack.pop()
        if node not in needed and node in fixed and anchor < node:
            needed.add(node)
            stack += node.all_input_nodes
    for node in sorted(needed):
        anchor.prepend(node)


def _merge(maps: Sequence[fx.Node], operand: fx.Node, outputs: Sequence[int]) -> None:
    emit = Emitter(maps[0])
    weights = [node.args[1] for node in maps]
    biases = [node.args[2] if len(node.args) > 2 else None for node in maps]
    owners = [weight for node in maps for weight in node.all_input_nodes[1:]]
    weight = emit.fold(emit(aten.cat.default, weights, 0), merged_name(owners, "weight"))
    bias: fx.Node | None = None
    if any(each is not None for each in biases):
        like = val(weight)
        parts = [
            emit(aten.zeros.default, [width], dtype=like.dtype, device=like.device) if each is None else each
            for each, width in zip(biases, outputs, strict=True)
        ]
        bias = emit.fold(emit(aten.cat.default, parts, 0), merged_name(owners, "bias"))
    value = val(operand).new_empty((*val(operand).shape[:-1], sum(outputs)))
    wide = emit.insert(aten.linear.default, (operand, weight, bias), {}, value)
    parts_of = list(value.split(list(outputs), -1))
    split = emit.insert(aten.split_with_sizes.default, (wide, list(outputs), -1), {}, parts_of)
    for place, node in enumerate(maps):
        node.target, node.args, node.kwargs = operator.getitem, (split, place), {}
        node.meta["val"] = parts_of[place]


def _site(maps: Sequence[fx.Node], value: Value, outputs: Sequence[int]) -> Site:
    weights = [weight for node in maps for weight in node.all_input_nodes[1:]]
    return refused_site(
        LinearFanOut.name,
        "linear_fan_out",
        maps,
        weights,
        line=maps[0],
        output=maps[0],
        inputs=[value.node, *leaves(weights)],
        flops=sum(map(node_flops, maps)),
    )
