"""Models to save, with a call of each; importable by another process."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from stonefx.geometry import poincare

Call = tuple[tuple[Any, ...], dict[str, Any]]


def chain(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths))).eval()


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclass
class Batch:
    x: torch.Tensor
    scale: float = 1.0
    extra: dict[str, torch.Tensor] | None = None


class Chained(nn.Module):
    """A chain and a ReLU, in a forward that a subclass chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = chain(8, 64, 8)
        self.register_buffer("offset", torch.ones(8))

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layers(x)) + self.offset


class Positional(Chained):
    def forward(
        self, x: torch.Tensor, y: torch.Tensor, flag: bool = True, *, scale: float = float("inf")
    ) -> torch.Tensor:
        return self.run(x) + (y if flag else -y) / scale


class Variadic(Chained):
    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        return sum((self.run(x) for x in args), kwargs["y"])


class Structured(Chained):
    def forward(self, batch: Batch, pairs: list[tuple[torch.Tensor, ...]]) -> dict[str, Any]:
        assert batch.extra is not None
        result = Batch(self.run(batch.x) * batch.scale, 2.0, {"same": batch.extra["y"]})
        return {
            "batch": result,
            "pair": Pair(self.run(pairs[0][1]), self.offset),
            "type": torch.float32,
            "no": None,
        }


class Hyperbolic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.full((8,), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return poincare.logmap0(poincare.mobius_add(poincare.expmap0(x, c=1.0), self.shift, c=1.0), c=1.0)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        self.layers = chain(8, 64, 8)
        self.head = nn.Linear(8, 16, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        # The table behind a function, so that it is no part of a fold.
        return self.head(torch.relu(self.layers(torch.tanh(self.embedding(ids)))))


class Buffers(nn.Module):
    """Buffers that are saved, one that is not, a plain tensor, and a convolution in channels-last order."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(8)
        self.register_buffer("scratch", torch.full((8, 1, 1), 2.0), persistent=False)
        self.constant = torch.full((8, 1, 1), 3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(x)).relu() * self.scratch + self.constant


class Modes(Chained):
    """Grad mode and autocast switched on the way."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            first = self.run(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            second = x @ torch.ones(8, 8)
        return first + x, second


class Cubed(torch.autograd.Function):
    """With a gradient of its own, which is not that of its forward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 5 * grad * x


class Bodies(Chained):
    """A custom function, a checkpoint and a branch on data: graphs inside of the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = Cubed.apply(self.run(x))
        z = torch.utils.checkpoint.checkpoint(torch.tanh, y, use_reentrant=False)
        return torch.cond(z.sum() > 0, lambda z: z + 1, lambda z: z - 1, (z,))


class Sizes(Chained):
    """Sizes that are computed, compared and returned in shapes; an argument that nothing reads; names of builtins."""

    def forward(
        self, x: torch.Tensor, len: list[torch.Tensor], max: torch.Tensor, type: float = 2.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.run(x)
        if x.shape[0] * 2 > 5:
            y = y * type
        return y.reshape(x.shape[0] * 4, -1) + len[0], x.new_ones(x.shape[0] + 3, x.shape[0] // 2)


class Deciding(Chained):
    """Branches on its own buffers, as layers over a learned curvature do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("k", torch.ones(()))
        self.register_buffer("zero", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(self.run(x))
        if torch.all(self.k > 0) and torch.allclose(self.zero, self.zero.abs(), atol=1e-3):
            y = torch.exp(y * self.k + self.zero.sum())
        return y if self.k.item() > 0.5 else -y


class Asking(Chained):
    """Asks of its argument what decides nothing about sizes, and returns sizes and numbers."""

    def forward(self, x: torch.Tensor) -> tuple[Any, ...]:
        y = self.run(x) if x.is_contiguous() and self.layers[0].weight.requires_grad else x
        return y + 1 if isinstance(x, nn.Parameter) else y, x.shape, {"rows": x.shape[0]}, x.mT, self.offset


def x(batch: int, width: int = 8) -> torch.Tensor:
    return torch.randn(batch, width)


@dataclass(frozen=True)
class Case:
    """A model, its call for a batch size, and what runs it."""

    make: Callable[[], nn.Module]
    call: Callable[[int], Call]
    inner: str = "eager"
    train: bool = False
    batches: tuple[int, ...] = (4, 1, 7)


CASES = {
    "chain": Case(lambda: chain(128, 256, 128, 64, 32), lambda b: ((x(b, 128),), {})),
    "bfloat16": Case(lambda: chain(8, 64, 8).bfloat16(), lambda b: ((x(b).bfloat16(),), {})),
    "positional": Case(Positional, lambda b: ((x(b), x(b)), {"scale": 2.0})),
    "keywords": Case(Positional, lambda b: ((), {"y": x(b), "x": x(b), "flag": False})),
    "variadic": Case(Variadic, lambda b: ((x(b), x(b)), {"y": x(b)})),
    "structured": Case(Structured, lambda b: ((Batch(x(b), 3.0, {"y": x(b)}), [(x(b), x(b))]), {})),
    "hyperbolic": Case(Hyperbolic, lambda b: ((x(b),), {}), batches=(4, 2, 7)),
    "tied": Case(Tied, lambda b: ((torch.randint(0, 16, (b, 5)),), {})),
    "buffers": Case(Buffers, lambda b: ((torch.randn(b, 3, 8, 8),), {})),
    "training": Case(Buffers, lambda b: ((torch.randn(b, 3, 8, 8),), {}), train=True),
    "modes": Case(Modes, lambda b: ((x(b),), {})),
    "asking": Case(Asking, lambda b: ((x(b),), {})),
    "deciding": Case(Deciding, lambda b: ((x(b),), {})),
    "bodies": Case(Bodies, lambda b: ((x(b),), {})),
    "sizes": Case(Sizes, lambda b: ((x(b), [torch.ones(2)], x(b)), {}), batches=(4, 3, 16)),
    "aot_sizes": Case(
        Sizes, lambda b: ((x(b), [torch.ones(2)], x(b)), {}), inner="aot_eager", batches=(4, 3, 16)
    ),
    "aot_bodies": Case(Bodies, lambda b: ((x(b),), {}), inner="aot_eager"),
    "aot_eager": Case(Positional, lambda b: ((x(b), x(b)), {}), inner="aot_eager"),
}


class Branching(nn.Module):
    """Cannot be captured whole: it asks for a value."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first = chain(8, width, 8)
        self.second = chain(8, width, 8)
        self.scale = nn.Parameter(torch.ones(8))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.first(x) * self.scale if x.sum().item() > 0 else self.second(x)
