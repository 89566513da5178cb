"""Fewer dimensions a head of attention: of its values, and of what queries and keys are compared in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .blocks import Block, Reduction
from .eigen import eigenvectors
from .linear import LinearView
from .losses import Directions
from .lossless import like
from .options import rank_grid
from .spectrum import cholesky
from .standing import Factors, standing_in, traced
from .statistics import Statistics
from .views import positions

RIDGE = 1e-6
"""Of the mean square of a head's dimension, added to all, since the covariance is inverted."""


class HeadLinear(nn.Module):
    """A linear map of each head by itself: `[..., heads * in]` to `[..., heads * out]`.

    Args:
        weight: `[groups, out, in]`; heads in a row share the map of their group.
        heads: how many there are, a multiple of the groups.

    >>> HeadLinear(torch.ones(2, 3, 5), 4)(torch.ones(7, 20)).shape
    torch.Size([7, 12])
    """

    def __init__(self, weight: Tensor, heads: int, requires_grad: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.groups, self.rows, self.columns = weight.shape
        self.weight = nn.Parameter(weight.contiguous(), requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """The heads' results side by side."""
        x = x.unflatten(-1, (self.groups, self.heads // self.groups, self.columns))
        return torch.einsum("...gnj,gij->...gni", x, self.weight).flatten(-3)

    def plain(self) -> nn.Module:
        """The same map in torch alone."""
        return traced(self)

    def extra_repr(self) -> str:
        """Sizes, as other layers show them."""
        return f"{self.columns} to {self.rows} in each of {self.heads} heads, {self.groups} groups"


class Scatter(nn.Module):
    """Features put where they belong among zeros.

    Args:
        places: `[features]`, of each.
        size: of the result.

    >>> Scatter(torch.tensor([2, 0]), 4)(torch.tensor([[5.0, 7.0]]))
    tensor([[7., 0., 5., 0.]])
    """

    places: Tensor

    def __init__(self, places: Tensor, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("places", places.int())

    def forward(self, x: Tensor) -> Tensor:
        """The features among zeros."""
        # A sum of tuples, since sizes cannot be counted while this is traced.
        shape = x.shape[:-1] + (self.size,)  # noqa: RUF005
        return x.new_zeros(shape).index_copy(-1, self.places.long(), x)

    def plain(self) -> nn.Module:
        """The same map in torch alone."""
        return traced(self)

    def extra_repr(self) -> str:
        """Sizes, as other layers show them."""
        return f"{len(self.places)} of {self.size}"


@dataclass(frozen=True)
class Heads(Block):
    """Two projections of attention that meet head by head.

    Attributes:
        model: that holds the layers.
        heads: of queries, and of what the output is projected from.
        groups: of keys or values; heads in a row share one.
        features: of a head.
    """

    model: nn.Module
    heads: int
    groups: int
    features: int

    name: ClassVar[str] = "heads"

    def layer(self, number: int) -> Any:
        """The first or second of the two projections."""
        return self.model.get_submodule(self.paths[number])


@dataclass(frozen=True)
class Values(Heads):
    """The projection of values, and that of the output, which reads mixtures of them over positions."""

    def reduction(self, statistics: Statistics) -> Reduction:
        """See `Block`."""
        return ValuesReduced(self, statistics)


@dataclass(frozen=True)
class Comparison(Heads):
    """The projections of queries and of keys, which meet in inner products.

    Attributes:
        rotary: positions are turned into rotations of dimensions i and i + features / 2, so that such pairs stay or go
            as a whole.
    """

    rotary: bool

    def reduction(self, statistics: Statistics) -> Reduction:
        """See `Block`."""
        return (PairsReduced if self.rotary else ComparisonReduced)(self, statistics)


class ValuesReduced(Reduction):
    """The best subspaces of a head's values, see `Reduction`.

    An oblique projection P of rank r for each group: `W_o P h`, with h what the output's projection is given. With
    `C = R R^T = E[h h^T]` of the group's heads and `S = W_o^T G W_o` summed over them, `P = R V V^T R^-1` where V are
    the first r eigenvectors of `R^T S R`. Attention weights mix positions alone, so that values in the range of P stay
    there, and the output reads their coordinates.
    """

    def __init__(self, block: Values, statistics: Statistics) -> None:
        self.block = block
        d, heads, groups = block.features, block.heads, block.groups
        weight = block.view.matrix()[0]
        self.weights = weight.reshape(-1, heads, d).transpose(0, 1)
        gradients = _finite(statistics.gradients, len(weight), weight)
        covariance = _blocks(_finite(statistics.inputs, None, weight)[0], heads)
        sensitivity = self.weights.mT @ gradients[0] @ self.weights
        a, b, values = _projections(
            _grouped(covariance, groups).mean(1), _grouped(sensitivity, groups).sum(1)
        )
        self.a, self.b = a, b
        self.tails = _tails(values.sum(0))
        self.parts = heads
        self.sizes = rank_grid(d)
        per_head = heads // groups
        p = self.weights @ a.repeat_interleave(per_head, 0)
        q = _placed(b.repeat_interleave(per_head, 0))
        self.directions = Directions(block.view, _by_component(p), _by_component(q))

    def numbers(self, size: int) -> int:
        """See `Reduction`."""
        block = self.block
        value_, output = block.layer(0), block.layer(1)
        maps = 2 * block.groups * block.features
        return int(size * (block.groups * value_.in_features + block.heads * output.out_features + maps))

    def loss(self, size: int) -> float:
        """See `Reduction`; as if all heads of a group had the same covariance."""
        return float(self.tails[size])

    def build(self, size: int) -> Mapping[str, nn.Module]:
        """See `Reduction`."""
        block = self.block
        # Coordinates in an orthonormal basis of the range, so that half precision loses nothing by them.
        basis, root = torch.linalg.qr(self.a[:, :, :size])
        value_, output = block.layer(0), block.layer(1)
        weight, bias = _rows(value_, block.groups, root @ self.b[:, :size])
        first, last = value_.weight, output.weight
        narrow = self.weights @ basis.repeat_interleave(block.heads // block.groups, 0)
        narrow = narrow.transpose(0, 1).flatten(1)
        expand = HeadLinear(basis.to(first.device, first.dtype), block.groups, first.requires_grad)
        project = HeadLinear(basis.mT.to(last.device, last.dtype), block.heads, last.requires_grad)
        out_bias = None if output.bias is None else output.bias.detach()
        return {
            block.paths[0]: standing_in(Factors(like(value_, weight, bias), expand), value_).eval(),
            block.paths[1]: standing_in(Factors(project, like(output, narrow, out_bias)), output).eval(),
        }


class _Compared(Reduction):
    """What both kinds of comparison have in common."""

    block: Comparison
    tails: Tensor

    def __init__(self, block: Comparison, statistics: Statistics) -> None:
        self.block = block
        self.parts = block.heads
        weight = block.view.matrix()[0]
        self.weights = weight.reshape(block.heads, block.features, -1)
        inputs = _finite(statistics.inputs, None, weight)[0]
        self.covariance = self.weights @ inputs @ self.weights.mT
        self.sensitivity = _blocks(_finite(statistics.gradients, len(weight), weight)[0], block.heads)

    def numbers(self, size: int) -> int:
        """See `Reduction`; places of features are counted as numbers."""
        block = self.block
        query, key = block.layer(0), block.layer(1)
        rows = size * (block.heads + block.groups)
        places = -(-rows * 4 // query.weight.element_size())
        return int(size * (block.heads * query.in_features + block.groups * key.in_features) + places)

    def loss(self, size: int) -> float:
        """See `Reduction`; as if all heads of a group had the same covariance."""
        return float(self.tails[size])

    def _built(self, queries: Tensor, keys: Tensor, places: Tensor) -> Mapping[str, nn.Module]:
        """From maps of the heads' features `[groups, r, features]` and where these r are put, `[groups, r]`."""
        block = self.block
        built: dict[str, nn.Module] = {}
        for number, heads, maps in ((0, block.heads, queries), (1, block.groups, keys)):
            layer, repeat = block.layer(number), heads // block.groups
            weight, bias = _rows(layer, heads, maps.repeat_interleave(repeat, 0))
            starts = torch.arange(heads, device=places.device)[:, None] * block.features
            index = (places.repeat_interleave(repeat, 0) + starts).flatten().to(layer.weight.device)
            scatter = Scatter(index, heads * block.features)
            built[block.paths[number]] = standing_in(
                Factors(like(layer, weight, bias), scatter), layer
            ).eval()
        return built


class ComparisonReduced(_Compared):
    """The best subspaces in which queries are compared with keys: `q . P^T k`, see `Reduction`.

    What changes is told as a change of queries, `P q` in the place of q; with `P = A B` queries store `B W_q` and keys
    `A^T W_k`.
    """

    def __init__(self, block: Comparison, statistics: Statistics) -> None:
        super().__init__(block, statistics)
        per_head = block.heads // block.groups
        covariance = _grouped(self.covariance, block.groups).mean(1)
        sensitivity = _grouped(self.sensitivity, block.groups).sum(1)
        a, b, values = _projections(covariance, sensitivity)
        self.a, self.b = a, b
        self.tails = _tails(values.sum(0))
        self.sizes = rank_grid(block.features)
        p = _placed(a.repeat_interleave(per_head, 0).mT)
        q = self.weights.mT @ b.repeat_interleave(per_head, 0).mT
        self.directions = Directions(block.view, _by_component(p), _by_component(q))

    def build(self, size: int) -> Mapping[str, nn.Module]:
        """See `Reduction`."""
        block = self.block
        queries, keys = self.b[:, :size], self.a[:, :, :size].mT
        # Of equal length, so that neither overflows in half precision.
        scale = (keys.norm(dim=2) / queries.norm(dim=2)).sqrt()[:, :, None]
        places = torch.arange(size, device=queries.device).expand(block.groups, size)
        return self._built(queries * scale, keys / scale, places)


class PairsReduced(_Compared):
    """Pairs of dimensions that a rotation turns into each other, those whose loss is greatest first."""

    def __init__(self, block: Comparison, statistics: Statistics) -> None:
        super().__init__(block, statistics)
        half = block.features // 2
        products = _grouped(self.sensitivity * self.covariance, block.groups).sum(1)
        parts = products.unflatten(1, (2, half)).unflatten(3, (2, half))
        losses = parts.diagonal(dim1=2, dim2=4).sum((1, 2)).clamp_min(0)
        losses, pairs = losses.sort(1, descending=True)
        self.order = torch.stack([pairs, pairs + half], 2).flatten(1)
        self.tails = _tails(torch.stack([losses / 2, losses / 2], 2).flatten(1).sum(0))
        self.sizes = [size for size in rank_grid(block.features) if size % 2 == 0]
        order = self.order.repeat_interleave(block.heads // block.groups, 0)
        identity = torch.eye(block.features, dtype=torch.float64, device=order.device)
        p = _placed(identity[order])
        q = self.weights.mT @ identity[order].mT
        self.directions = Directions(block.view, _by_component(p), _by_component(q))

    def build(self, size: int) -> Mapping[str, nn.Module]:
        """See `Reduction`."""
        places = self.order[:, :size].sort(1).values
        identity = torch.eye(self.block.features, dtype=torch.float64, device=places.device)
        return self._built(identity[places], identity[places], places)


@dataclass(frozen=True)
class Affine(LinearView):
    """A linear layer with its bias as one more column, for parts of its whole result."""

    def matrix(self) -> Tensor:
        """See `View`."""
        bias: Any = self.layer.bias
        weight = super().matrix()
        column = weight.new_zeros(1, self.rows, 1) if bias is None else bias.detach().double()[None, :, None]
        return torch.cat([weight, column], 2)

    def inputs(self, arguments: tuple[Any, ...]) -> Tensor:
        """See `View`."""
        rows = positions(arguments[0].detach())
        return torch.cat([rows, rows.new_ones(*rows.shape[:-1], 1)], -1)


def _projections(covariance: Tensor, sensitivity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`A`, `B` and what each component is worth, best first: `P = A[:, :, :r] B[:, :r]` loses least."""
    d = covariance.shape[-1]
    mean = covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp_min(1e-300)
    root = cholesky(covariance + RIDGE * mean * torch.eye(d, dtype=torch.float64, device=covariance.device))
    values, v = eigenvectors(root.mT @ sensitivity @ root)
    # V^T R^-1 as the solution of B R = V^T.
    return root @ v, torch.linalg.solve_triangular(root, v.mT, upper=False, left=False), values


def _rows(layer: Any, heads: int, maps: Tensor) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a projection whose heads are mapped by `[heads, r, features]`."""
    weight = layer.weight.detach().to(maps.device, torch.float64)
    mapped = (maps @ weight.reshape(heads, maps.shape[2], -1)).flatten(0, 1)
    if layer.bias is None:
        return mapped, None
    bias = layer.bias.detach().to(maps.device, torch.float64).reshape(heads, -1, 1)
    return mapped, (maps @ bias).flatten()


def _finite(found: Tensor | None, size: int | None, like_: Tensor) -> Tensor:
    if found is None:
        return torch.eye(size or 1, dtype=torch.float64, device=like_.device)[None]
    if not bool(found.isfinite().all()):
        raise ValueError("its inputs or gradients are not finite")
    return found


def _blocks(matrix: Tensor, heads: int) -> Tensor:
    """Blocks on the diagonal: `[heads * d, heads * d]` to `[heads, d, d]`."""
    d = len(matrix) // heads
    return matrix.reshape(heads, d, heads, d).diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def _grouped(values: Tensor, groups: int) -> Tensor:
    return values.unflatten(0, (groups, -1))


def _placed(maps: Tensor) -> Tensor:
    """Vectors of heads `[heads, k, d]` among zeros for the other heads: `[heads, heads * d, k]`."""
    heads, k, d = maps.shape
    placed = maps.new_zeros(heads, heads, d, k)
    placed[range(heads), range(heads)] = maps.mT
    return placed.flatten(1, 2)


def _by_component(vectors: Tensor) -> Tensor:
    """`[heads, n, k]` as `[1, n, k * heads]`, all heads' first components first."""
    return vectors.permute(1, 2, 0).flatten(1)[None].contiguous()


def _tails(values: Tensor) -> Tensor:
    return 0.5 * torch.cat([values.flip(0).cumsum(0).flip(0), values.new_zeros(1)])
