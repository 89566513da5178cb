"""Norms that scale and shift their features with weights behind the normalisation itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.nodes import val
from ..algebra.elements import Element, Scale, Shift, feature_value
from ..algebra.readings import Maps
from ..algebra.values import Value

aten = torch.ops.aten
_NORMS = (aten.layer_norm, aten.rms_norm)


def read_norm(value: Value, fixed: Collection[fx.Node]) -> Maps | None:
    """Read a norm along the features as what its weights do to the value that it has without them."""
    node, axis = value.node, value.axis
    if value.bare or packet(node) not in _NORMS or axis != val(node).dim() - 1:
        return None
    given = named_arguments(node)
    if len(given["normalized_shape"]) != 1 or given.get("weight") is None:
        return None
    if not isinstance(given["input"], fx.Node) or given["input"] in fixed:
        return None
    elements: list[Element] = [Scale(given["weight"])]
    if given.get("bias") is not None:
        elements.append(Shift(given["bias"]))
    if not all(feature_value(each.value, val(node), axis, fixed) for each in elements):  # type: ignore[union-attr]
        return None
    return Maps(node, Value(node, axis, bare=True), tuple(elements))


def emit_bare(emit: Any, value: Value) -> fx.Node:
    """Emit a norm without its weights."""
    given = dict(named_arguments(value.node))
    given["weight"] = None
    if "bias" in given:
        given["bias"] = None
    return emit.call_sized(value.node.target, given, val(value.node).shape)
