"""The blocks of latent diffusion models, written as their originals are: a UNet level, a VAE decoder, a DiT block.

After Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022), and Peebles and Xie,
"Scalable Diffusion Models with Transformers" (2023).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from stonefx.benchmarks.zoo.sizes import SMALL, Built, Size, build


class ResidualBlock(nn.Module):
    """Two convolutions with group norms, a shift by the time embedding, and a 1x1 convolution on the side."""

    def __init__(self, inputs: int, outputs: int, time: int = 0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, inputs, eps=1e-6), nn.GroupNorm(8, outputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs) if time else None
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time is not None and time is not None:
            h = h + self.time(F.silu(time))[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return (x if self.shortcut is None else self.shortcut(x)) + h


class SpatialAttention(nn.Module):
    """Attention of one head over the places of an image, with 1x1 convolutions as projections."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels, eps=1e-6)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(1, 2).reshape(x.shape))


class UNetLevel(nn.Module):
    """Down, middle and up again, with a skip connection that is concatenated."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        low, high, time = size.hidden // 2, size.hidden, 2 * size.hidden
        self.time = nn.Sequential(nn.Linear(low, time), nn.SiLU(), nn.Linear(time, time))
        self.conv_in = nn.Conv2d(4, low, 3, padding=1)
        self.down = ResidualBlock(low, low, time)
        self.shrink = nn.Conv2d(low, low, 3, stride=2, padding=1)
        self.middle1, self.middle2 = ResidualBlock(low, high, time), ResidualBlock(high, low, time)
        self.attention = SpatialAttention(high)
        self.grow = nn.Conv2d(low, low, 3, padding=1)
        self.up = ResidualBlock(2 * low, low, time)
        self.norm = nn.GroupNorm(8, low)
        self.conv_out = nn.Conv2d(low, 4, 3, padding=1)

    def forward(self, sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        embedded = self.time(time)
        skip = self.down(self.conv_in(sample), embedded)
        h = self.attention(self.middle1(self.shrink(skip), embedded))
        h = self.middle2(h, embedded)
        h = self.grow(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.up(torch.cat([h, skip], dim=1), embedded)
        return self.conv_out(F.silu(self.norm(h)))


class VariationalAutoencoder(nn.Module):
    """Encoder and decoder around a latent of four channels, each with its 1x1 convolution at the latent."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        low, high = size.hidden // 4, size.hidden // 2
        self.conv_in = nn.Conv2d(3, low, 3, padding=1)
        self.down1, self.shrink, self.down2 = (
            ResidualBlock(low, low),
            nn.Conv2d(low, low, 3, 2),
            ResidualBlock(low, high),
        )
        self.encoder_attention = SpatialAttention(high)
        self.encoder_out = nn.Conv2d(high, 8, 3, padding=1)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)
        self.decoder_in = nn.Conv2d(4, high, 3, padding=1)
        self.up1, self.grow, self.up2 = (
            ResidualBlock(high, low),
            nn.Conv2d(low, low, 3, padding=1),
            ResidualBlock(low, low),
        )
        self.norm = nn.GroupNorm(8, low)
        self.conv_out = nn.Conv2d(low, 3, 3, padding=1)

    def forward(self, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.shrink(F.pad(self.down1(self.conv_in(sample)), (0, 1, 0, 1)))
        h = self.encoder_attention(self.down2(h))
        mean, log_variance = self.quant_conv(self.encoder_out(h)).chunk(2, dim=1)
        h = self.up1(self.decoder_in(self.post_quant_conv(mean)))
        h = self.up2(self.grow(F.interpolate(h, scale_factor=2.0, mode="nearest")))
        return self.conv_out(F.silu(self.norm(h))), log_variance.clamp(-30.0, 20.0)


class DiTBlock(nn.Module):
    """Attention and feed-forward over patches, shifted, scaled and gated by a condition."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm1 = nn.LayerNorm(size.hidden, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(size.hidden, elementwise_affine=False, eps=1e-6)
        self.qkv, self.out = nn.Linear(size.hidden, 3 * size.hidden), nn.Linear(size.hidden, size.hidden)
        self.mlp = nn.Sequential(
            nn.Linear(size.hidden, size.feed_forward),
            nn.GELU(approximate="tanh"),
            nn.Linear(size.feed_forward, size.hidden),
        )
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(size.hidden, 6 * size.hidden))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            self.modulation(condition).unsqueeze(1).chunk(6, dim=-1)
        )
        h = self.norm1(x) * (1 + scale1) + shift1
        qkv = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).flatten(2)
        x = x + gate1 * self.out(h)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class DiT(nn.Module):
    """Patches in, blocks, patches out."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.patch = nn.Conv2d(4, size.hidden, 2, stride=2)
        self.condition = nn.Sequential(
            nn.Linear(size.hidden, size.hidden), nn.SiLU(), nn.Linear(size.hidden, size.hidden)
        )
        self.blocks = nn.ModuleList(DiTBlock(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.hidden)
        self.out = nn.Linear(size.hidden, 16)

    def forward(self, sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        x = self.patch(sample).flatten(2).transpose(1, 2)
        condition = self.condition(time)
        for block in self.blocks:
            x = block(x, condition)
        side = sample.shape[-1] // 2
        x = self.out(self.norm(x)).unflatten(1, (side, side)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(x, 2)


def unet(size: Size = SMALL) -> Built:
    inputs = {
        "sample": size.floats(4, size.image // 4, size.image // 4),
        "time": size.floats(size.hidden // 2),
    }
    return build(UNetLevel, size), inputs


def vae(size: Size = SMALL) -> Built:
    return build(VariationalAutoencoder, size), {"sample": size.floats(3, size.image // 2, size.image // 2)}


def dit(size: Size = SMALL) -> Built:
    inputs = {"sample": size.floats(4, size.image // 4, size.image // 4), "time": size.floats(size.hidden)}
    return build(DiT, size), inputs
