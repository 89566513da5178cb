"""Fewer units between two layers: those that the others predict well go, and the reading layer takes up the rest."""

from __future__ import annotations

import copy
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from .blocks import Block, Reduction
from .layers import get
from .linear import LinearView
from .losses import Directions
from .lossless import is_copy, like
from .options import rank_grid
from .spectrum import cholesky
from .statistics import Statistics
from .structure import Structure, value
from .views import Form, View, layer_weights

aten = torch.ops.aten

RIDGE = 1e-6
"""Of the mean square of a unit, added to all: units that rounding alone tells apart are not told apart."""

TOGETHER = 512
"""Up to so many units are ordered one by one, more of them eight by eight."""

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

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Width(Block):
    """Units that some layers make, that are changed one by one, and that one layer reads.

    Attributes:
        model: that holds the layers.
        units: how many there are.
        span: columns of the reader a unit: several where a channel is read at several places.
        producers: layers whose rows are the units.
        carriers: layers that change each unit by itself: convolutions of single channels and batch norms.
        parameters: path of the holder, name and axis of each parameter with an entry a unit.
    """

    model: nn.Module
    units: int
    span: int
    producers: tuple[str, ...]
    carriers: tuple[str, ...]
    parameters: tuple[tuple[str, str, int], ...]

    name: ClassVar[str] = "width"

    def reduction(self, statistics: Statistics) -> Reduced:
        """See `Block`."""
        return Reduced(self, statistics)

    def kept(self, units: Tensor, weight: Tensor) -> dict[str, nn.Module]:
        """The block's layers with these units alone, and with this matrix as the reader's weight."""
        changed: dict[str, nn.Module] = {}
        for path in self.producers:
            layer = get(self.model, path)
            rows: Tensor = layer.weight.detach()  # type: ignore[operator,union-attr,assignment]
            bias = layer.bias
            changed[path] = like(layer, rows[units], None if bias is None else bias.detach()[units])  # type: ignore[operator,union-attr,index]
        for path in self.carriers:
            changed[path] = _carrier(get(self.model, path), units)
        for path, name, axis in self.parameters:
            holder = changed.get(path)
            if holder is None:
                holder = changed[path] = copy.copy(get(self.model, path))
                holder._parameters = dict(holder._parameters)
            old = holder._parameters[name]
            assert old is not None
            new = old.detach().index_select(axis, units.to(old.device)).contiguous()
            holder._parameters[name] = nn.Parameter(new, old.requires_grad)
            if isinstance(holder, nn.PReLU):
                holder.num_parameters = len(units)
        reader = get(self.model, self.view.path)
        shape = (weight.shape[0], -1, *reader.weight.shape[2:])  # type: ignore[index,union-attr]
        bias = reader.bias
        changed[self.view.path] = like(
            reader,
            weight.reshape(shape),  # type: ignore[arg-type]
            None if bias is None else bias.detach(),  # type: ignore[operator,union-attr]
        )
        return changed


