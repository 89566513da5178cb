"""The chain of four linear layers that this project began with: exact merging first, then a curve below it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

import stonefx
from stonefx.benchmarks.compress.rows import Row, Wanted
from stonefx.benchmarks.compress.work import clock, commit
from stonefx.benchmarks.suites.chain import WIDTHS, seed_chain
from stonefx.compress import compress

SAMPLES, TESTED = 2000, 1000
FLOORS = (1.0, 0.999, 0.99, 0.95, 0.9, 0.8)


def seed_chain_rows(wanted: Wanted, seed: int = 0) -> Iterator[Row]:
    """Parameters after over before at each floor, on inputs of a normal distribution."""
    model = seed_chain(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    data = list(torch.randn(SAMPLES, WIDTHS[0], generator=generator).split(100))
    test = torch.randn(TESTED, WIDTHS[0], generator=generator)
    with torch.no_grad():
        truth = copy.deepcopy(model).double()(test.double())
    before = sum(p.numel() for p in model.parameters())
    base: dict[str, Any] = {"case": "chain", "seed": seed, "commit": commit()}
    if wanted("exact merging (optimize)", seed=seed):
        seconds: dict[str, float] = {}
        with clock(seconds, "optimize"), torch.no_grad():
            merged = stonefx.optimize(copy.deepcopy(model), (test[:8],))
            y = merged(test)
        after = sum(p.numel() for p in merged.parameters())
        yield Row(
            arm="exact merging (optimize)",
            ratio=after / before,
            metrics=_metrics(y, truth),
            seconds=seconds,
            **base,
        )
    for floor in FLOORS:
        if not wanted("stonefx", f"floor {floor:g}", seed):
            continue
        small, stats = compress(
            model, data, min_accuracy=floor, cost="bytes", forms=("pair", "pifa"), seed=seed, progress=False
        )
        with torch.no_grad():
            y = small(test)
        yield Row(
            arm="stonefx",
            asked=f"floor {floor:g}",
            ratio=stats.model_ratio,
            metrics={
                **_metrics(y, truth),
                "lossless ratio": stats.lossless_ratio,
                "reached": float(bool(stats.reached)),
            },
            seconds=stats.seconds,
            splits=stats.samples | {"test": TESTED},
            **base,
        )


def _metrics(y: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    y = y.double()
    return {
        "cosine": torch.nn.functional.cosine_similarity(y, truth).mean().item(),
        "largest error": ((y - truth).abs().max() / truth.abs().max()).item(),
    }
