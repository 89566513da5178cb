"""Where units lie between layers and nothing else reads them, found from the graph."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from .linear import LinearView
from .lossless import is_copy
from .structure import Structure, value
from .views import View
from .width import CONVOLUTIONS, NORMS, Patches, Width

aten = torch.ops.aten

_UNARY = {
    getattr(aten, name)
    for name in (
        *("relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus"),
        *(
            "tanh",
            "sigmoid",
            "log_sigmoid",
            "hardtanh",
            "hardswish",
            "hardsigmoid",
            "hardshrink",
            "softshrink",
        ),
        *("threshold", "abs", "square", "sqrt", "rsqrt", "exp", "expm1", "log1p", "neg", "sign", "erf"),
        *("sin", "cos", "pow", "clamp", "clamp_min", "clamp_max", "reciprocal", "to", "_to_copy"),
    )
}
"""Operators that act on every entry by itself."""

_BINARY = {getattr(aten, name) for name in ("add", "sub", "mul", "div", "maximum", "minimum")}

_SPATIAL = {
    getattr(aten, f"{name}{n}d"): n
    for n in (1, 2, 3)
    for name in ("max_pool", "avg_pool", "adaptive_avg_pool")
}
"""Operators that act on every channel by itself, and over how many axes."""


def find(structure: Structure, chosen: Container[str], views: Mapping[str, Sequence[View]]) -> list[Width]:
    """All blocks of the model whose layers are among the chosen ones.

    Args:
        structure: of the model.
        chosen: paths of the layers that may change.
        views: of layers by path, to be used where one fits.
    """
    found = []
    for node, path in structure.calls.items():
        if path in chosen and (view := _reading(structure, node, views.get(path, ()))) is not None:
            slice_ = _Slice(structure, node)
            if slice_.follow() and all(p in chosen for p in slice_.producers):
                found.append(slice_.block(view))
    return found


def _reading(structure: Structure, node: fx.Node, views: Iterable[View]) -> View | None:
    """The view of a layer whose columns are its input's features, all places of a channel side by side."""
    layer = structure.layer(node)
    if isinstance(layer, nn.Linear):
        own = LinearView(structure.calls[node], layer, 1, layer.out_features, layer.in_features)
        return next((view for view in views if view == own), own)
    if isinstance(layer, CONVOLUTIONS) and layer.groups == 1:
        rows, columns = layer.weight.shape[0], layer.weight[0].numel()
        return Patches(structure.calls[node], layer, 1, rows, columns)
    return None


