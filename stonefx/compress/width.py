"""Fewer units between two layers: those that the others predict well go, and the reading layer takes up the rest."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from .blocks import Block, Reduction
from .losses import Directions
from .lossless import like
from .options import rank_grid
from .spectrum import cholesky
from .statistics import Statistics
from .views import Form, View, layer_weights

RIDGE = 1e-6
"""Of the mean square of a unit, added to all: units that rounding alone tells apart are not told apart."""

TOGETHER = 512
"""Up to so many units are ordered one by one, more of them eight by eight."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


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

    def kept(
        self, units: Tensor, weight: Tensor, given: Mapping[str, nn.Module] | None = None
    ) -> dict[str, nn.Module]:
        """The block's layers with these units alone, and with this matrix as the reader's weight.

        `given` are layers that another block has changed already, by path.
        """
        changed: dict[str, nn.Module] = {}
        for path in self.producers:
            layer: Any = (given or {}).get(path) or self.model.get_submodule(path)
            rows: Tensor = layer.weight.detach()
            bias = layer.bias
            changed[path] = like(layer, rows[units], None if bias is None else bias.detach()[units])
        for path in self.carriers:
            changed[path] = _carrier(self.model.get_submodule(path), units)
        for path, name, axis in self.parameters:
            holder = changed.get(path)
            if holder is None:
                holder = changed[path] = copy.copy(self.model.get_submodule(path))
                holder._parameters = dict(holder._parameters)
            old = holder._parameters[name]
            assert old is not None
            new = old.detach().index_select(axis, units.to(old.device)).contiguous()
            holder._parameters[name] = nn.Parameter(new, old.requires_grad)
            if isinstance(holder, nn.PReLU):
                holder.num_parameters = len(units)
        reader: Any = self.model.get_submodule(self.view.path)
        shape = (weight.shape[0], -1, *reader.weight.shape[2:])
        bias = reader.bias
        changed[self.view.path] = like(
            reader,
            weight.reshape(shape),
            None if bias is None else bias.detach(),
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
        layers = [block.model.get_submodule(path) for path in block.paths]
        total = sum(map(layer_weights, layers))
        held = sum(
            block.model.get_submodule(path).get_parameter(name).numel() for path, name, _ in block.parameters
        )
        others = sum(layer_weights(block.model.get_submodule(path)) for path in _holders(block))
        self.fixed = others - held
        self.each = (total - self.fixed) // block.units

    def numbers(self, size: int) -> int:
        """See `Reduction`."""
        return self.fixed + self.each * size

    def loss(self, size: int) -> float:
        """See `Reduction`."""
        return float(self.tails[size * self.block.span])

    def build(self, size: int, given: Mapping[str, nn.Module] | None = None) -> Mapping[str, nn.Module]:
        """See `Reduction`; for `given` see `Width.kept`."""
        units, place = self.units[:size].sort()
        k = size * self.block.span
        weight = torch.linalg.solve_triangular(self.root[:k, :k], self.basis[:, :k], upper=False, left=False)
        return self.block.kept(units, weight[:, self._columns(place)], given)

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
    if isinstance(layer, CONVOLUTIONS):
        bias = layer.bias
        return like(layer, layer.weight.detach()[units], None if bias is None else bias.detach()[units])
    assert isinstance(layer, NORMS)
    state = {k: v[units] if v.dim() else v for k, v in layer.state_dict().items()}
    device = next(v.device for v in state.values())
    dtype = next(v.dtype for v in state.values() if v.is_floating_point())
    new = type(layer)(len(units), layer.eps, layer.momentum, layer.affine, device=device, dtype=dtype)
    new.load_state_dict(state)
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(layer.get_parameter(name).requires_grad)
    return new.train(layer.training)


@dataclass(frozen=True)
class Patches(View):
    """A convolution as the product of its kernel with the patches that it reads, for the statistics of its channels."""

    name: ClassVar[str] = "patches"

    def matrix(self) -> Tensor:
        """See `View`."""
        layer: Any = self.layer
        return layer.weight.detach().double().flatten(1)[None]

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
