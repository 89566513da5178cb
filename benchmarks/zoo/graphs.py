"""Graph networks, written as PyTorch Geometric writes them: messages gathered along edges, weighted and scattered."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stonefx.benchmarks.zoo.sizes import SMALL, Built, Size, build


def scatter(source: Tensor, index: Tensor, count: int, reduce: str = "sum") -> Tensor:
    """Sums or means of rows `[edges, width]` by target node: `[count, width]`."""
    at = index.view(-1, 1).expand_as(source)
    total = source.new_zeros(count, source.shape[1]).scatter_add_(0, at, source)
    if reduce == "sum":
        return total
    edges = source.new_zeros(count).scatter_add_(0, index, source.new_ones(len(index)))
    return total / edges.clamp(min=1).view(-1, 1)


def normalised(edge_index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Edges with self-loops and their symmetric weights (Kipf and Welling 2017): `[2, edges]`, `[edges]`."""
    loops = torch.arange(count, device=edge_index.device)
    edge_index = torch.cat([edge_index, torch.stack([loops, loops])], dim=1)
    row, column = edge_index[0], edge_index[1]
    weight = torch.ones(edge_index.shape[1], device=edge_index.device)
    degree = weight.new_zeros(count).scatter_add_(0, column, weight)
    inverse = degree.pow(-0.5)
    inverse = inverse.masked_fill(inverse == float("inf"), 0)
    return edge_index, inverse[row] * weight * inverse[column]


def propagate(x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
    """One step of message passing over nodes `[nodes, width]`."""
    messages = weight.view(-1, 1) * x.index_select(0, edge_index[0])
    return scatter(messages, edge_index[1], x.shape[0])


class GcnConvolution(nn.Module):
    """`A (X W) + b`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin = nn.Linear(inputs, outputs, bias=False)
        self.bias = nn.Parameter(torch.randn(outputs) / 10)

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        """`[nodes, inputs]` to `[nodes, outputs]`."""
        return propagate(self.lin(x), edge_index, weight) + self.bias


class Gcn(nn.Module):
    """Two graph convolutions (Kipf and Welling 2017), with or without the activation between."""

    def __init__(self, inputs: int, hidden: int, classes: int, activation: bool = True) -> None:
        super().__init__()
        self.first, self.second = GcnConvolution(inputs, hidden), GcnConvolution(hidden, classes)
        self.activation = nn.ReLU() if activation else nn.Identity()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Nodes `[nodes, inputs]` and edges `[2, edges]` to scores `[nodes, classes]`."""
        edge_index, weight = normalised(edge_index, x.shape[0])
        hidden = self.activation(self.first(x, edge_index, weight))
        return self.second(hidden, edge_index, weight)


class Sgc(nn.Module):
    """Propagation steps, then one linear map (Wu et al. 2019)."""

    def __init__(self, inputs: int, classes: int, steps: int = 3) -> None:
        super().__init__()
        self.steps, self.lin = steps, nn.Linear(inputs, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Nodes `[nodes, inputs]` and edges `[2, edges]` to scores `[nodes, classes]`."""
        edge_index, weight = normalised(edge_index, x.shape[0])
        for _ in range(self.steps):
            x = propagate(x, edge_index, weight)
        return self.lin(x)


class SageConvolution(nn.Module):
    """`mean of the neighbours, through one map, and the node, through another` (Hamilton et al. 2017)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin_l, self.lin_r = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """`[nodes, inputs]` to `[nodes, outputs]`."""
        mean = scatter(x.index_select(0, edge_index[0]), edge_index[1], x.shape[0], "mean")
        return self.lin_l(mean) + self.lin_r(x)


class Sage(nn.Module):
    """Two such layers."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = SageConvolution(inputs, hidden), SageConvolution(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Nodes `[nodes, inputs]` and edges `[2, edges]` to scores `[nodes, classes]`."""
        return self.second(self.first(x, edge_index).relu(), edge_index)


class Appnp(nn.Module):
    """Two layers, then personalised propagation (Gasteiger et al. 2019)."""

    def __init__(self, inputs: int, hidden: int, classes: int, steps: int = 10, alpha: float = 0.1) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(inputs, hidden), nn.Linear(hidden, classes)
        self.steps, self.alpha = steps, alpha

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Nodes `[nodes, inputs]` and edges `[2, edges]` to scores `[nodes, classes]`."""
        edge_index, weight = normalised(edge_index, x.shape[0])
        start = x = self.lin2(self.lin1(x).relu())
        for _ in range(self.steps):
            x = propagate(x, edge_index, weight) * (1 - self.alpha) + self.alpha * start
        return x


def random_graph(nodes: int, edges: int, width: int) -> tuple[Tensor, Tensor]:
    """Features `[nodes, width]` and edges `[2, edges]` of a fixed random graph."""
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(nodes, width, generator=generator),
        torch.randint(0, nodes, (2, edges), generator=generator),
    )


def _inputs(size: Size) -> dict[str, Tensor]:
    nodes = 16 * size.length
    x, edge_index = random_graph(nodes, 8 * nodes, 2 * size.hidden)
    return {"x": x, "edge_index": edge_index}


def gcn(size: Size = SMALL) -> Built:
    return build(Gcn, 2 * size.hidden, size.hidden, size.hidden // 4), _inputs(size)


def sgc(size: Size = SMALL) -> Built:
    return build(Sgc, 2 * size.hidden, size.hidden // 4), _inputs(size)


def graphsage(size: Size = SMALL) -> Built:
    return build(Sage, 2 * size.hidden, size.hidden, size.hidden // 4), _inputs(size)


def appnp(size: Size = SMALL) -> Built:
    return build(Appnp, 2 * size.hidden, size.hidden, size.hidden // 4), _inputs(size)
