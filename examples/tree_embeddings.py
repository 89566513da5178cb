"""Points of the Poincaré ball for the nodes of a tree, learnt with geoopt, and faster with stonefx.

    python examples/tree_embeddings.py [--depth 8] [--compile]

The program is one as geoopt's users write it: points on a manifold, distances, a Riemannian optimizer. It runs on
geoopt alone, then inside of `stonefx.accelerate("geoopt")`, and with `--compile` under `torch.compile(backend="stone")`
too. Printed are the time of a step, the loss, and the mean average precision with which the neighbours of a node are
its nearest points.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import geoopt
import torch
from torch import Tensor, nn

import stonefx


def tree(depth: int) -> Tensor:
    """The adjacency of a complete binary tree, `[nodes, nodes]` of truth values.

    >>> tree(2).int()
    tensor([[0, 1, 1],
            [1, 0, 0],
            [1, 0, 0]], dtype=torch.int32)
    """
    nodes = 2**depth - 1
    child = torch.arange(1, nodes)
    adjacent = torch.zeros(nodes, nodes, dtype=torch.bool)
    adjacent[child, (child - 1) // 2] = True
    return adjacent | adjacent.t()


class TreeEmbedding(nn.Module):
    """A point of the ball for each node, and the distances of all pairs of them.

    Args:
        nodes: how many.
        dim: of the ball.
    """

    def __init__(self, nodes: int, dim: int) -> None:
        super().__init__()
        self.ball = geoopt.PoincareBall(1.0)
        self.points = geoopt.ManifoldParameter(
            self.ball.random_normal(nodes, dim, std=0.1), manifold=self.ball
        )

    def forward(self) -> Tensor:
        """`[nodes, nodes]`."""
        return self.ball.dist(self.points[:, None], self.points)


def neighbour_loss(distances: Tensor, adjacent: Tensor) -> Tensor:
    """How improbable a node's neighbours are among all other nodes, at probabilities that fall with the distance."""
    others = distances + torch.diag(torch.full((len(distances),), torch.inf))
    shares = torch.log_softmax(-others, dim=-1).masked_fill(~adjacent, 0.0)
    return -(shares.sum(-1) / adjacent.sum(-1)).mean()


def train(
    model: TreeEmbedding, forward: Callable[[], Tensor], adjacent: Tensor, steps: int
) -> tuple[list[float], float]:
    """The losses, and the seconds of a step; the first one, which may compile, is not timed."""
    optimizer = geoopt.optim.RiemannianAdam(model.parameters(), lr=0.05, stabilize=10)
    losses, begin = [], 0.0
    for step in range(steps + 1):
        if step == 1:
            begin = time.perf_counter()
        optimizer.zero_grad()
        loss = neighbour_loss(forward(), adjacent)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, (time.perf_counter() - begin) / steps


def mean_average_precision(distances: Tensor, adjacent: Tensor) -> float:
    """With which precision the neighbours of a node come first among its nearest points.

    >>> mean_average_precision(torch.tensor([[0.0, 1, 2], [1, 0, 3], [2, 3, 0]]), tree(2))
    1.0
    """
    order = (distances + torch.diag(torch.full((len(distances),), torch.inf))).argsort(dim=-1)
    found = adjacent.gather(1, order).double()
    precision = found.cumsum(-1) / torch.arange(1, len(order) + 1)
    return ((precision * found).sum(-1) / found.sum(-1)).mean().item()


def run(
    depth: int, dim: int, steps: int, compiled: bool, seed: int = 0
) -> dict[str, tuple[list[float], float, float]]:
    """Losses, seconds a step and precision, by what the program ran on."""
    adjacent = tree(depth)
    results = {}

    def measure(name: str, prepare: Callable[[TreeEmbedding], Callable[[], Tensor]]) -> None:
        torch.manual_seed(seed)
        model = TreeEmbedding(len(adjacent), dim)
        losses, seconds = train(model, prepare(model), adjacent, steps)
        with torch.no_grad():
            results[name] = losses, seconds, mean_average_precision(model(), adjacent)

    measure("geoopt", lambda model: model)
    with stonefx.accelerate("geoopt"):
        measure("geoopt accelerated", lambda model: model)
        if compiled:
            measure("accelerated and compiled", lambda model: torch.compile(model, backend="stone"))
    return results


def main() -> None:
    """Run the program on each and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=8, help="of the tree")
    parser.add_argument("--dim", type=int, default=16, help="of the ball")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--compile", action="store_true", help="under torch.compile, too")
    given = parser.parse_args()
    results = run(given.depth, given.dim, given.steps, given.compile)
    baseline = results["geoopt"][1]
    print(f"{'':26}{'ms a step':>10}{'speed-up':>10}{'loss':>8}{'precision':>11}")
    for name, (losses, seconds, precision) in results.items():
        print(f"{name:26}{1e3 * seconds:10.1f}{baseline / seconds:9.1f}x{losses[-1]:8.3f}{precision:11.3f}")


if __name__ == "__main__":
    main()
