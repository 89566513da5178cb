"""Models in the code that goes from paper to paper and is no package: reached by recognition alone.

Each is written down from its published definition, with the guards that its code has.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import stonefx
from stonefx.benchmarks.case import Arm, Case, Planned, Subject

Made = tuple[nn.Module, tuple[Tensor, ...]]


def squares(x: Tensor) -> Tensor:
    """The square of each row's norm."""
    return x.pow(2).sum(dim=-1, keepdim=True)


class Artanh(torch.autograd.Function):
    """artanh with a gradient of its own, as most of these papers have it."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        """The clamped logarithm."""
        x = x.clamp(-1 + 1e-5, 1 - 1e-5)
        ctx.save_for_backward(x)
        return (torch.log_(1 + x).sub_(torch.log_(1 - x))).mul_(0.5)

    @staticmethod
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        """That of artanh, past the clamp too."""
        (x,) = ctx.saved_tensors
        return grad_output / (1 - x**2)


def artanh(x: Tensor) -> Tensor:
    """Apply `Artanh`."""
    found: Tensor = Artanh.apply(x)
    return found


def expmap0(u: Tensor, c: float) -> Tensor:
    """From the tangent space at the origin."""
    n = u.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-5)
    return (c**0.5 * n).clamp(-15, 15).tanh() * u / (c**0.5 * n)


def logmap0(y: Tensor, c: float) -> Tensor:
    """To the tangent space at the origin."""
    n = y.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-5)
    return y / n / c**0.5 * artanh(c**0.5 * n)


def project(x: Tensor, c: float) -> Tensor:
    """Into the ball."""
    norm = x.norm(dim=-1, keepdim=True, p=2).clamp_min(1e-5)
    most = (1 - 1e-3) / c**0.5
    return torch.where(norm > most, x / norm * most, x)


def mobius_add(x: Tensor, y: Tensor, c: float) -> Tensor:
    """The Möbius sum."""
    x2, y2, xy = squares(x), squares(y), (x * y).sum(dim=-1, keepdim=True)
    num = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
    return num / (1 + 2 * c * xy + c**2 * x2 * y2 + 1e-5)


def sum_of_pairs(x: Tensor, y: Tensor, c: float) -> Tensor:
    """The Möbius sums of all pairs of rows."""
    xy = torch.einsum("ij,kj->ik", (x, y))
    x2, y2 = squares(x), squares(y)
    num = (1 + 2 * c * xy + c * y2.permute(1, 0)).unsqueeze(2) * x.unsqueeze(1)
    num = num + (1 - c * x2).unsqueeze(2) * y
    return num / ((1 + 2 * c * xy + c**2 * x2 * y2.permute(1, 0)).unsqueeze(2) + 1e-5)


class DistanceMatrix(nn.Module):
    """Hyperbolic image embeddings: distances of all pairs."""

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = c

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """`[n, d], [m, d]` to `[n, m]`."""
        root = self.c**0.5
        return 2 / root * artanh(root * torch.norm(sum_of_pairs(-x, y, self.c), dim=-1))


class Head(nn.Module):
    """Hyperbolic image embeddings: features to the ball and scores of classes there."""

    def __init__(self, features: int, dim: int, classes: int, c: float) -> None:
        super().__init__()
        self.linear = nn.Linear(features, dim)
        self.points = nn.Parameter(torch.randn(classes, dim) / dim**0.5)
        self.normals = nn.Parameter(torch.randn(classes, dim) / dim**0.5)
        self.c = c

    def forward(self, x: Tensor) -> Tensor:
        """`[n, features]` to `[n, classes]`."""
        c, p = self.c, expmap0(self.points, self.c)
        x = project(expmap0(self.linear(x), c), c)
        a = self.normals * (1 - c * squares(p))
        k = 2 / (1 - c * p.pow(2).sum(dim=1)) * torch.norm(a, dim=1) / c**0.5
        d = sum_of_pairs(-p, x, c)
        num = 2 * c**0.5 * torch.sum(d * a.unsqueeze(1), dim=-1)
        z = num / (torch.norm(a, dim=1, keepdim=True) * (1 - c * d.pow(2).sum(dim=2)))
        return (k.unsqueeze(1) * (z + torch.sqrt(1 + z.pow(2))).clamp_min(1e-5).log()).permute(1, 0)


class TangentLayers(nn.Module):
    """Layers that work in the tangent space: logarithm, linear map, rectifier, exponential."""

    def __init__(self, dim: int, layers: int, c: float) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))
        self.c = c

    def forward(self, x: Tensor) -> Tensor:
        """Points `[n, d]` to points."""
        for linear in self.linears:
            x = expmap0(F.relu(linear(logmap0(x, self.c))), self.c)
        return x


class GraphConvolutions(nn.Module):
    """HGCN's encoder on the ball, and its decoder."""

    def __init__(self, widths: Sequence[int], classes: int, c: float) -> None:
        super().__init__()
        shapes = list(pairwise(widths))
        self.weights = nn.ParameterList(torch.randn(b, a) / a**0.5 for a, b in shapes)
        self.biases = nn.ParameterList(torch.randn(b) / 10 for _, b in shapes)
        self.decoder = nn.Linear(widths[-1], classes)
        self.c = c

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """`[nodes, features], [nodes, nodes]` to `[nodes, classes]`."""
        c = self.c
        x = project(expmap0(x, c), c)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = project(self.matvec(weight, x), c)
            x = project(mobius_add(x, project(expmap0(bias[None], c), c), c), c)
            x = project(expmap0(adjacency @ logmap0(x, c), c), c)
            x = project(expmap0(F.relu(logmap0(x, c)), c), c)
        return self.decoder(logmap0(x, c))

    def matvec(self, m: Tensor, x: Tensor) -> Tensor:
        """The Möbius product of a matrix and points."""
        root = self.c**0.5
        x_norm = x.norm(dim=-1, keepdim=True, p=2).clamp_min(1e-5)
        mx = x @ m.transpose(-1, -2)
        mx_norm = mx.norm(dim=-1, keepdim=True, p=2).clamp_min(1e-5)
        found = torch.tanh(mx_norm / x_norm * artanh(root * x_norm)) * mx / (mx_norm * root)
        return torch.where((mx == 0).all(-1, keepdim=True), torch.zeros_like(found), found)


