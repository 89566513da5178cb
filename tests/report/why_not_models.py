"""Models near those of users, each with one place that is not rewritten; a comment `# here` marks its line."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.testing._internal.two_tensor import TwoTensor


@dataclass(frozen=True)
class Case:
    """A place that is not rewritten.

    Args:
        model: makes the model.
        code: of the refusal; empty where the reason has none.
        says: what the reason, or the note, says, as a regular expression.
        target, status: of the site.
        door: "explain", "optimize" (with `options`), "compile" (with gradients) or "compile without gradients".
        training: the model is in training mode.
        module: the module that the site stands in.
        cure: what the cure says; empty where nothing is to be done.
        example: what the model is called with.
    """

    model: Callable[[], nn.Module]
    code: str
    says: str
    target: str = "linear_chain"
    status: str = "refused"
    door: str = "explain"
    training: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    module: str = ""
    cure: str = ""
    example: Callable[[], Any] = lambda: torch.randn(16, 64)


class Block(nn.Module):
    """Two linear layers; what stands between and around them is each case's own."""

    def __init__(self, middle: int = 96, bias: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(64, middle, bias)
        self.down = nn.Linear(middle, 32, bias)


class Activation(Block):
    def forward(self, x):
        hidden = self.up(x)
        return self.down(F.gelu(hidden))  # here


class Shared(Block):
    def __init__(self) -> None:
        super().__init__(middle=64)

    def forward(self, x):
        hidden = self.up(x)
        return self.down(hidden) * hidden.mean(-1, keepdim=True)  # here


class Returned(Block):
    def __init__(self) -> None:
        super().__init__(middle=64)

    def forward(self, x):
        hidden = self.up(x)
        return self.down(hidden), hidden  # here


class TrainingMode(Block):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        hidden = self.dropout(self.up(x))
        return self.down(hidden)  # here


class Trained(Block):
    def forward(self, x):
        hidden = self.up(x)  # here
        return self.down(hidden)


class Autocast(Block):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.up(x)
            return self.down(hidden)  # here


class DropConnect(nn.Module):
    """A parametrisation that is drawn anew at each call."""

    def forward(self, weight):
        return weight * torch.bernoulli(torch.full_like(weight, 0.9))


class Parametrised(Block):
    def __init__(self) -> None:
        super().__init__()
        parametrize.register_parametrization(self.down, "weight", DropConnect())

    def forward(self, x):
        hidden = self.up(x)
        return self.down(hidden)  # here


class Hypernetwork(Block):
    def __init__(self) -> None:
        super().__init__()
        self.maker = nn.Linear(64, 32 * 96)

    def forward(self, x):
        weight = self.maker(x[0]).view(32, 96)
        hidden = self.up(x)
        return F.linear(hidden, weight)  # here


class Unprofitable(nn.Module):
    """A bottleneck of convolutions: as one it would have many times the work."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(64, 4, 1, bias=False)
        self.wide = nn.Conv2d(4, 64, 3, padding=1, bias=False)

    def forward(self, x):
        narrow = self.narrow(x)  # here
        return self.wide(narrow)


class Kept(Block):
    def forward(self, x):
        hidden = self.up(x)
        return self.down(hidden)  # here


class HalfBetween(Block):
    def __init__(self) -> None:
        super().__init__()
        self.down.double()

    def forward(self, x):
        hidden = self.up(x).double()
        return self.down(hidden)  # here


class WrittenWeight(Block):
    """A weight that decays at each call."""

    def forward(self, x):
        hidden = self.up(x)
        with torch.no_grad():
            self.down.weight.mul_(0.99)
        return self.down(hidden)  # here


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(64, 96, dtype=torch.complex64)
        self.down = nn.Linear(96, 32, dtype=torch.complex64)

    def forward(self, x):
        hidden = self.up(x)
        return self.down(hidden)  # here


class BatchNormTraining(Block):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(96)

    def forward(self, x):
        hidden = self.norm(self.up(x))
        return self.down(hidden)  # here


class FlatParameters(Block):
    """All weights are views of one buffer, which an optimizer writes to."""

    def __init__(self) -> None:
        super().__init__()
        flat = torch.cat([each.detach().flatten() for each in self.parameters()])
        for each in self.parameters():
            each.data, flat = flat[: each.numel()].view_as(each), flat[each.numel() :]

    def forward(self, x):
        hidden = self.up(x)
        return self.down(hidden)  # here


class LayerNorm(Block):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(96)

    def forward(self, x):
        hidden = self.norm(self.up(x))
        return self.down(hidden)  # here


class Padding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 8, 1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        hidden = self.first(x)  # here
        return self.second(hidden)


class Detached(Block):
    def forward(self, x):
        hidden = self.up(x).detach()
        return self.down(hidden)  # here


class NoGrad(Block):
    def forward(self, x):
        with torch.no_grad():
            hidden = self.up(x)  # here
        return self.down(hidden)


class GraphBreak(Block):
    def forward(self, x):
        hidden = self.up(x)
        if hidden.sum() > 0:  # here
            hidden = hidden + 1
        return self.down(hidden)


class DataDependentRows(Block):
    def forward(self, x):
        hidden = self.up(x)
        hidden = hidden[hidden[:, 0] > 0]
        return self.down(hidden)  # here


class SubclassWeight(Block):
    def __init__(self) -> None:
        super().__init__()
        plain = self.down.weight.detach()
        self.down.weight = nn.Parameter(TwoTensor(plain, plain.clone()))

    def forward(self, x):
        hidden = self.up(x)
        return self.down(hidden)  # here


class FanOut(nn.Module):
    """Two wide maps of one value: one map of both would take as long."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(256, 256)
        self.key = nn.Linear(256, 256)

    def forward(self, x):
        query = self.query(x)  # here
        return query.tanh(), self.key(x).sigmoid()


class CurvatureMismatch(nn.Module):
    """Möbius addition with one curvature above and another one below."""

    def forward(self, x):
        y = x.flip(0)
        xx, yy, xy = ((a * b).sum(-1, keepdim=True) for a, b in ((x, x), (y, y), (x, y)))
        above = (1 + 2 * 0.7 * xy + 0.7 * yy) * x + (1 - 0.7 * xx) * y
        return above / (1 + 2 * 0.7 * xy + 0.5**2 * xx * yy).clamp_min(1e-15)  # here


class AnotherClamp(nn.Module):
    """A distance from the origin whose clamp stands elsewhere."""

    def forward(self, x):
        norm = x.norm(dim=-1, keepdim=True).clamp(1e-5, 0.5)
        return torch.atanh(norm) * x / norm  # here


def lorentz_inner(u, v):
    return (u[..., 1:] * v[..., 1:]).sum(-1, keepdim=True) - u[..., :1] * v[..., :1]


class StoredTimes(nn.Module):
    """Lorentz distances between points whose times come with them."""

    def forward(self, x):
        product = lorentz_inner(x, x.roll(1, 0))
        return torch.acosh((-product).clamp_min(1.0))  # here


class NotTangent(nn.Module):
    """An exponential map at a point, of a vector that was never projected to the tangent space there."""

    def forward(self, x):
        space = x[..., 1:]
        point = torch.cat([(1 + space.square().sum(-1, keepdim=True)).sqrt(), space], -1)
        norm = lorentz_inner(x, x).clamp_min(1e-8).sqrt()
        return torch.cosh(norm) * point + torch.sinh(norm) / norm * x  # here


class SharedNorm(nn.Module):
    """An exponential map whose norm is returned as well."""

    def forward(self, v):
        norm = v.norm(dim=-1, keepdim=True).clamp_min(1e-15)
        return torch.tanh(norm) * v / norm, torch.tanh(norm)  # here
