"""Affine regions of real models: eager, inductor, stonefx through both doors, and what one would write by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import stonefx
from stonefx.benchmarks.by_hand import SegmentationByHand, merged
from stonefx.benchmarks.case import Arm, Case, CaseResult, Planned, Subject, Work
from stonefx.benchmarks.suites import pooled
from stonefx.benchmarks.suites.pooled import Made


def segformer_head() -> Made:
    """The decode head of SegFormer-B0 on the feature maps of a 512x512 image, random weights."""
    from transformers import SegformerConfig
    from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

    torch.manual_seed(0)
    config = SegformerConfig(num_labels=150)
    head = SegformerDecodeHead(config).eval()
    with torch.no_grad():
        head.batch_norm.running_mean.normal_()
        head.batch_norm.running_var.uniform_(0.5, 2)
    features = tuple(
        torch.randn(1, width, 128 // scale, 128 // scale)
        for width, scale in zip(config.hidden_sizes, (1, 2, 4, 8), strict=True)
    )
    return head, (features,)


class DensePair(nn.Module):
    """768 -> 3072 -> 768 without an activation, as behind some sentence encoders."""

    def __init__(self, width: int = 768, inner: int = 3072) -> None:
        super().__init__()
        self.up, self.activation, self.down = nn.Linear(width, inner), nn.Identity(), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[*batch, width]` to the same."""
        return self.down(self.activation(self.up(x)))


def dense_pair() -> Made:
    """Two dense layers on 16 rows."""
    torch.manual_seed(0)
    return DensePair().eval(), (torch.randn(16, 768),)


