"""The site of a part of the graph that stays as it is, until a pass rewrites it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from torch import fx

from ..rewrite import Site, module_path, source_line, val
from .weights import leaves, owner

# As many layers are named one by one.
_NAMED = 5


def refused_site(
    pass_name: str,
    target: str,
    nodes: Sequence[fx.Node],
    weights: Sequence[fx.Node],
    *,
    line: fx.Node,
    output: fx.Node,
    inputs: Sequence[fx.Node] = (),
    flops: int = 0,
    reason: str = "",
) -> Site:
    """The refused site of some nodes and the weights that they read.

    Args:
        pass_name, target: of the site.
        nodes: the nodes.
        weights: weights, or expressions over weights.
        line: the node whose line of the user's code is named.
        output, inputs: what verification compares, and what it gives the nodes.
        flops: floating-point operations of one call.
        reason: why they are left alone.
    """
    parameters = sum(val(leaf).numel() for leaf in leaves(weights))
    return Site(
        pass_name=pass_name,
        target=target,
        status="refused",
        reason=reason,
        module_path=common_path(nodes, weights),
        source=source_line(line),
        nodes=tuple(node.name for node in nodes),
        params_before=parameters,
        params_after=parameters,
        flops_before=flops,
        flops_after=flops,
        inputs=tuple(node.name for node in inputs),
        output=output.name,
    )


def common_path(nodes: Sequence[fx.Node], weights: Sequence[fx.Node]) -> str:
    """The innermost module that holds all of some nodes, by module stack or else by weight names.

    Where that is the model itself and no line of the user's code is known, as in `nn.Sequential`, the layers are
    named instead: `0, 1`.
    """
    paths: list[Any] = [module_path(node) for node in nodes]
    if not all(paths):
        paths = [owner(node) for node in weights]
    layers = list(dict.fromkeys(paths))
    if len(layers) == 1:
        return layers[0]
    levels = zip(*(path.split(".") for path in paths), strict=False)
    common = ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
    if common or any(source_line(node) for node in nodes):
        return common
    return ", ".join(layers if len(layers) <= _NAMED else [*layers[: _NAMED - 1], "...", layers[-1]])
