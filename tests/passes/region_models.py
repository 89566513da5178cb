"""Affine regions as they stand in real models: the module, its input shapes, and the operators that should be left."""

import torch
from torch import nn
from torch.nn import functional as F


class Lora(nn.Module):
    """`W x + scale * B (A x)`."""

    def __init__(self):
        super().__init__()
        self.base, self.drop = nn.Linear(64, 96), nn.Dropout(0.1)
        self.lora_a, self.lora_b = nn.Linear(64, 8, bias=False), nn.Linear(8, 96, bias=False)

    def forward(self, x):
        return self.base(x) + self.lora_b(self.lora_a(self.drop(x))) * 2.0


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x):
        hidden = self.a(x)
        return hidden + self.b(hidden)


class ResidualBlock(nn.Module):
    """`x + B (A x)`, of one width or through a narrow one."""

    def __init__(self, width, inner):
        super().__init__()
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        return x + self.up(self.down(x))


class NestedResidual(nn.Module):
    """A residual block in a residual block."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(24, 24), ResidualBlock(24, 24), nn.Linear(24, 24)

    def forward(self, x):
        hidden = self.first(x)
        return hidden - 0.5 * self.last(self.inner(hidden))


class DenseBlock(nn.Module):
    """Every layer reads all before it (Huang et al. 2017), so that no tree holds them."""

    def __init__(self, width=12, layers=5):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width * (place + 1), width) for place in range(layers))

    def forward(self, x):
        values = [x]
        for layer in self.layers:
            values.append(layer(torch.cat(values, -1)))
        return values[-1]


class TwoTowers(nn.Module):
    """Two ways from one value that meet again, with a way across."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(20, 32), nn.Linear(32, 24), nn.Linear(32, 24)
        self.across, self.head = nn.Linear(24, 24), nn.Linear(24, 6)

    def forward(self, x):
        hidden = self.stem(x)
        left = self.left(hidden)
        right = self.right(hidden) + self.across(left)
        return self.head(left * 2.0 + right)


class DLinear(nn.Module):
    """Two maps along time, of a moving average and of what is left (Zeng et al. 2023)."""

    def __init__(self, length=48, horizon=24, kernel=13):
        super().__init__()
        self.side = (kernel - 1) // 2
        self.seasonal, self.trend = nn.Linear(length, horizon), nn.Linear(length, horizon)
        self.average = nn.AvgPool1d(kernel, stride=1, padding=0)

    def forward(self, x):
        front = x[:, 0:1, :].repeat(1, self.side, 1)
        end = x[:, -1:, :].repeat(1, self.side, 1)
        trend = self.average(torch.cat([front, x, end], dim=1).permute(0, 2, 1)).permute(0, 2, 1)
        seasonal = x - trend
        result = self.seasonal(seasonal.permute(0, 2, 1)) + self.trend(trend.permute(0, 2, 1))
        return result.permute(0, 2, 1)


class SegmentationHead(nn.Module):
    """SegFormer's: maps at several scales, interpolated, concatenated, fused by a convolution and normalised."""

    def __init__(self):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(width, 16) for width in (8, 12))
        self.fuse, self.norm = nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16)

    def forward(self, *features):
        hidden = []
        for layer, feature in zip(self.maps, features, strict=True):
            batch, _, height, width = feature.shape
            mapped = layer(feature.flatten(2).transpose(1, 2)).permute(0, 2, 1)
            mapped = mapped.reshape(batch, -1, height, width)
            hidden.append(F.interpolate(mapped, size=(8, 8), mode="bilinear", align_corners=False))
        return self.norm(self.fuse(torch.cat(hidden[::-1], dim=1))).relu()


class PooledHead(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.first, self.second, self.pool = nn.Linear(64, 96), nn.Linear(96, 10), pool

    def forward(self, x):
        return self.second(self.pool(self.first(x)))


class ConvolutionHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(16, 64, 1), nn.Linear(64, 10)

    def forward(self, x):
        return self.second(F.adaptive_avg_pool2d(self.first(x), 1).flatten(1))


class Concatenated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(24, 8), nn.Linear(24, 40), nn.Linear(48, 16)

    def forward(self, x):
        return self.c(torch.cat([self.a(x), self.b(x)], dim=-1))


class Spelled(nn.Module):
    """Two maps of a weight each, with something in between."""

    def __init__(self, function, *shapes):
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(shape) / shape[-1] ** 0.5) for shape in shapes
        )

    def forward(self, x):
        return self.function(x, *self.weights)


def spelled(function, *shapes):
    return lambda: Spelled(function, *shapes)