class ImagesAndTexts(nn.Module):
    """MERU's loss: contrastive over distances of all pairs, and an entailment of images by texts."""

    def __init__(self, features: int, dim: int, curvature: float) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(features, dim, bias=False), nn.Linear(features, dim, bias=False)
        self.scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.alphas = nn.Parameter(torch.full((2,), dim**-0.5).log())
        self.curvature = curvature

    def lift(self, x: Tensor) -> Tensor:
        """The exponential at the origin, space components alone."""
        rc = self.curvature**0.5 * torch.norm(x, dim=-1, keepdim=True)
        return torch.sinh(torch.clamp(rc, min=1e-8, max=math.asinh(2**15))) * x / torch.clamp(rc, min=1e-8)

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        """Of all pairs."""
        curvature = self.curvature
        x_time, y_time = torch.sqrt(1 / curvature + squares(x)), torch.sqrt(1 / curvature + squares(y))
        inner = x @ y.T - x_time @ y_time.T
        return torch.acosh(torch.clamp(-curvature * inner, min=1 + 1e-8)) / curvature**0.5

    def angles(self, x: Tensor, y: Tensor) -> Tensor:
        """The exterior angle at each `x` of the triangle with `y` and the origin."""
        c = self.curvature
        x_time, y_time = torch.sqrt(1 / c + torch.sum(x**2, -1)), torch.sqrt(1 / c + torch.sum(y**2, -1))
        inner = c * (torch.sum(x * y, dim=-1) - x_time * y_time)
        bottom = torch.norm(x, dim=-1) * torch.sqrt(torch.clamp(inner**2 - 1, min=1e-8)) + 1e-8
        return torch.acos(torch.clamp((y_time + inner * x_time) / bottom, min=-1 + 1e-6, max=1 - 1e-6))

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """Two of `[n, features]` to the loss."""
        images = self.lift(self.image(images) * self.alphas[0].exp())
        texts = self.lift(self.text(texts) * self.alphas[1].exp())
        targets = torch.arange(images.shape[0], device=images.device)
        scale = self.scale.exp()
        contrastive = F.cross_entropy(-scale * self.distances(images, texts), targets)
        contrastive = contrastive + F.cross_entropy(-scale * self.distances(texts, images), targets)
        sine = 0.2 / (torch.norm(texts, dim=-1) * self.curvature**0.5 + 1e-8)
        aperture = torch.asin(torch.clamp(sine, min=-1 + 1e-6, max=1 - 1e-6))
        entailment = torch.clamp(self.angles(texts, images) - aperture, min=0).mean()
        return 0.5 * contrastive + 0.2 * entailment