class Reduced(Reduction):
    """The units of a `Width` in order, see `Reduction`.

    With units h and `E[h h^T] = C = R R^T` in the order in which they are kept, `h = R z` with entries of z that do
    not depend on each other. Of the reader's `W h = W R z` the first k units know the first k entries of z, and
    dropping the others is the least that can be lost: `W' = (W R)[:, :k] R[:k, :k]^-1 = W C[:, J] C[J, J]^-1`.
    """

    def __init__(self, block: Width, statistics: Statistics) -> None:
        self.block = block
        self.parts = block.span
        matrix, covariance = block.view.matrix()[0], statistics.inputs[0]
        lift = RIDGE * covariance.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
        covariance = covariance + lift * torch.eye(
            len(covariance), dtype=torch.float64, device=covariance.device
        )
        root = None if statistics.gradients is None else cholesky(statistics.gradients[0])
        weighted = matrix if root is None else root.mT @ matrix
        if not (bool(covariance.isfinite().all()) and bool(weighted.isfinite().all())):
            raise ValueError("its weights, inputs or gradients are not finite")
        self.units = order(covariance, weighted, block.span)
        columns = self._columns(self.units)
        self.root = cholesky(covariance[columns][:, columns])
        self.basis = matrix[:, columns] @ self.root
        q = torch.zeros_like(covariance)
        identity = torch.eye(len(columns), dtype=torch.float64, device=covariance.device)
        q[columns] = torch.linalg.solve_triangular(self.root, identity, upper=False).mT
        self.directions = Directions(block.view, self.basis[None], q[None])
        squares = (weighted[:, columns] @ self.root).square().sum(0)
        tails = squares.flip(0).cumsum(0).flip(0)
        self.tails = 0.5 * torch.cat([tails, tails.new_zeros(1)])
        self.sizes = rank_grid(block.units)
        layers = [get(block.model, path) for path in block.paths]
        total = sum(map(layer_weights, layers))
        held = sum(get(block.model, path).get_parameter(name).numel() for path, name, _ in block.parameters)
        others = sum(layer_weights(get(block.model, path)) for path in _holders(block))
        self.fixed = others - held
        self.each = (total - self.fixed) // block.units

    def numbers(self, size: int) -> int:
        """See `Reduction`."""
        return self.fixed + self.each * size

    def loss(self, size: int) -> float:
        """See `Reduction`."""
        return float(self.tails[size * self.block.span])

    def build(self, size: int) -> Mapping[str, nn.Module]:
        """See `Reduction`."""
        units, place = self.units[:size].sort()
        k = size * self.block.span
        weight = torch.linalg.solve_triangular(self.root[:k, :k], self.basis[:, :k], upper=False, left=False)
        return self.block.kept(units, weight[:, self._columns(place)])

    def _columns(self, units: Tensor) -> Tensor:
        span = self.block.span
        return (units[:, None] * span + torch.arange(span, device=units.device)).flatten()


def order(covariance: Tensor, weighted: Tensor, span: int = 1) -> Tensor:
    """Units, best first: each next one is what the result gains most from, given those before it.

    A greedy pivoted Cholesky decomposition of the units' covariance, in which a pivot's gain is what it explains of
    the result `weighted @ h`.

    Args:
        covariance: `[units * span, units * span]`, positive definite.
        weighted: `[rows, units * span]`.
        span: columns a unit.

    >>> order(torch.diag(torch.tensor([1.0, 9.0, 4.0])).double(), torch.ones(1, 3).double())
    tensor([1, 2, 0])
    """
    units = len(covariance) // span
    rest, result = covariance.clone(), weighted @ covariance
    left = torch.ones(units, dtype=torch.bool, device=covariance.device)
    within = torch.arange(span, device=covariance.device)
    floor = 1e-12 * covariance.diagonal().mean()
    lifted = floor * torch.eye(span, dtype=covariance.dtype, device=covariance.device)
    step = 1 if units <= TOGETHER else 8
    found: list[Tensor] = []
    number = 0
    while number < units:
        explained = result.reshape(-1, units, span).permute(1, 2, 0)
        if span == 1:
            gains = explained.square().sum((1, 2)) / rest.diagonal().clamp_min(floor)
        else:
            own = rest.reshape(units, span, units, span).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
            root = torch.linalg.cholesky_ex(own + lifted).L
            gains = torch.linalg.solve_triangular(root, explained, upper=False).square().sum((1, 2))
        gains = gains.nan_to_num(0.0).masked_fill(~left, -1.0)
        best = gains.topk(min(step, units - number)).indices
        columns = (best[:, None] * span + within).flatten()
        own = rest[columns][:, columns]
        root = cholesky(own + floor * torch.eye(len(columns), dtype=own.dtype, device=own.device))
        known = torch.cholesky_solve(rest[columns], root)
        result = result - result[:, columns] @ known
        rest -= rest[:, columns] @ known
        left[best] = False
        found.append(best)
        number += len(best)
    return torch.cat(found)


def _holders(block: Width) -> set[str]:
    return {path for path, _, _ in block.parameters}


