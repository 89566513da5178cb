"""Regions with a product of run-time values between the maps: graphs, attentive pooling, masked means."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stonefx.benchmarks.zoo.graphs import Gcn, Sgc, normalised, propagate, random_graph

Made = tuple[nn.Module, tuple[Any, ...]]


def sgc_of_ten_thousand() -> Made:
    """Three propagation steps, then 256 -> 64, on 10,000 nodes and 100,000 edges."""
    torch.manual_seed(0)
    return Sgc(256, 64).eval(), random_graph(10_000, 100_000, 256)


class SgcByHand(nn.Module):
    """The map first, where the rows are narrow."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.lin, self.steps = model.lin, model.steps

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Nodes `[nodes, inputs]` and edges `[2, edges]` to scores `[nodes, classes]`."""
        edge_index, weight = normalised(edge_index, x.shape[0])
        x = F.linear(x, self.lin.weight)
        for _ in range(self.steps):
            x = propagate(x, edge_index, weight)
        return x + self.lin.bias


def gcn_without_activation() -> Made:
    """Two graph convolutions 256 -> 256 -> 64 with nothing between, on the same graph."""
    torch.manual_seed(0)
    return Gcn(256, 256, 64, activation=False).eval(), random_graph(10_000, 100_000, 256)


class GcnByHand(nn.Module):
    """One map, two propagation steps, and the first bias by the weights that reach a node."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        first, second = model.first, model.second
        with torch.no_grad():
            wide = second.lin.weight.double()
            self.weight = nn.Parameter((wide @ first.lin.weight.double()).float())
            self.inner, self.bias = nn.Parameter((wide @ first.bias.double()).float()), second.bias

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Nodes `[nodes, inputs]` and edges `[2, edges]` to scores `[nodes, classes]`."""
        edge_index, weight = normalised(edge_index, x.shape[0])
        reached = x.new_zeros(x.shape[0]).scatter_add_(0, edge_index[1], weight)
        x = propagate(propagate(F.linear(x, self.weight), edge_index, weight), edge_index, weight)
        return x + reached[:, None] * self.inner + self.bias


class AttentivePooling(nn.Module):
    """Tokens mapped, averaged with learned weights, and classified, as behind speech and text encoders."""

    def __init__(self, width: int = 768, inner: int = 256, classes: int = 32) -> None:
        super().__init__()
        self.projector, self.classifier = nn.Linear(width, inner), nn.Linear(inner, classes)
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[batch, length, width]`, mask `[batch, length]` to scores `[batch, classes]`."""
        scores = self.score(x).squeeze(-1).masked_fill(mask == 0, float("-inf"))
        weight = torch.softmax(scores, dim=-1)
        return self.classifier((weight.unsqueeze(-1) * self.projector(x)).sum(dim=1))


class MaskedMean(nn.Module):
    """Tokens mapped, averaged over those that are there, and classified."""

    def __init__(self, width: int = 768, inner: int = 256, classes: int = 32) -> None:
        super().__init__()
        self.projector, self.classifier = nn.Linear(width, inner), nn.Linear(inner, classes)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[batch, length, width]`, mask `[batch, length]` to scores `[batch, classes]`."""
        there = mask.unsqueeze(-1).to(x.dtype)
        mean = (self.projector(x) * there).sum(dim=1) / there.sum(dim=1).clamp(min=1e-9)
        return self.classifier(mean)


def _tokens() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(60, 129, (16,), generator=generator)
    return torch.randn(16, 128, 768, generator=generator), (torch.arange(128) < lengths[:, None]).long()


def attentive_pooling() -> Made:
    """16 sentences of up to 128 tokens."""
    torch.manual_seed(0)
    return AttentivePooling().eval(), _tokens()


def masked_mean() -> Made:
    """16 sentences of up to 128 tokens."""
    torch.manual_seed(0)
    return MaskedMean().eval(), _tokens()


class _Merged(nn.Module):
    """Projector and classifier as one map; its bias is scaled by what the weights of the tokens add up to."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        with torch.no_grad():
            wide = model.classifier.weight.double()
            self.weight = nn.Parameter((wide @ model.projector.weight.double()).float())
            self.inner = nn.Parameter((wide @ model.projector.bias.double()).float())
        self.bias = model.classifier.bias


class AttentivePoolingByHand(_Merged):
    """Tokens averaged first: the weights add up to one."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.score = model.score

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """As `AttentivePooling`."""
        scores = self.score(x).squeeze(-1).masked_fill(mask == 0, float("-inf"))
        pooled = torch.bmm(torch.softmax(scores, dim=-1).unsqueeze(1), x).squeeze(1)
        return F.linear(pooled, self.weight, self.inner + self.bias)


class MaskedMeanByHand(_Merged):
    """Tokens averaged first."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """As `MaskedMean`."""
        there = mask.unsqueeze(-1).to(x.dtype)
        count = there.sum(dim=1)
        share = 1 / count.clamp(min=1e-9)
        mean = torch.bmm(there.mT, x).squeeze(1) * share
        return F.linear(mean, self.weight, self.bias) + (count * share) * self.inner
