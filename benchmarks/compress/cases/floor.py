"""Is the floor honest? Models that passed it, on a hundred times the data, fresh from the same source."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from stonefx.benchmarks.compress.cases.digits import labelled, trained
from stonefx.benchmarks.compress.rows import Row, Wanted
from stonefx.benchmarks.compress.work import accuracy, commit
from stonefx.compress import compress

SPLITS = 20
FLOORS = (0.99, 0.95, 0.9)
CONFIDENCE = 0.95
SAMPLES, FRESH = 3000, 50_000
CLASSES, WIDTH, SPREAD = 10, 32, 1.5


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points around one of ten centres each, which overlap, and the number of the centre."""
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return centres[labels] + SPREAD * torch.randn(count, WIDTH, generator=generator), labels


def source_model() -> nn.Module:
    """A perceptron trained on points of its own."""
    torch.manual_seed(0)
    x, labels = drawn(4000, 1)
    model = nn.Sequential(
        nn.Linear(WIDTH, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, CLASSES)
    )
    return trained(model, x, labels, 8, 0)


def floor_rows(wanted: Wanted) -> Iterator[Row]:
    """Of each floor, how often the model returned falls below it on data never seen."""
    asked = [f"floor {floor:g}" for floor in FLOORS]
    if not any(wanted(metric, a) for metric in ("labels", "top1") for a in asked):
        return
    model = source_model()
    x, labels = drawn(FRESH, 2)
    right = model(x).argmax(-1)
    dense = (right == labels).double().mean().item()
    for metric in ("labels", "top1"):
        for floor in FLOORS:
            if not wanted(metric, f"floor {floor:g}"):
                continue
            kept, ratios, reached = [], [], []
            for split in range(SPLITS):
                data = labelled(*drawn(SAMPLES, 100 + split))
                small, stats = compress(
                    model, data, min_accuracy=floor, metric=accuracy if metric == "labels" else "top1",
                    confidence=CONFIDENCE, probe="logits", cost="bytes", seed=split, progress=False,
                )  # fmt: skip
                with torch.no_grad():
                    given = small(x).argmax(-1)
                truth = labels if metric == "labels" else right
                kept.append((given == truth).double().mean().item() / (dense if metric == "labels" else 1.0))
                ratios.append(stats.model_ratio)
                reached.append(bool(stats.reached))
            violations = sum(k < floor for k in kept)
            yield Row(
                case="floor",
                arm=metric,
                asked=f"floor {floor:g}",
                ratio=sum(ratios) / SPLITS,
                metrics={
                    "violations": violations,
                    "splits": SPLITS,
                    "expected at most": (1 - CONFIDENCE) * SPLITS,
                    "chance of as many": at_least(violations, SPLITS, 1 - CONFIDENCE),
                    "reached": sum(reached),
                    "least kept": min(kept),
                    "mean kept": sum(kept) / SPLITS,
                },
                splits={"each split": SAMPLES, "fresh": FRESH},
                commit=commit(),
            )


def at_least(hits: int, count: int, chance: float) -> float:
    """The chance of this many hits or more among `count`.

    >>> round(at_least(0, 20, 0.05), 12), round(at_least(1, 2, 0.5), 12)
    (1.0, 0.75)
    """
    return min(
        1.0,
        math.fsum(
            math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(hits, count + 1)
        ),
    )