def _carrier(layer: nn.Module, units: Tensor) -> nn.Module:
    if isinstance(layer, _CONVOLUTIONS):
        bias = layer.bias
        return like(layer, layer.weight.detach()[units], None if bias is None else bias.detach()[units])
    assert isinstance(layer, _NORMS)
    state = {k: v[units] if v.dim() else v for k, v in layer.state_dict().items()}
    device = next(v.device for v in state.values())
    dtype = next(v.dtype for v in state.values() if v.is_floating_point())
    new = type(layer)(len(units), layer.eps, layer.momentum, layer.affine, device=device, dtype=dtype)
    new.load_state_dict(state)
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(layer.get_parameter(name).requires_grad)
    return new.train(layer.training)


# Finding blocks ----------------------------------------------------------------------------------------------------


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
    if isinstance(layer, _CONVOLUTIONS) and layer.groups == 1:
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
            axis, self.units = 1, layer.weight.shape[1]  # type: ignore[union-attr,index,assignment]
            self.span = layer.weight[0, 0].numel()  # type: ignore[union-attr,index,operator]
            if dim != layer.weight.dim():  # type: ignore[union-attr,operator]
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
        sizes = [get(model, path).weight.shape[0] for path in self.producers]  # type: ignore[union-attr,index]
        for path in self.carriers:
            layer: Any = get(model, path)
            sizes.append(layer.num_features if isinstance(layer, _NORMS) else layer.out_channels)
        sizes += [get(model, path).get_parameter(name).numel() for path, name, _ in self.parameters]
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
            over = {int(a) % dim for a in node.args[1]}  # type: ignore[arg-type,call-overload]
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
        if isinstance(layer, _CONVOLUTIONS) and axis == 1 and dim == layer.weight.dim():
            if layer.groups == 1:
                self.producers[path] = None
                return []
            if layer.groups == layer.in_channels == layer.out_channels:
                self.carriers[path] = None
                return [(first, axis)]
        if isinstance(layer, _NORMS) and axis == 1 and node.args[5] is False:
            self.carriers[path] = None
            return [(first, axis)]
        return None

    def _parameter(self, node: fx.Node, axis: int) -> list[tuple[fx.Node, int]] | None:
        holder = self.structure.holders.get(node)
        if holder is None:
            return None
        path, name = holder
        module = get(self.structure.model, path)
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
    before, after = value(node.args[0]), value(node)  # type: ignore[arg-type]
    if after.dim() != 2 or before.shape[0] != after.shape[0]:
        return False
    if node.target is aten.flatten.using_ints:
        return True
    sizes = node.args[1] if len(node.args) > 1 else None
    shaped = node.target in (aten.view.default, aten.reshape.default)
    return shaped and isinstance(sizes, (list, tuple)) and sizes[-1] == -1


@dataclass(frozen=True)
class Patches(View):
    """A convolution as the product of its kernel with the patches that it reads, for the statistics of its channels."""

    name: ClassVar[str] = "patches"

    def matrix(self) -> Tensor:
        """See `View`."""
        return self.layer.weight.detach().double().flatten(1)[None]  # type: ignore[operator,union-attr]

    def inputs(self, arguments: tuple[Any, ...]) -> Tensor:
        """See `View`."""
        layer: Any = self.layer
        x: Tensor = arguments[0].detach()
        n = len(layer.kernel_size)
        if any(layer._reversed_padding_repeated_twice):
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            x = functional.pad(x, layer._reversed_padding_repeated_twice, mode)
        for i, (size, stride, step) in enumerate(
            zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
        ):
            x = x.unfold(2 + i, (size - 1) * step + 1, stride)[..., ::step]
        # [samples, channels, *places, *kernel]
        x = x.flatten(2 + n).flatten(2, 1 + n).transpose(1, 2)
        return x.flatten(2)[:, :, None, :]

    def outputs(self, gradient: Tensor) -> Tensor:
        """See `View`."""
        return gradient.flatten(2).transpose(1, 2)[:, :, None, :]

    def forms(self) -> Mapping[str, Form]:
        """See `View`."""
        return {}

    def alike(self) -> Any:
        """See `View`."""
        layer: Any = self.layer
        geometry = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.padding_mode)
        return (*super().alike(), geometry)
