"""Words of a taxonomy as points of the Klein ball, against the same model in Euclidean space.

    python examples/klein_hierarchy.py

A tree with the shape of a noun hierarchy is generated; both models learn, at equal dimension, which words are
neighbours in it and to which topic a bag of words belongs. Printed is the mean average precision with which the
neighbours of each word are its nearest points, and the accuracy of the topics.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

import stonefx
from stonefx.geometry import poincare


@dataclass(frozen=True)
class Taxonomy:
    """A tree of words: the parent of each (the root is its own) and its topic, the child of the root above it."""

    parents: Tensor
    topics: Tensor
    adjacent: Tensor

    @property
    def words(self) -> int:
        """How many there are."""
        return len(self.parents)


def generate(words: int = 300, topics: int = 5, seed: int = 0) -> Taxonomy:
    """Grow a tree by giving a word 1 to 6 children, most of them few, breadth first.

    >>> tree = generate(words=20)
    >>> tree.words, int(tree.adjacent.sum())
    (20, 38)
    """
    rng = random.Random(seed)
    parents, topic_of, queue = [0], [0], [0]
    while len(parents) < words:
        node = queue.pop(0)
        children = topics if node == 0 else rng.choice((1, 2, 2, 3, 4, 6))
        for _ in range(min(children, words - len(parents))):
            child = len(parents)
            parents.append(node)
            topic_of.append(child - 1 if node == 0 else topic_of[node])
            queue.append(child)
    parent = torch.tensor(parents)
    adjacent = torch.zeros(words, words, dtype=torch.bool)
    adjacent[torch.arange(1, words), parent[1:]] = True
    return Taxonomy(parent, torch.tensor(topic_of), adjacent | adjacent.t())


class KleinHierarchicalModel(nn.Module):
    """Embedding in the Klein ball, Klein layers, Einstein midpoint of the words, classifier of its tangent vector.

    Args:
        vocabulary: number of words.
        dim: dimension of the ball.
        classes: number of topics.
        layers: how many `stonefx.nn.KleinLayer`.
        curvature: of the ball.
    """

    def __init__(
        self, vocabulary: int, dim: int, classes: int, layers: int = 2, curvature: float = 1.0
    ) -> None:
        super().__init__()
        self.curvature = curvature
        self.tangents = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.tangents.weight, std=0.01)
        self.layers = nn.Sequential(*(stonefx.nn.KleinLayer(dim, dim, curvature) for _ in range(layers)))
        self.classifier = nn.Linear(dim, classes)

    def points(self, words: Tensor) -> Tensor:
        """The words `[*batch]` as points of the Klein ball, `[*batch, dim]`."""
        return poincare.expmap0(self.tangents(words), self.curvature)

    def distances(self) -> Tensor:
        """The distances of all words, `[vocabulary, vocabulary]`: those of the Poincaré ball, which is isometric."""
        points = poincare.expmap0(0.5 * self.tangents.weight, self.curvature)
        return poincare.cdist(points, points, self.curvature)

    def forward(self, words: Tensor) -> Tensor:
        """The scores `[batch, classes]` of bags of words `[batch, length]`."""
        hidden = self.layers(self.points(words))
        gamma = (1 - self.curvature * hidden.square().sum(-1, keepdim=True)).rsqrt()
        midpoint = (gamma * hidden).sum(-2) / gamma.sum(-2)
        return self.classifier(poincare.logmap0(midpoint, self.curvature))


class EuclideanTwin(nn.Module):
    """The same model in flat space: linear layers, plain mean, Euclidean distance."""

    def __init__(self, vocabulary: int, dim: int, classes: int, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.embedding.weight, std=0.01)
        self.layers = nn.Sequential(*(nn.Linear(dim, dim) for _ in range(layers)))
        self.classifier = nn.Linear(dim, classes)

    def distances(self) -> Tensor:
        """The distances of all words, `[vocabulary, vocabulary]`."""
        points = self.embedding.weight
        squares = (points[:, None] - points).square().sum(-1)
        return (squares + 1e-12).sqrt()

    def forward(self, words: Tensor) -> Tensor:
        """The scores `[batch, classes]` of bags of words `[batch, length]`."""
        return self.classifier(self.layers(self.embedding(words)).mean(-2))


def reconstruction_loss(distances: Tensor, adjacent: Tensor) -> Tensor:
    """Each neighbour against all words that are none, as a softmax of distances (Nickel and Kiela 2017)."""
    others = distances.masked_fill(adjacent | torch.eye(len(adjacent), dtype=torch.bool), float("inf"))
    far = torch.logsumexp(-others, -1, keepdim=True).expand_as(distances)
    return (distances + torch.logaddexp(far, -distances))[adjacent].mean()


def mean_average_precision(distances: Tensor, adjacent: Tensor) -> float:
    """How early the neighbours of a word come among all others sorted by distance; 1 is a perfect reconstruction.

    >>> line = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    >>> mean_average_precision(line, line == 1)
    1.0
    """
    hidden = distances.detach().clone().fill_diagonal_(float("inf"))
    hits = adjacent.gather(1, hidden.argsort(1))
    precision = hits.cumsum(1) / torch.arange(1, len(hits) + 1)
    return ((precision * hits).sum(1) / hits.sum(1)).mean().item()


def bags(tree: Taxonomy, count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bags of words of one topic each, `[count, length]`, and their topics, `[count]`."""
    topics = torch.randint(int(tree.topics.max()) + 1, (count,), generator=generator)
    chance = (tree.topics == topics[:, None]).float()
    chance[:, 0] = 0
    return torch.multinomial(chance, length, replacement=True, generator=generator), topics


def train(model: nn.Module, tree: Taxonomy, steps: int = 600, seed: int = 0) -> tuple[float, float]:
    """Learn the tree and the topics together; mean average precision, and accuracy on fresh bags."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        words, topics = bags(tree, 64, 8, generator)
        optimizer.zero_grad()
        loss = reconstruction_loss(model.distances(), tree.adjacent)
        loss = loss + 0.1 * functional.cross_entropy(model(words), topics)
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        words, topics = bags(tree, 512, 8, generator)
        accuracy = (model(words).argmax(-1) == topics).float().mean().item()
        return mean_average_precision(model.distances(), tree.adjacent), accuracy


def compare(
    dim: int = 4, words: int = 300, steps: int = 600, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Train both models; their mean average precision and accuracy by name."""
    tree = generate(words, seed=seed)
    classes = int(tree.topics.max()) + 1
    results = {}
    for name, kind in (("Klein", KleinHierarchicalModel), ("Euclidean", EuclideanTwin)):
        torch.manual_seed(seed)
        results[name] = train(kind(words, dim, classes), tree, steps, seed)
    return results


if __name__ == "__main__":
    for model_name, (precision, accuracy) in compare().items():
        print(f"{model_name:10} mean average precision {precision:.3f}, topics {100 * accuracy:.1f} %")
