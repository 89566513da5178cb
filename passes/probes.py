"""Values that a site is tried on: random ones, such that nothing in it is divided by zero.

At a zero what a rewrite does in another order comes out as another value that is not finite, or as NaN, which says
nothing about the rest. Real divisors are no zeros by chance; integers, such as what a mask counts, often are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from .graph.arguments import named_arguments, packet
from .graph.evaluation import Evaluation, example
from .graph.nodes import val

aten = torch.ops.aten
_QUOTIENTS = (aten.div, aten.floor_divide, aten.remainder, aten.fmod)
_INVERSES = (aten.reciprocal, aten.rsqrt)
# How often an integer is 0 where it was drawn such that something is divided by zero, one try after another: masks
# should have zeros as long as that can be.
_ZEROS = (0.5, 0.5, 0.5, 0.5, 0.125, 0.125, 0.125, 0.125, 0.0)


def draw(
    nodes: Sequence[fx.Node],
    graph: Evaluation,
    output: str,
    known: Mapping[str, Any],
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Random values of nodes.

    Args:
        nodes: what values are drawn for.
        graph: the graph.
        output: the node that is to be computed from them.
        known: the values of other nodes, by name.
        generator: the source of randomness.
    """
    values = {node.name: _value(node, generator).to(val(node).device) for node in nodes}
    if any(not value.is_floating_point() for value in values.values()):
        values = _in_range(graph, output, values, known)
    divisors, sources = _divisors(graph, output, {*values, *known})
    if not divisors or not _has_zero(graph, divisors, {**known, **values}):
        return values
    for share in _ZEROS:
        tried = dict(values)
        for name in sources.intersection(values):
            if not _is_special(graph.nodes[name]):
                tried[name] = _with_zeros(values[name], share, generator).to(values[name].device)
        if not _has_zero(graph, divisors, {**known, **tried}):
            return tried
    return values


def _in_range(
    graph: Evaluation, output: str, values: dict[str, torch.Tensor], known: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The values, with zeros for integers where others are indices out of range."""
    try:
        graph.compute([output], {**known, **values})
    except (RuntimeError, IndexError, ValueError):
        return {
            name: value
            if value.is_floating_point() or _is_special(graph.nodes[name])
            else torch.zeros_like(value)
            for name, value in values.items()
        }
    return values


def _divisors(graph: Evaluation, output: str, given: set[str]) -> tuple[list[str], set[str]]:
    """What is divided by on the way to a node from given ones, and which of these that is computed from."""
    divisors = {
        divisor.name: None
        for node in _above(graph.nodes[output], given)
        if node.name not in given and (divisor := _divisor(node)) is not None
    }
    sources = {
        node.name for name in divisors for node in _above(graph.nodes[name], given) if node.name in given
    }
    return list(divisors), sources


def _above(node: fx.Node, given: set[str]) -> set[fx.Node]:
    """What a node is computed from, itself included, as far as given nodes."""
    found, stack = {node}, [node]
    while stack:
        current = stack.pop()
        below = (
            [] if current.name in given else [each for each in current.all_input_nodes if each not in found]
        )
        found.update(below)
        stack += below
    return found


def _divisor(node: fx.Node) -> fx.Node | None:
    """What a node divides by, if that is a tensor."""
    found: Any = None
    if packet(node) in _QUOTIENTS:
        found = named_arguments(node)["other"]
    elif packet(node) in _INVERSES:
        found = node.args[0]
    elif packet(node) is aten.pow:
        exponent = named_arguments(node)["exponent"]
        found = node.args[0] if isinstance(exponent, int | float) and exponent < 0 else None
    tensor = isinstance(found, fx.Node) and isinstance(found.meta.get("val"), torch.Tensor)
    return found if tensor else None


def _has_zero(graph: Evaluation, names: Sequence[str], values: Mapping[str, Any]) -> bool:
    """Whether some nodes have zeros, or no value."""
    try:
        return any(bool((value == 0).any()) for value in graph.compute(names, values))
    except (RuntimeError, IndexError, ValueError):  # such as indices out of range
        return True


def _with_zeros(value: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Other values: integers of which a share is 0, or real numbers that are positive where none is to be 0."""
    if value.is_floating_point():
        drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64, device="cpu")
        return (drawn if share else drawn.abs()).to(value.dtype)
    kept = torch.rand(value.shape, generator=generator, device="cpu") >= share
    return (torch.randint(1, 4, value.shape, generator=generator, device="cpu") * kept).to(value.dtype)


def _is_special(node: fx.Node) -> bool:
    """Whether a node cuts something into segments, by lengths or places that must add up to its size."""
    return any(
        named_arguments(user).get(name) is node
        for user in node.users
        if packet(user) is aten.segment_reduce
        for name in ("lengths", "offsets")
    )


def _value(node: fx.Node, generator: torch.Generator) -> torch.Tensor:
    """A random value; where it cuts something into segments, lengths or places that add up to its size."""
    for user in node.users:
        given = named_arguments(user) if packet(user) is aten.segment_reduce else {}
        lengths, offsets = given.get("lengths") is node, given.get("offsets") is node
        if lengths or offsets:
            size, count = example(val(given["data"]).shape[0]), example(val(node).shape[0]) - offsets
            of_segment = torch.randint(0, max(count, 1), (size,), generator=generator, device="cpu")
            found = torch.bincount(of_segment, minlength=count)
            found = torch.cat([found.new_zeros(1), found.cumsum(0)]) if offsets else found
            return found.to(val(node).dtype)
    return _random_like(val(node), generator)


def _random_like(fake: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A normal (or, for integers, 0-or-1) tensor of a fake tensor's shape at its examples, on the CPU."""
    shape = [example(size) for size in fake.shape]
    if fake.is_floating_point():
        return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(fake.dtype)
    return torch.randint(0, 2, shape, generator=generator, device="cpu").to(fake.dtype)
