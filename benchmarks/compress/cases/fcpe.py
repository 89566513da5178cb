"""A pitch tracker of pointwise and depthwise convolutions, torchfcpe's Conformer, on synthesised voices."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stonefx.benchmarks.compress.cases.pitch import tuned
from stonefx.benchmarks.compress.packages import folder
from stonefx.benchmarks.compress.rows import Row, Wanted
from stonefx.compress import compress

CLIPS = {"calibrate": 96, "select": 240, "confirm": 720, "test": 480}
SECONDS = 0.32
BATCH = 8
FLOORS = (0.995, 0.99)
CENTS = 50.0
"""How far off a pitch may be: half of a semitone."""


def _module(name: str) -> Any:
    """A module of torchfcpe without the package's own import, which needs torchaudio to resample."""
    if "_torchfcpe" not in sys.modules:
        package = ModuleType("_torchfcpe")
        package.__path__ = [str(folder("torchfcpe", "torchfcpe"))]
        sys.modules["_torchfcpe"] = package
    for needed in ("einops", "local_attention"):
        folder(needed, needed.replace("_", "-"))
    return importlib.import_module(f"_torchfcpe.{name}")


def loaded() -> tuple[nn.Module, dict[str, Any]]:
    """The model as shipped, spectrograms `[clips, frames, 128]` to the strength of 360 pitches, and its settings."""
    place = folder("torchfcpe", "torchfcpe") / "assets" / "fcpe_c_v001.pt"
    found = torch.load(place, weights_only=True, map_location="cpu")
    settings = found["config_dict"]
    own = {
        k: v
        for k, v in settings["model"].items()
        if k in ("out_dims", "hidden_dims", "n_layers", "n_heads", "f0_min", "f0_max", "conv_only")
    }
    model = _module("models").CFNaiveMelPE(
        settings["mel"]["num_mels"], use_fa_norm=settings["model"]["use_fa_norm"], **own
    )
    model.load_state_dict(found["model"])
    return model.eval().requires_grad_(False), settings


def voices(count: int, seed: int, settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Spectrograms `[clips, frames, mels]` of noisy harmonic tones that glide and waver, and their pitches in Hz."""
    rate, hop = settings["mel"]["sr"], settings["mel"]["hop_size"]
    generator = torch.Generator().manual_seed(seed)
    uniform = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    length = int(SECONDS * rate) // hop * hop
    time = torch.arange(length, dtype=torch.float64) / rate
    start, glide = 80 * 2 ** (3 * uniform(count, 1)), (uniform(count, 1) - 0.5) / SECONDS
    vibrato = 0.04 * uniform(count, 1) * (2 * torch.pi * (4 + 3 * uniform(count, 1)) * time).sin()
    hertz = start * 2 ** (glide * time + vibrato)
    phase = 2 * torch.pi * hertz.cumsum(1) / rate
    wave = torch.zeros(count, length, dtype=torch.float64)
    for harmonic in range(1, 21):
        strength = (0.3 + uniform(count, 1)) / harmonic * (hertz * harmonic < 0.45 * rate)
        wave += strength * (harmonic * phase + 2 * torch.pi * uniform(count, 1)).sin()
    wave = wave / wave.abs().amax(1, keepdim=True)
    wave += 0.05 * uniform(count, 1) * torch.randn(wave.shape, generator=generator, dtype=torch.float64)
    return spectrogram(0.5 * wave.float(), settings["mel"]), hertz[:, hop // 2 :: hop].float()


def spectrogram(wave: Tensor, settings: dict[str, Any]) -> Tensor:
    """Logarithms of mel energies `[clips, frames, mels]`, as the model was trained on."""
    size, hop = settings["n_fft"], settings["hop_size"]
    basis = torch.from_numpy(
        _module("mel_fn_librosa").mel(
            sr=settings["sr"], n_fft=size, n_mels=settings["num_mels"],
            fmin=settings["fmin"], fmax=settings["fmax"],
        )
    )  # fmt: skip
    before = (settings["win_size"] - hop) // 2
    padded = functional.pad(wave[:, None], (before, (settings["win_size"] - hop + 1) // 2), mode="reflect")[
        :, 0
    ]
    spectrum = torch.stft(
        padded, size, hop, window=torch.hann_window(settings["win_size"]), center=False, return_complex=True
    )
    return (basis @ (spectrum.abs().square() + 1e-9).sqrt()).clamp_min(1e-5).log().transpose(1, 2)


def in_tune(model: nn.Module, batches: Any) -> Tensor:
    """The share of each clip's frames whose pitch is within `CENTS` of the true one; a metric for `compress`."""
    found = []
    with torch.no_grad():
        for batch in batches:
            strengths = batch.call(model)
            cents = _local_mean(strengths)
            found.append(((cents - 1200 * torch.log2(batch.labels / 10)).abs() <= CENTS).double().mean(1))
    return torch.cat(found)


def _local_mean(strengths: Tensor) -> Tensor:
    """The pitch in cents above 10 Hz: the mean of the nine pitches around the strongest, by strength."""
    lowest, highest = (1200 * torch.log2(torch.tensor([32.7, 1975.5]) / 10)).tolist()
    table = torch.linspace(lowest, highest, strengths.shape[-1])
    near = (strengths.argmax(-1, keepdim=True) + torch.arange(-4, 5)).clamp(0, strengths.shape[-1] - 1)
    weight = strengths.gather(-1, near)
    return (table[near] * weight).sum(-1) / weight.sum(-1)


def fcpe_rows(wanted: Wanted) -> Iterator[Row]:
    """Bytes at floors of the share of frames in tune."""
    if not any(wanted("stonefx", f"floor {floor:g}") for floor in FLOORS):
        return
    model, settings = loaded()
    own = {}
    for seed, (name, count) in enumerate(CLIPS.items()):
        x, hertz = voices(count, seed, settings)
        own[name] = list(zip(x.split(BATCH), hertz.split(BATCH), strict=True))
    dense = _tested(model, own["test"])
    for floor in FLOORS:
        if not wanted("stonefx", f"floor {floor:g}"):
            continue
        small, stats = compress(
            model, own["calibrate"], selection_data=own["select"], confirmation_data=own["confirm"],
            min_accuracy=floor, metric=in_tune, cost="bytes", progress=False,
        )  # fmt: skip
        kept = _tested(small, own["test"])
        yield tuned("fcpe", floor, stats, kept, dense, CLIPS)


def _tested(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    with torch.no_grad():
        return float(
            torch.cat(
                [
                    ((_local_mean(model(x)) - 1200 * torch.log2(hertz / 10)).abs() <= CENTS).double().mean(1)
                    for x, hertz in batches
                ]
            ).mean()
        )
