"""Modules of two linear layers, each with one thing that makes capture hard."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Pair(nn.Module):
    """Two linear layers, for subclasses to call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)


class Cubed(torch.autograd.Function):
    """A square whose backward is deliberately not its derivative."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 3 * grad * x


class CustomFunction(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(Cubed.apply(self.first(x)))


class Checkpointed(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda y: self.second(torch.tanh(self.first(y))), x, use_reentrant=False) + x


class Autocast(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = self.first(x)
        return self.second(y.float())


class InnerGradient(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.func.grad(lambda y: torch.tanh(self.first(y)).square().sum())(x))


class ForwardMode(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tangent = torch.func.jvp(lambda y: torch.tanh(self.first(y)), (x,), (torch.ones_like(x),))[1]
        return self.second(tangent)


class Vmapped(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(lambda row: self.second(torch.relu(self.first(row))))(x)


class Constants(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale, vector, total = torch.tensor(2.0), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor(0.0)
        total += x.sum()
        vector[0] = 5
        return self.second(self.first(x) * scale * vector + total)


class InPlace(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y.add_(1)
        y.view(-1).mul_(3)
        with torch.no_grad():
            y.mul_(0.5)
        half = x.to(torch.bfloat16)
        half.add_(x)
        return y + self.second(x).relu_() + half


class Conditional(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda a: self.first(a), lambda a: self.second(a), (x,))


class PartlyNoGrad(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = self.first(x)
        return self.second(y + x)


class Dropout(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(nn.functional.dropout(self.first(x), 0.5, self.training))


class BatchNorm(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(self.first(x)))


class TwoLinears(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))
