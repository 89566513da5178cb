"""The arguments of an ATen node under their schema names, however the call was written."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
DROPOUTS = (aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout)


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """Return every argument of an operator call by its schema name, with the defaults filled in.

    Args:
        node: a `call_function` node whose target is an `OpOverload`.
    """
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {argument.name: value for argument, value in zip(schema, node.args, strict=False)}
    given.update(node.kwargs)
    for argument in schema:
        if argument.name not in given and argument.has_default_value():
            given[argument.name] = argument.default_value
    return given


def is_operator(node: fx.Node) -> bool:
    """Whether a node calls an ATen or custom operator, as opposed to a Python function."""
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def aliases(target: Any) -> bool:
    """Whether a result of an operator shares memory with an argument, as a view does."""
    return any(result.alias_info is not None for result in target._schema.returns)


def packet(node: fx.Node) -> Any:
    """The operator without its overload, such as `torch.ops.aten.add` for `aten.add.Tensor`; None if none."""
    return node.target.overloadpacket if is_operator(node) else None  # type: ignore[union-attr]