def sequence(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def conv(*args, **kwargs):
    return lambda: nn.Conv2d(*args, **kwargs)


# name: (module, shapes of its inputs, operators that are left)
MERGED = {
    "lora": (Lora, [(4, 5, 64)], {"linear": 1}),
    "residual": (Residual, [(7, 32)], {"linear": 1}),
    "residual blocks": (
        sequence(*[lambda: ResidualBlock(32, 32)] * 6),
        [(7, 32)],
        {"linear": 1, "add": 0},
    ),
    "nested residual blocks": (NestedResidual, [(7, 24)], {"linear": 1, "sub": 0, "add": 0}),
    "dense block": (DenseBlock, [(7, 12)], {"linear": 1, "cat": 0}),
    "towers with a way across": (TwoTowers, [(7, 20)], {"linear": 1, "add": 0}),
    "dlinear": (DLinear, [(4, 48, 7)], {"conv1d": 1}),
    "segmentation head": (
        SegmentationHead,
        [(2, 8, 8, 8), (2, 12, 4, 4)],
        {"linear": 0, "conv2d": 2, "cat": 0},
    ),
    "mean over time": (lambda: PooledHead(lambda x: x.mean(1)), [(4, 50, 64)], {"linear": 1, "mean": 1}),
    "sum over time": (
        lambda: PooledHead(lambda x: x.sum(1)),
        [(4, 50, 64)],
        {"linear": 1, "sum": 1, "add": 1},
    ),
    "last token": (lambda: PooledHead(lambda x: x[:, -1]), [(4, 50, 64)], {"linear": 1, "select": 1}),
    "every other token": (lambda: PooledHead(lambda x: x[:, ::2]), [(4, 50, 64)], {"linear": 1, "slice": 1}),
    "reversed": (lambda: PooledHead(lambda x: x.flip(1)), [(4, 50, 64)], {"linear": 1, "flip": 1}),
    "rolled": (lambda: PooledHead(lambda x: x.roll(2, 1)), [(4, 50, 64)], {"linear": 1, "roll": 1}),
    "global pooling": (ConvolutionHead, [(4, 16, 8, 8)], {"conv2d": 1, "linear": 0}),
    "concatenation": (Concatenated, [(6, 24)], {"linear": 1, "cat": 0}),
    "3x3 into 1x1": (sequence(conv(16, 32, 3, padding=1), conv(32, 8, 1)), [(1, 16, 9, 9)], {"conv2d": 1}),
    "strided, dilated": (
        sequence(conv(8, 32, 3, stride=2, dilation=2), conv(32, 8, 1)),
        [(2, 8, 15, 15)],
        {"conv2d": 1},
    ),
    "transposed into 1x1": (
        sequence(lambda: nn.ConvTranspose2d(16, 32, 3, stride=2), conv(32, 4, 1)),
        [(1, 16, 9, 9)],
        {"convolution": 1, "conv2d": 0},
    ),
    "convolution and batch norm": (
        sequence(conv(4, 16, 3, stride=2, padding=1, bias=False), lambda: nn.BatchNorm2d(16)),
        [(1, 4, 9, 9)],
        {"conv2d": 1, "batch_norm": 0},
    ),
    "groups and batch norm": (
        sequence(conv(16, 32, 3, padding=1, groups=4), lambda: nn.BatchNorm2d(32)),
        [(1, 16, 9, 9)],
        {"conv2d": 1, "batch_norm": 0},
    ),
    "transposed groups and batch norm": (
        sequence(
            lambda: nn.ConvTranspose2d(16, 32, 3, stride=2, padding=1, output_padding=1, groups=4),
            lambda: nn.BatchNorm2d(32),
        ),
        [(1, 16, 9, 9)],
        {"convolution": 1, "batch_norm": 0},
    ),
    "depthwise and pointwise": (
        sequence(
            conv(16, 16, 3, padding=1, groups=16, bias=False),
            lambda: nn.BatchNorm2d(16),
            conv(16, 32, 1, bias=False),
            lambda: nn.BatchNorm2d(32),
        ),
        [(1, 16, 9, 9)],
        {"conv2d": 2, "batch_norm": 0},
    ),
    "one dimension": (
        sequence(
            lambda: nn.Conv1d(8, 16, 3, dilation=2), lambda: nn.BatchNorm1d(16), lambda: nn.Conv1d(16, 4, 1)
        ),
        [(2, 8, 30)],
        {"conv1d": 1, "batch_norm": 0},
    ),
    "three dimensions": (
        sequence(lambda: nn.Conv3d(4, 16, 3, padding=1), lambda: nn.Conv3d(16, 4, 1)),
        [(1, 4, 5, 6, 7)],
        {"conv3d": 1},
    ),
    "linear and batch norm": (
        sequence(lambda: nn.Linear(8, 16), lambda: nn.BatchNorm1d(16), lambda: nn.Linear(16, 4)),
        [(5, 8)],
        {"linear": 1, "batch_norm": 0},
    ),
    "map of another axis": (
        spelled(lambda x, a, b: b @ (a @ x), (24, 20), (12, 24)),
        [(3, 20, 5)],
        {"matmul": 0, "conv1d": 1},
    ),
    "tensordot": (
        spelled(lambda x, a, b: torch.tensordot(F.linear(x, a), b, dims=([2], [1])), (24, 20), (12, 24)),
        [(3, 5, 20)],
        {"tensordot": 0, "linear": 1},
    ),
    "einsum along channels": (
        spelled(
            lambda x, a, b: torch.einsum("bchw,oc->bohw", torch.einsum("bchw,oc->bohw", x, a), b),
            (24, 20),
            (12, 24),
        ),
        [(3, 20, 5, 4)],
        {"einsum": 0, "conv2d": 1},
    ),
    "part of the features": (
        spelled(lambda x, a, b: F.linear(F.linear(x, a)[..., :12], b[:, :12]), (24, 20), (16, 24)),
        [(6, 20)],
        {"linear": 1, "slice": 0},
    ),
    "padded features": (
        spelled(lambda x, a, b: F.linear(F.pad(F.linear(x, a), (1, 3)), b), (20, 20), (12, 24)),
        [(6, 20)],
        {"linear": 1, "pad": 0},
    ),
    "padding of the other axes": (
        sequence(conv(8, 8, 1), lambda: nn.ZeroPad2d(1), conv(8, 8, 1)),
        [(1, 8, 6, 6)],
        {"conv2d": 1},
    ),
}
