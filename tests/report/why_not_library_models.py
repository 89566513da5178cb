"""Parts of models as libraries write them, each with one place that is left; a comment `# here` marks its line.

After transformers, diffusers, PyTorch Geometric, torchvision and libraries of hyperbolic geometry.
"""

import torch
from torch import nn
from torch.nn import functional as F
from why_not_models import Block


class RootMeanSquare(nn.Module):
    """As LLaMA has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        squares = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(squares + 1e-6))  # stands between


class NormWrittenOut(Block):
    def __init__(self) -> None:
        super().__init__()
        self.norm = RootMeanSquare(96)

    def forward(self, x):
        hidden = self.norm(self.up(x))
        return self.down(hidden)  # here


class GatedLinearUnit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(64, 96, bias=False), nn.Linear(64, 96, bias=False)
        self.down = nn.Linear(96, 64, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))  # here


class SplitGate(nn.Module):
    """One map whose halves gate each other, as in the transformers of diffusers."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.down = nn.Linear(64, 192), nn.Linear(96, 64)

    def forward(self, x):
        hidden, gate = self.both(x).chunk(2, dim=-1)
        hidden = hidden * F.gelu(gate)  # stands between
        return self.down(hidden)  # here


class AdaptiveNorm(Block):
    """A norm whose scale and shift are maps of a time embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(64, 192)
        self.norm = nn.LayerNorm(96, elementwise_affine=False)

    def forward(self, x):
        scale, shift = self.time(x).chunk(2, dim=-1)
        hidden = self.norm(self.up(x)) * (1 + scale) + shift  # stands between
        return self.down(hidden)  # here


class Rotary(Block):
    """Positions as rotations of the features, another one in each row."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(10.0), torch.arange(48.0)).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, x):
        hidden = self.up(x)
        turned = torch.cat([-hidden[..., 48:], hidden[..., :48]], dim=-1)
        hidden = torch.where(self.cos > 2, turned, hidden * self.cos)  # stands between
        return self.down(hidden)  # here


class ClassToken(nn.Module):
    """The first row comes from no map, as in vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 64))
        self.query = nn.Linear(64, 64)

    def forward(self, x):
        rows = self.patches(x).flatten(2).transpose(1, 2)
        rows = torch.cat([self.token.expand(x.shape[0], -1, -1), rows], dim=1)  # stands between
        return self.query(rows)  # here


class FourierMixing(Block):
    def forward(self, x):
        hidden = torch.fft.fft(self.up(x), dim=-2).real  # stands between
        return self.down(hidden)  # here


class Attention(nn.Module):
    """What a value map and the map of the results would be merged through."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(64, 64) for _ in range(4))

    def forward(self, x):
        hidden = F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return self.out(hidden.tanh())  # here


class Recurrent(Block):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(96, 96, batch_first=True)

    def forward(self, x):
        hidden, _ = self.cell(self.up(x))  # stands between
        return self.down(hidden)  # here


class Cosine(Block):
    def forward(self, x):
        hidden = F.normalize(self.up(x), dim=-1)  # stands between
        return self.down(hidden)  # here


class Quantized(Block):
    """A codebook with the gradient of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.book = nn.Parameter(torch.randn(32, 96))

    def forward(self, x):
        hidden = self.up(x)
        nearest = self.book[torch.cdist(hidden.detach(), self.book).argmin(-1)]
        return self.down(hidden + (nearest - hidden).detach())  # here


class Cached(Block):
    """Keys are written to a buffer, and all of it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(32, 96))

    def forward(self, x):
        self.cache.index_copy_(0, torch.arange(16), self.up(x))  # stands between
        return self.down(self.cache)  # here


class NumPy(Block):
    def forward(self, x):
        hidden = torch.from_numpy(self.up(x).detach().numpy() * 2)
        return self.down(hidden)  # here


class Straight(torch.autograd.Function):
    """Rounds, with the gradient of its input."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class OwnFunction(Block):
    def forward(self, x):
        hidden = Straight.apply(self.up(x))
        return self.down(hidden)  # here


class HalfFrozen(Block):
    def __init__(self) -> None:
        super().__init__()
        self.up.requires_grad_(False)

    def forward(self, x):
        hidden = self.up(x)  # here
        return self.down(hidden)


class SpectralNorm(Block):
    """In training its weight is divided by a norm that is estimated at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.utils.parametrizations.spectral_norm(nn.Linear(96, 32))

    def forward(self, x):
        hidden = self.up(x)
        return self.down(hidden)  # here


class WrittenRow(Block):
    def forward(self, x):
        hidden = self.up(x)  # here
        hidden[:, 0] = 1.0
        return self.down(hidden)


class Experts(nn.Module):
    """The rows that a router sends to an expert."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.router, self.expert = nn.Linear(64, 64), nn.Linear(64, 2), nn.Linear(64, 64)

    def forward(self, x):
        hidden = self.before(x)
        rows = torch.where(self.router(x).argmax(-1) == 0)[0]
        return hidden.index_add(0, rows, self.expert(hidden[rows]))  # here


class GraphOfLargest(nn.Module):
    """The largest of the neighbours' features, as in GraphSAGE with `aggr="max"`."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbours, self.out = nn.Linear(64, 96), nn.Linear(96, 32)
        self.register_buffer("edges", torch.arange(16).repeat(2, 2))

    def forward(self, x):
        row, column = self.edges
        messages = self.neighbours(x)[row]
        column = column[:, None].expand_as(messages)
        largest = messages.new_zeros(x.shape[0], 96)
        largest = largest.scatter_reduce(0, column, messages, "amax")  # stands between
        return self.out(largest)  # here


class GraphAttention(nn.Module):
    """The features of a node are weighted by scores that come from them."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.out = nn.Linear(64, 64, bias=False), nn.Linear(64, 64)
        self.score = nn.Parameter(torch.randn(64))
        self.register_buffer("edges", torch.arange(16).repeat(2, 2))

    def forward(self, x):
        row, column = self.edges
        hidden = self.map(x)
        score = (hidden * self.score).sum(-1)
        weight = F.leaky_relu(score[row] + score[column]).exp()
        hidden = torch.zeros_like(hidden).index_add(0, column, weight[:, None] * hidden[row])
        return self.out(hidden)  # here


class TimedBlock(nn.Module):
    """Two convolutions of a diffusion model, with a time embedding, a norm and an activation between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.time, self.norm = nn.Linear(8, 16), nn.GroupNorm(4, 16)

    def forward(self, x):
        hidden = self.first(x) + self.time(x.mean((2, 3)))[:, :, None, None]
        hidden = F.silu(self.norm(hidden))  # stands between
        return self.second(hidden)  # here


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x):
        hidden = F.max_pool2d(self.first(x), 2)  # stands between
        return self.second(hidden)  # here


class SqueezeAndExcite(nn.Module):
    """Channels are weighted by what a small network makes of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.out = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.less, self.more = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)

    def forward(self, x):
        hidden = self.map(x)
        weight = self.more(self.less(hidden.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.out(hidden * weight)  # here


class UpsampledWithBias(nn.Module):
    """A map, its nearest neighbours, and a convolution with padding, in whose border the bias is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 32, 1), nn.Conv2d(32, 8, 3, padding=1)

    def forward(self, x):
        hidden = self.first(x)  # here
        return self.second(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))


class SplitHeads(nn.Module):
    """The features of one map are taken apart, and each part is mapped."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.each = nn.Linear(64, 96), nn.Linear(24, 24)

    def forward(self, x):
        hidden = self.all(x).view(x.shape[0], 4, 24)  # stands between
        return self.each(hidden)  # here