class _Slice:
    """What lies before a layer's input up to the layers that make its units."""

    def __init__(self, structure: Structure, reader: fx.Node) -> None:
        self.structure = structure
        self.reader = reader
        self.producers: dict[str, None] = {}
        self.carriers: dict[str, None] = {}
        self.parameters: dict[tuple[str, str, int], None] = {}
        self.axes: dict[fx.Node, int] = {}
        self.alike: set[fx.Node] = set()
        """Operands that all units of a position share."""
        self.span = 1
        self.units = 0

    def follow(self) -> bool:
        """Whether the reader's input is made of units that nothing else reads."""
        start = self.reader.args[0]
        if not isinstance(start, fx.Node):
            return False
        layer = self.structure.layer(self.reader)
        dim = value(start).dim()
        if isinstance(layer, nn.Linear):
            axis, self.units = dim - 1, layer.in_features
        else:
            axis, self.units = 1, layer.weight.shape[1]
            self.span = layer.weight[0, 0].numel()
            if dim != layer.weight.dim():
                return False
        pending = [(start, axis)]
        while pending:
            node, axis = pending.pop()
            if node in self.axes:
                if self.axes[node] != axis:
                    return False
                continue
            if node is self.reader or not isinstance(node.meta.get("val"), Tensor):
                return False
            self.axes[node] = axis
            before = self._before(node, axis)
            if before is None:
                return False
            pending += before
        if not self.producers or self.units < 2 or self.alike & set(self.axes):
            return False
        if self.structure.calls[self.reader] in (*self.producers, *self.carriers):
            return False
        return (
            all(user is self.reader or user in self.axes for node in self.axes for user in node.users)
            and self._sizes_fit()
        )

    def block(self, view: View) -> Width:
        """The block that was found."""
        paths = dict.fromkeys(
            (*self.producers, view.path, *self.carriers, *(p for p, _, _ in self.parameters))
        )
        return Width(
            tuple(paths),
            view,
            self.structure.model,
            self.units,
            self.span,
            tuple(self.producers),
            tuple(self.carriers),
            tuple(self.parameters),
        )

    def _sizes_fit(self) -> bool:
        model = self.structure.model
        producers: list[Any] = [model.get_submodule(path) for path in self.producers]
        sizes = [layer.weight.shape[0] for layer in producers]
        for path in self.carriers:
            layer: Any = model.get_submodule(path)
            sizes.append(layer.num_features if isinstance(layer, NORMS) else layer.out_channels)
        sizes += [model.get_submodule(path).get_parameter(name).numel() for path, name, _ in self.parameters]
        return all(size == self.units for size in sizes)

    def _before(self, node: fx.Node, axis: int) -> list[tuple[fx.Node, int]] | None:
        """What a value's units come from, each with the axis of its units; None: this is no operation unit by unit."""
        structure = self.structure
        if node.op == "placeholder":
            return self._parameter(node, axis)
        layer = structure.layer(node)
        if layer is not None:
            return self._layer(node, axis, layer)
        packet = getattr(node.target, "overloadpacket", None)
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node) or not isinstance(first.meta.get("val"), Tensor):
            return None
        if is_copy(node) or (packet in _UNARY and not _several(node, packet)):
            return [(first, axis)]
        if packet is aten.prelu:
            weight = node.args[1]
            assert isinstance(weight, fx.Node)
            if value(weight).numel() == 1:
                return [(first, axis)]
            return [(first, axis), (weight, 0)] if axis == 1 else None
        if packet in _BINARY:
            return self._operands(node, axis)
        dim, spatial = value(first).dim(), value(first).dim() - 2
        if _SPATIAL.get(packet) == spatial and axis == 1:
            return [(first, axis)]
        if (
            packet is aten.mean
            and axis == 1
            and len(node.args) > 1
            and isinstance(node.args[1], (list, tuple))
        ):
            axes: Any = node.args[1]
            over = {int(a) % dim for a in axes}
            return [(first, 1)] if over and min(over) > 1 else None
        if axis == 1 and dim > 2 and _flattens(node):
            places = value(first).shape[2:]
            if not all(isinstance(size, int) for size in places) or self.span != 1:
                return None
            self.span = math.prod(places)
            self.units //= max(self.span, 1)
            return [(first, 1)]
        return None

    def _layer(self, node: fx.Node, axis: int, layer: nn.Module) -> list[tuple[fx.Node, int]] | None:
        path, first = self.structure.calls[node], node.args[0]
        if not isinstance(first, fx.Node):
            return None
        dim = value(node).dim()
        if isinstance(layer, nn.Linear) and axis == dim - 1:
            self.producers[path] = None
            return []
        if isinstance(layer, CONVOLUTIONS) and axis == 1 and dim == layer.weight.dim():
            if layer.groups == 1:
                self.producers[path] = None
                return []
            if layer.groups == layer.in_channels == layer.out_channels:
                self.carriers[path] = None
                return [(first, axis)]
        if isinstance(layer, NORMS) and axis == 1 and node.args[5] is False:
            self.carriers[path] = None
            return [(first, axis)]
        return None

    def _parameter(self, node: fx.Node, axis: int) -> list[tuple[fx.Node, int]] | None:
        holder = self.structure.holders.get(node)
        if holder is None:
            return None
        path, name = holder
        module = self.structure.model.get_submodule(path)
        own = module._parameters.get(name)
        # Its own module alone holds it, and no layer that is looked at otherwise.
        if (
            own is None
            or own.numel() != own.shape[axis]
            or not path
            or next(module.children(), None) is not None
        ):
            return None
        self.parameters[path, name, axis] = None
        return []

    def _operands(self, node: fx.Node, axis: int) -> list[tuple[fx.Node, int]] | None:
        dim, operands = value(node).dim(), []
        for operand in (*node.args, *node.kwargs.values()):
            if not isinstance(operand, fx.Node):
                continue
            found = operand.meta.get("val")
            if not isinstance(found, Tensor):
                continue
            place = axis - (dim - found.dim())
            if place < 0 or found.shape[place] == 1:
                self.alike.add(operand)
            else:
                operands.append((operand, place))
        return operands


def _several(node: fx.Node, packet: Any) -> bool:
    """An operator of this name that also reads other tensors."""
    return packet is aten.prelu or any(
        isinstance(a, fx.Node) and isinstance(a.meta.get("val"), Tensor)
        for a in (*node.args[1:], *node.kwargs.values())
    )


def _flattens(node: fx.Node) -> bool:
    """Everything after the first axis becomes one, without its size being written out."""
    before, after = value(node.args[0]), value(node)
    if after.dim() != 2 or before.shape[0] != after.shape[0]:
        return False
    if node.target is aten.flatten.using_ints:
        return True
    sizes = node.args[1] if len(node.args) > 1 else None
    shaped = node.target in (aten.view.default, aten.reshape.default)
    return shaped and isinstance(sizes, (list, tuple)) and sizes[-1] == -1