class DLinear(nn.Module):
    """Two maps along time, of a moving average and of what is left (Zeng et al. 2023)."""

    def __init__(self, length: int = 336, horizon: int = 96, kernel: int = 25) -> None:
        super().__init__()
        self.side = (kernel - 1) // 2
        self.seasonal, self.trend = nn.Linear(length, horizon), nn.Linear(length, horizon)
        self.average = nn.AvgPool1d(kernel, stride=1, padding=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, length, channels]` to `[batch, horizon, channels]`."""
        front = x[:, 0:1, :].repeat(1, self.side, 1)
        end = x[:, -1:, :].repeat(1, self.side, 1)
        trend = self.average(torch.cat([front, x, end], dim=1).permute(0, 2, 1)).permute(0, 2, 1)
        seasonal = x - trend
        mapped = self.seasonal(seasonal.permute(0, 2, 1)) + self.trend(trend.permute(0, 2, 1))
        return mapped.permute(0, 2, 1)


def dlinear() -> Made:
    """DLinear on 21 channels, as for the weather data set."""
    torch.manual_seed(0)
    return DLinear().eval(), (torch.randn(32, 336, 21),)


class Lora(nn.Module):
    """`W x + scale * B (A x)`."""

    def __init__(self, width: int = 768, rank: int = 8) -> None:
        super().__init__()
        self.base, self.drop = nn.Linear(width, width), nn.Dropout(0.1)
        self.lora_a, self.lora_b = (
            nn.Linear(width, rank, bias=False),
            nn.Linear(rank, width, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[*batch, width]` to the same."""
        return self.base(x) + 2.0 * self.lora_b(self.lora_a(self.drop(x)))


def lora() -> Made:
    """A layer with an adapter of rank 8."""
    torch.manual_seed(0)
    return Lora().eval(), (torch.randn(4, 32, 768),)


def _without_adapter(model: Any) -> nn.Module:
    """The base layer alone, which costs what a merged one does, with the adapter in its weight."""
    base = copy.deepcopy(model.base)
    with torch.no_grad():
        base.weight += 2.0 * model.lora_b.weight @ model.lora_a.weight
    return base


class MappedEmbedding(nn.Module):
    """ALBERT's first layer: a narrow embedding, mapped to the width that query, key and value read."""

    def __init__(self, embedding: int = 128, width: int = 768, heads: int = 12) -> None:
        super().__init__()
        self.heads, self.mapping = heads, nn.Linear(embedding, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, length, embedding]` to `[batch, length, width]`."""
        hidden = self.mapping(x)
        batch, length, width = hidden.shape
        query, key, value = (
            layer(hidden).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.norm(hidden + self.out(mixed.transpose(1, 2).reshape(batch, length, width)))


def albert() -> Made:
    """ALBERT-base's sizes."""
    torch.manual_seed(0)
    return MappedEmbedding().eval(), (torch.randn(1, 64, 128),)


class EncoderEnd(nn.Module):
    """The end of the encoder of Stable Diffusion: `conv_out` 3x3, then `quant_conv` 1x1."""

    def __init__(self, width: int = 512, latent: int = 8) -> None:
        super().__init__()
        self.conv_out = nn.Conv2d(width, latent, 3, padding=1)
        self.quant_conv = nn.Conv2d(latent, latent, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, channels, height, width]` to `[batch, latent, height, width]`."""
        return self.quant_conv(self.conv_out(x))


def autoencoder() -> Made:
    """The end of an image encoder on maps of 32x32."""
    torch.manual_seed(0)
    return EncoderEnd().eval(), (torch.randn(1, 512, 32, 32),)


REGIONS: dict[str, Callable[[], Made]] = {
    "SegFormer-B0 head": segformer_head,
    "768 -> 3072 -> 768": dense_pair,
    "DLinear 336 -> 96": dlinear,
    "LoRA 768, rank 8": lora,
    "ALBERT first layer": albert,
    "conv 3x3 -> 1x1": autoencoder,
    "SGC 256 -> 64, 3 steps": pooled.sgc_of_ten_thousand,
    "GCN 256 -> 256 -> 64": pooled.gcn_without_activation,
    "attentive pooling": pooled.attentive_pooling,
    "masked mean": pooled.masked_mean,
}
# What one would write in its place.
BY_HAND: dict[str, Callable[[Any], nn.Module]] = {
    "SegFormer-B0 head": SegmentationByHand,
    "768 -> 3072 -> 768": lambda model: merged([model.up, model.down]),
    "LoRA 768, rank 8": _without_adapter,
    "SGC 256 -> 64, 3 steps": pooled.SgcByHand,
    "GCN 256 -> 256 -> 64": pooled.GcnByHand,
    "attentive pooling": pooled.AttentivePoolingByHand,
    "masked mean": pooled.MaskedMeanByHand,
}


def region_cases(device: str = "cpu") -> Iterator[Planned]:
    """One case a region.

    Raises:
        ImportError: transformers is not installed.
    """
    for name, make in REGIONS.items():
        yield Planned(name=name, make=partial(region_case, name, make, device))


def region_case(name: str, make: Callable[[], Made], device: str = "cpu") -> Case:
    """All arms on one region; `facts` says what its parameters and sites became."""
    torch.compiler.reset()
    model, inputs = make()
    by_hand = BY_HAND[name](model) if name in BY_HAND else None
    model = model.to(device)
    inputs = torch.utils._pytree.tree_map(lambda x: x.to(device), inputs)
    with torch.no_grad():
        wide = torch.utils._pytree.tree_map(lambda x: x.double() if x.is_floating_point() else x, inputs)
        exact = copy.deepcopy(model).double()(*wide)
        optimized = stonefx.optimize(model, inputs)
        over_inductor = stonefx.optimize(model, inputs, inner="inductor")
    arms: dict[str, Callable[..., Any]] = {
        "eager": model,
        "inductor": torch.compile(copy.deepcopy(model)),
        "optimize": optimized,
        "optimize(inductor)": over_inductor,
        "compile(stone)": torch.compile(copy.deepcopy(model), backend="stone"),
    }
    if by_hand is not None:
        arms["by hand"] = by_hand.to(device).eval()

    report: Any = optimized.report
    before, after = Work.before_and_after(report.summary())
    works = {"eager": before, "inductor": before, "optimize": after, "optimize(inductor)": after}

    def facts(_: CaseResult) -> dict[str, Any]:
        return {"summary": report.summary(), "sites": [site.reason for site in report.rewritten()]}

    return Case(
        name=name,
        arms=[Arm(name=arm, call=partial(call, *inputs), work=works.get(arm)) for arm, call in arms.items()],
        truth=[exact],
        synchronize=torch.cuda.synchronize if device == "cuda" else None,
        facts=facts,
        subject=Subject(model=model, args=inputs),
    )