class HyperboloidBlock(nn.Module):
    """Hypformer's block: linear maps, norm and rectifier on space components, attention by Lorentz products."""

    def __init__(self, dim: int, k: float) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim + 1, dim) for _ in range(3))
        self.norm, self.wide, self.narrow = (
            nn.LayerNorm(dim),
            nn.Linear(dim + 1, 2 * dim),
            nn.Linear(2 * dim + 1, dim),
        )
        self.k = k

    def add_time(self, space: Tensor) -> Tensor:
        """The point above some space components."""
        return torch.cat((torch.sqrt((space**2).sum(dim=-1, keepdim=True) + self.k), space), dim=-1)

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """Lorentz products of all pairs."""
        x = x.clone()
        x.narrow(-1, 0, 1).mul_(-1)
        return x @ y.transpose(-1, -2)

    def forward(self, x: Tensor) -> Tensor:
        """Points `[batch, n, d + 1]` to points."""
        q, k, v = (self.add_time(each(x)) for each in (self.query, self.key, self.value))
        weights = ((2 + 2 * self.inner(q, k)) / q.shape[-1] ** 0.5).softmax(-1)
        mean = weights @ v
        length = (
            (mean[..., 1:].pow(2).sum(-1, keepdim=True) - mean[..., :1].pow(2)).abs().clamp_min(1e-8).sqrt()
        )
        x = self.add_time(self.norm((self.k**0.5 * mean / length)[..., 1:]))
        return self.add_time(self.narrow(self.add_time(self.wide(x).relu())))


