"""What stands between two maps of the features in models: a function of the value and of what comes beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

NODES, EDGES, WIDTH = 12, 40, 24


@dataclass(frozen=True)
class Carry:
    """One operation on the other axes.

    Args:
        between: a function of the value `[*, WIDTH]` and of what comes beside it.
        shape: of the value, without its features.
        beside: makes the other inputs.
        left: operators that must be left, with their number.
    """

    between: Callable[..., torch.Tensor]
    shape: tuple[int, ...] = (3, 20)
    beside: Callable[[], tuple[torch.Tensor, ...]] = tuple
    left: dict[str, int] | None = None


class Between(nn.Module):
    """A map, an operation, a map."""

    def __init__(self, carry: Carry, inputs: int = 16, outputs: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, WIDTH, bias=bias)
        self.second = nn.Linear(WIDTH, outputs, bias=bias)
        self.carry = carry

    def forward(self, x: torch.Tensor, *beside: torch.Tensor) -> Any:
        return self.second(self.carry.between(self.first(x), *beside))


def indices(count: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, count, shape)


def mask(*shape: int) -> torch.Tensor:
    return (torch.rand(shape) < 0.7).float()


def graph() -> tuple[torch.Tensor, ...]:
    return indices(NODES, EDGES), indices(NODES, EDGES)


def edges(function: Callable[..., torch.Tensor], *more: Callable[[], torch.Tensor]) -> Carry:
    """Message passing on a graph, given where each edge begins and ends."""
    return Carry(function, (NODES,), lambda: (*graph(), *(make() for make in more)))


def images(function: Callable[..., torch.Tensor], *beside: Callable[[], torch.Tensor]) -> Carry:
    """An operation on images whose channels come last in the value."""

    def between(h: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return function(h.permute(0, 3, 1, 2), *others).permute(0, 2, 3, 1)

    return Carry(between, (2, 6, 4), lambda: tuple(make() for make in beside))


def add(h: torch.Tensor, m: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return h.new_zeros(h.shape[0], h.shape[1]).index_add(0, target, m)


def scatter(h, source, target):
    messages = h.index_select(0, source)
    index = target.view(-1, 1).expand_as(messages)
    return messages.new_zeros((h.size(0), messages.size(1))).scatter_add(0, index, messages)


def scatter_reduced(reduce: str, include_self: bool = True):
    def between(h, source, target):
        messages = h[source]
        index = target.unsqueeze(-1).expand(-1, h.shape[1])
        return torch.zeros_like(h).scatter_reduce(0, index, messages, reduce, include_self=include_self)

    return between


def put(h, source, target):
    return torch.zeros_like(h).index_put((target,), h[source], accumulate=True)


def normalised(h, source, target, weight):
    return torch.zeros_like(h).index_add(0, target, h[source] * weight.unsqueeze(-1))


def mean_of_neighbours(h, source, target):
    degree = h.new_zeros(h.shape[0])
    degree = degree.index_add(0, target, torch.ones_like(target, dtype=h.dtype)).clamp(min=1)
    return torch.zeros_like(h).index_add(0, target, h[source]) / degree.unsqueeze(-1)


def twice(h, source, target):
    for _ in range(2):
        h = torch.zeros_like(h).index_add(0, target, h[source])
    return h


CARRIES: dict[str, Carry] = {
    "mean": Carry(lambda h: h.mean(1)),
    "mean that keeps the axis": Carry(lambda h: h.mean(1, keepdim=True)),
    "sum": Carry(lambda h: h.sum(1)),
    "cumulative sum": Carry(lambda h: h.cumsum(1)),
    "roll": Carry(lambda h: h.roll(2, 1)),
    "flip": Carry(lambda h: h.flip(1)),
    "repeat_interleave": Carry(lambda h: h[:, :4].repeat_interleave(3, 1)),
    "windows": Carry(lambda h: h.unfold(1, 4, 2).mean(-1)),
    "adaptive pooling": Carry(lambda h: F.adaptive_avg_pool1d(h.mT, 3).mT),
    "pooling": Carry(lambda h: F.avg_pool1d(h.mT, 4, 2).mT),
    "pooling that counts its padding": Carry(lambda h: F.avg_pool1d(h.mT, 4, 2, padding=1).mT),
    "interpolation": Carry(lambda h: F.interpolate(h.mT, scale_factor=2, mode="linear").mT),
    "nearest": Carry(lambda h: F.interpolate(h.mT, scale_factor=2.0).mT),
    "padding": Carry(lambda h: F.pad(h, (0, 0, 1, 2))),
    "bilinear": images(lambda h: F.interpolate(h, scale_factor=2, mode="bilinear")),
    "sampling on a grid": images(
        lambda h, grid: F.grid_sample(h, grid, align_corners=False), lambda: torch.rand(2, 5, 7, 2) * 2 - 1
    ),
    "pixel shuffle of other axes": Carry(
        lambda h: F.pixel_shuffle(h.permute(3, 0, 1, 2), 2).permute(1, 2, 3, 0), (4, 3, 3)
    ),
    "pixel unshuffle of other axes": Carry(
        lambda h: F.pixel_unshuffle(h.permute(3, 0, 1, 2), 2).permute(1, 2, 3, 0), (3, 4, 4)
    ),
    "channel shuffle of another axis": Carry(lambda h: F.channel_shuffle(h.unsqueeze(2), 4).squeeze(2)),
    "mask": Carry(lambda h, m: h * m.unsqueeze(-1), beside=lambda: (mask(3, 20),)),
    "masked fill": Carry(
        lambda h, m: h.masked_fill(m.unsqueeze(-1) == 0, 0.0), beside=lambda: (mask(3, 20),)
    ),
    "where": Carry(
        lambda h, m: torch.where(m.unsqueeze(-1) > 0, h, torch.zeros_like(h)), beside=lambda: (mask(3, 20),)
    ),
    "where not": Carry(lambda h, m: torch.where(m[..., None] > 0, 0.0, h), beside=lambda: (mask(3, 20),)),
    "masked mean": Carry(
        lambda h, m: (h * m.unsqueeze(-1)).sum(1) / m.sum(1, keepdim=True), beside=lambda: (mask(3, 20),)
    ),
    "count": Carry(lambda h, n: h.sum(1) / n, beside=lambda: (torch.rand(3, 1) + 1,)),
    "a number at run time": Carry(lambda h, n: h * n, beside=lambda: (torch.rand(()) + 1,)),
    "attentive pooling": Carry(
        lambda h, s: (s.softmax(1).unsqueeze(-1) * h).sum(1), beside=lambda: (torch.randn(3, 20),)
    ),
    "attentive pooling by a product": Carry(
        lambda h, s: (s.softmax(1).unsqueeze(1) @ h).squeeze(1), beside=lambda: (torch.randn(3, 20),)
    ),
    "attention weights": Carry(lambda h, a: a.softmax(-1) @ h, beside=lambda: (torch.randn(3, 20, 20),)),
    "attention weights by bmm": Carry(
        lambda h, a: torch.bmm(a.softmax(-1), h), beside=lambda: (torch.randn(3, 20, 20),)
    ),
    "attention weights by einsum": Carry(
        lambda h, a: torch.einsum("bqk,bkf->bqf", a, h), beside=lambda: (torch.randn(3, 7, 20),)
    ),
    "einsum with dots": Carry(
        lambda h, a: torch.einsum("...kf,...k->...f", h, a), beside=lambda: (torch.randn(3, 20),)
    ),
    "transposed from the right": Carry(lambda h, a: (h.mT @ a).mT, beside=lambda: (torch.randn(3, 20, 7),)),
    "adjacency": Carry(lambda h, a: a @ h, (NODES,), lambda: (torch.rand(NODES, NODES),)),
    "adjacency by mm": Carry(lambda h, a: torch.mm(a, h), (NODES,), lambda: (torch.rand(NODES, NODES),)),
    "adjacency by einsum": Carry(
        lambda h, a: torch.einsum("ij,jf->if", a, h), (NODES,), lambda: (torch.rand(NODES, NODES),)
    ),
    "adjacency twice": Carry(lambda h, a: a @ (a @ h), (NODES,), lambda: (torch.rand(NODES, NODES),)),
    "a batch of graphs": Carry(lambda h, a: a @ h, beside=lambda: (torch.rand(20, 20),)),
    "index_select": Carry(lambda h, i: h.index_select(0, i), (NODES,), lambda: (indices(NODES, 5),)),
    "index": Carry(lambda h, i: h[:, i], beside=lambda: (indices(20, 7),)),
    "two indices": Carry(lambda h, i, j: h[i, j], beside=lambda: (indices(3, 9), indices(20, 9))),
    "gather": Carry(
        lambda h, i: h.gather(1, i.unsqueeze(-1).expand(-1, -1, h.shape[-1])),
        beside=lambda: (indices(20, 3, 4),),
    ),
    "table at run time": Carry(lambda h, i: F.embedding(i, h), (NODES,), lambda: (indices(NODES, 3, 5),)),
    "index_add": edges(lambda h, s, t: torch.zeros_like(h).index_add(0, t, h[s])),
    "index_add, then again": edges(twice),
    "zeros of sizes": edges(lambda h, s, t: add(h, h[s], t)),
    "scatter_add": edges(scatter),
    "scatter_reduce with a sum": edges(scatter_reduced("sum")),
    "scatter_reduce with a mean": edges(scatter_reduced("mean")),
    "scatter_reduce with a mean of these": edges(scatter_reduced("mean", include_self=False)),
    "index_put": edges(put),
    "weighted edges": edges(normalised, lambda: torch.rand(EDGES)),
    "mean of neighbours": edges(mean_of_neighbours),
    "sum of segments, one of them empty": Carry(
        lambda h, n: torch.segment_reduce(h, "sum", lengths=n), (NODES,), lambda: (torch.tensor([3, 0, 9]),)
    ),
    "mean of segments": Carry(
        lambda h, n: torch.segment_reduce(h, "mean", lengths=n), (NODES,), lambda: (torch.tensor([3, 4, 5]),)
    ),
    "segments by where they begin": Carry(
        lambda h, n: torch.segment_reduce(h, "mean", offsets=n), (NODES,), lambda: (torch.tensor([0, 7, 12]),)
    ),
}

# What looks like it and is none: a map on one side of it must not be taken to the other.
LOOK_ALIKES: dict[str, Carry] = {
    "a mask of features": Carry(lambda h, m: h * m, beside=lambda: (mask(3, 20, WIDTH),)),
    "filled with ones": Carry(
        lambda h, m: h.masked_fill(m.unsqueeze(-1) == 0, 1.0), beside=lambda: (mask(3, 20),)
    ),
    "where with something else": Carry(
        lambda h, m: torch.where(m.unsqueeze(-1) > 0, h, torch.ones_like(h)), beside=lambda: (mask(3, 20),)
    ),
    "divided by": Carry(lambda h, m: m.unsqueeze(-1) / h, beside=lambda: (mask(3, 20),)),
    "its own scale": Carry(lambda h: h * h.amax(-1, keepdim=True)),
    "its own scores": Carry(lambda h: (h @ h.mT) @ torch.ones(20, WIDTH)),
    "indices of each feature": Carry(lambda h, i: h.gather(1, i), beside=lambda: (indices(20, 3, 4, WIDTH),)),
    "added to ones": edges(lambda h, s, t: torch.ones_like(h).index_add(0, t, h[s])),
    "the largest neighbour": edges(scatter_reduced("amax")),
    "put over each other": edges(lambda h, s, t: torch.zeros_like(h).index_put((t,), h[s])),
    "the largest of each segment": Carry(
        lambda h, n: torch.segment_reduce(h, "max", lengths=n), (NODES,), lambda: (torch.tensor([3, 4, 5]),)
    ),
    "segments that begin with something": Carry(
        lambda h, n: torch.segment_reduce(h, "sum", lengths=n, initial=1.0),
        (NODES,),
        lambda: (torch.tensor([3, 4, 5]),),
    ),
    "cumulative maximum": Carry(lambda h: h.cummax(1)[0]),
}