class RotatedHierarchies(nn.Module):
    """RotH: scores of triples of a knowledge graph."""

    def __init__(self, entities: int, relations: int, dim: int) -> None:
        super().__init__()
        self.entity, self.relation = nn.Embedding(entities, dim), nn.Embedding(relations, 2 * dim)
        self.rotation, self.curvature = nn.Embedding(relations, dim), nn.Parameter(torch.ones(1))
        with torch.no_grad():
            self.entity.weight.mul_(0.3 / dim**0.5)
            self.relation.weight.mul_(0.3 / dim**0.5)

    def forward(self, triples: Tensor) -> Tensor:
        """`[n, 3]`, of head, relation and tail, to `[n]`."""
        c = F.softplus(self.curvature)
        heads, relations, tails = triples.unbind(1)
        first, second = (self.map(each, c) for each in self.relation(relations).chunk(2, dim=1))
        left = self.map_in(self.add(self.map(self.entity(heads), c), first, c), c)
        given = self.rotation(relations).view(len(heads), -1, 2)
        given = given / given.norm(p=2, dim=-1, keepdim=True).clamp_min(1e-15)
        pairs = left.view(len(heads), -1, 2)
        turned = given[..., :1] * pairs
        turned = turned + given[..., 1:] * torch.cat((-pairs[..., 1:], pairs[..., :1]), dim=-1)
        left = self.add(turned.reshape(len(heads), -1), second, c)
        root = c**0.5
        apart = self.add(-left, self.map(self.entity(tails), c), c).norm(dim=-1, p=2)
        return -((2 / root * artanh(root * apart)) ** 2)

    def map(self, u: Tensor, c: Tensor) -> Tensor:
        """Exponential and projection."""
        n = u.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
        return self.map_in(torch.clamp(c**0.5 * n, -15, 15).tanh() * u / (c**0.5 * n), c)

    def map_in(self, x: Tensor, c: Tensor) -> Tensor:
        """Projection."""
        norm = x.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
        most = (1 - 4e-3) / c**0.5
        return torch.where(norm > most, x / norm * most, x)

    def add(self, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        """Möbius sum."""
        x2, y2, xy = squares(x), squares(y), (x * y).sum(dim=-1, keepdim=True)
        num = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
        return num / (1 + 2 * c * xy + c**2 * x2 * y2).clamp_min(1e-15)


class TreeLoss(nn.Module):
    """Poincaré embeddings of a tree: a child near its parent, and away from others."""

    def __init__(self, nodes: int, dim: int) -> None:
        super().__init__()
        self.nodes = nn.Embedding(nodes, dim)
        with torch.no_grad():
            self.nodes.weight.uniform_(-0.5, 0.5).div_(dim**0.5)

    def forward(self, samples: Tensor) -> Tensor:
        """`[n, 2 + others]`, of child, parent and others, to the loss."""
        points = self.nodes(samples)
        u, v = points[:, :1], points[:, 1:]
        u_squares, v_squares = (torch.clamp(torch.sum(each * each, dim=-1), 0, 1 - 1e-5) for each in (u, v))
        apart = torch.sum(torch.pow(u - v, 2), dim=-1)
        x = apart / ((1 - u_squares) * (1 - v_squares)) * 2 + 1
        distances = torch.log(x + torch.sqrt(torch.pow(x, 2) - 1))
        return F.cross_entropy(-distances, samples.new_zeros(len(samples)))


def in_ball(rows: int, dim: int, c: float) -> Tensor:
    """Points well inside the ball."""
    return project(expmap0(torch.randn(rows, dim) / dim**0.5, c), c)


def graph(nodes: int) -> Tensor:
    """The normalised adjacency of a graph in which new nodes join to old ones at random."""
    import networkx

    joined = networkx.barabasi_albert_graph(nodes, 2, seed=0)
    adjacency = torch.from_numpy(networkx.to_numpy_array(joined)).float() + torch.eye(nodes)
    return adjacency / adjacency.sum(1, keepdim=True)


def head(rows: int, features: int, dim: int, classes: int) -> Made:
    """HIE's head."""
    return Head(features, dim, classes, 0.5), (torch.randn(rows, features),)


def graph_convolutions(nodes: int, features: int, dim: int) -> Made:
    """HGCN on a graph."""
    x = torch.randn(nodes, features) / features**0.5
    return GraphConvolutions((features, dim, dim), 7, 1.0), (x, graph(nodes))


def images_and_texts(rows: int, features: int, dim: int) -> Made:
    """MERU's loss."""
    return ImagesAndTexts(features, dim, 1.0), (torch.randn(rows, features), torch.randn(rows, features))


def hyperboloid_block(batch: int, rows: int, dim: int) -> Made:
    """Hypformer's block."""
    block = HyperboloidBlock(dim, 1.0)
    return block, (block.add_time(torch.randn(batch, rows, dim) / dim**0.5),)


def triples(count: int, entities: int, dim: int) -> Made:
    """RotH's scores."""
    ids = [torch.randint(most, (count,)) for most in (entities, 11, entities)]
    return RotatedHierarchies(entities, 11, dim), (torch.stack(ids, 1),)


def tree(samples: int, nodes: int, dim: int) -> Made:
    """The loss of Poincaré embeddings, ten others to a pair."""
    return TreeLoss(nodes, dim), (torch.randint(nodes, (samples, 12)),)


# Name -> the model at the size that is measured, and at one for tests.
MODELS: dict[str, tuple[Callable[[], Made], Callable[[], Made]]] = {
    "HIE distance matrix 1024 x 1024 x 64": (
        lambda: (DistanceMatrix(0.5), (in_ball(1024, 64, 0.5), in_ball(1024, 64, 0.5))),
        lambda: (DistanceMatrix(0.5), (in_ball(9, 6, 0.5), in_ball(5, 6, 0.5))),
    ),
    "HIE head 512 x 512 -> 64, 100 classes": (
        lambda: head(512, 512, 64, 100),
        lambda: head(7, 10, 6, 5),
    ),
    "four tangent layers 4096 x 256": (
        lambda: (TangentLayers(256, 4, 1.0), (in_ball(4096, 256, 1.0),)),
        lambda: (TangentLayers(6, 4, 1.0), (in_ball(9, 6, 1.0),)),
    ),
    "HGCN 1000 nodes x 256 -> 16": (
        lambda: graph_convolutions(1000, 256, 16),
        lambda: graph_convolutions(12, 10, 6),
    ),
    "MERU loss 512 pairs x 512": (
        lambda: images_and_texts(512, 512, 512),
        lambda: images_and_texts(9, 10, 6),
    ),
    "Hypformer block 8 x 128 x 64": (
        lambda: hyperboloid_block(8, 128, 64),
        lambda: hyperboloid_block(2, 5, 6),
    ),
    "RotH 1000 triples x 32": (lambda: triples(1000, 5000, 32), lambda: triples(9, 20, 6)),
    "Poincaré embeddings 512 samples x 16": (lambda: tree(512, 5000, 16), lambda: tree(9, 20, 6)),
}


def paper_cases(device: str = "cpu") -> Iterator[Planned]:
    """Two cases a model: forward without gradients, and forward with the backward to parameters and points."""
    for name, (make, _) in MODELS.items():
        for grad in (False, True):
            full = f"{name} " + ("forward+backward" if grad else "forward")
            yield Planned(name=full, make=partial(_case, full, make, grad, device))


def _case(name: str, make: Callable[[], Made], grad: bool, device: str) -> Case:
    torch.compiler.reset()
    torch.manual_seed(0)
    model, given = make()
    model, inputs = model.to(device), tuple(each.to(device) for each in given)
    prepare = _training if grad else _inference
    doubled = tuple(each.double() if each.is_floating_point() else each for each in inputs)
    truth = prepare(copy.deepcopy(model).double(), model, doubled)()
    forwards: dict[str, Callable[..., Tensor]] = {
        "eager": model,
        "inductor": torch.compile(model, dynamic=False),
        "compile(stone)": torch.compile(model, dynamic=False, backend="stone"),
    }
    if grad:
        options: dict[str, Any] = {"numerics": "fast"}
        forwards["compile(stone), fast"] = torch.compile(
            model, dynamic=False, backend="stone", options=options
        )
    else:
        forwards["stonefx.optimize"] = stonefx.optimize(model, inputs)
    return Case(
        name=name,
        arms=[Arm(name=key, call=prepare(forward, model, inputs)) for key, forward in forwards.items()],
        truth=truth,
        grad=grad,
        synchronize=torch.cuda.synchronize if device == "cuda" else None,
        subject=Subject(model=model, args=inputs),
    )


Call = Callable[[], Sequence[Tensor]]


def _inference(forward: Callable[..., Tensor], model: nn.Module, inputs: Sequence[Tensor]) -> Call:
    return torch.no_grad()(lambda: [forward(*inputs)])


def _training(forward: Callable[..., Tensor], model: nn.Module, inputs: Sequence[Tensor]) -> Call:
    rows = [each.clone().requires_grad_(each.is_floating_point()) for each in inputs]
    # A module that computes the truth has parameters of its own.
    trained = forward if isinstance(forward, nn.Module) and not hasattr(forward, "_orig_mod") else model
    wanted = [each for each in (*rows, *trained.parameters()) if each.requires_grad]

    def step() -> Sequence[Tensor]:
        y = forward(*rows)
        gradients = torch.autograd.grad(y.sum(), wanted, allow_unused=True)
        return [y.detach(), *(each for each in gradients if each is not None)]

    return step
