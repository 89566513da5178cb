"""The ceilings of a machine, measured by a short probe, and the picture of what arms reach below them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from stonefx.benchmarks.cuda_events import EventTimer, cache_flush, event_seconds
from stonefx.machine.clock import seconds
from stonefx.machine.host import memory_bandwidth

_SIDE = 1024
_BUFFER = 1 << 26


def ceilings(device: str = "cpu") -> dict[str, Any]:
    """FLOP/s of a product of matrices in float32 and bytes a second that are read from memory, the best of some runs.

    Args:
        device: "cpu" or "cuda".

    >>> sorted(ceilings())
    ['bytes_per_second', 'flops_per_second', 'probe']
    """
    if device == "cuda":
        return _cuda_ceilings()
    where = torch.device(device)
    with torch.inference_mode():
        left, right = (torch.full((_SIDE, _SIDE), 0.5, device=where) for _ in range(2))
        result = torch.empty_like(left)
        product = min(seconds(lambda: torch.mm(left, right, out=result), where) for _ in range(3))
        read = memory_bandwidth(torch.get_num_threads()) if device == "cpu" else None
        if read is None:
            source = torch.ones(_BUFFER // 4, device=where)
            read = _BUFFER / min(seconds(lambda: source.sum(), where) for _ in range(3))
    return {
        "flops_per_second": 2 * _SIDE**3 / product,
        "bytes_per_second": read,
        "probe": f"float32, torch.mm of {_SIDE} x {_SIDE}; reading a buffer larger than the last cache",
    }


def _cuda_ceilings(side: int = 8192, size: int = 1 << 30) -> dict[str, Any]:
    """By events: a copy on the device, bytes read and written, and products in three precisions of random numbers."""
    timer = EventTimer(cache_flush())
    rates: dict[str, float] = {}
    before = torch.backends.cuda.matmul.allow_tf32
    with torch.inference_mode():
        source = torch.ones(size, dtype=torch.int8, device="cuda")
        target = torch.empty_like(source)
        copy = 2 * size / event_seconds(lambda: target.copy_(source), timer)
        wide = torch.randn(side, side, device="cuda")
        try:
            for name, tf32, dtype in (
                ("flops_per_second", False, torch.float32),
                ("tf32_flops_per_second", True, torch.float32),
                ("bf16_flops_per_second", False, torch.bfloat16),
            ):
                torch.backends.cuda.matmul.allow_tf32 = tf32
                left = wide.to(dtype)
                result = torch.empty_like(left)
                rates[name] = 2 * side**3 / event_seconds(partial(torch.mm, left, left, out=result), timer)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
    return {
        **rates,
        "bytes_per_second": copy,
        "probe": f"torch.mm of {side} x {side}, by precision; a copy of {size} bytes, read and written",
    }


def has_points(document: dict[str, Any]) -> bool:
    """Whether there are ceilings, and arms of which the work is known."""
    return bool(document.get("ceilings")) and any(_points(document["suites"].values()))


def draw_roofline(axes: Any, document: dict[str, Any], colour: Callable[[str], str]) -> None:
    """Draw what the arms reach, by the work that their graphs do, below what the machine can do.

    An arm that does less work stands lower, or further left, though it is faster.

    Args:
        axes: of matplotlib.
        document: of `result_document`, with ceilings.
        colour: of an arm.
    """
    flops, moved = (document["ceilings"][f"{name}_per_second"] for name in ("flops", "bytes"))
    points = list(_points(document["suites"].values()))
    named: set[str] = set()
    for name, intensity, rate in points:
        label = None if name in named else name
        named.add(name)
        axes.plot(intensity, rate, "o", color=colour(name), markersize=4, label=label)
    low = min([intensity for _, intensity, _ in points] + [flops / moved]) / 2
    high = max([intensity for _, intensity, _ in points] + [flops / moved]) * 2
    across = [low, flops / moved, high]
    axes.plot(across, [low * moved, flops, flops], color="#2b2b2b", linewidth=1)
    axes.annotate(
        f"{moved / 1e9:.3g} GB/s", (low, low * moved), xytext=(12, 0), textcoords="offset points", fontsize=7
    )
    axes.annotate(
        f"{flops / 1e9:.4g} GFLOP/s", (high, flops), xytext=(-2, 3), textcoords="offset points", fontsize=7,
        ha="right",
    )  # fmt: skip
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="FLOPs a byte of operands and results (what a cache still holds is faster than memory)",
        ylabel="FLOP/s",
    )
    axes.set_title("what is reached below the ceilings of the machine", loc="left", fontsize="medium")
    axes.legend(frameon=False, fontsize="x-small", loc="lower right")


def _points(suites: Iterable[Sequence[dict[str, Any]]]) -> Iterator[tuple[str, float, float]]:
    """Arm, FLOPs a byte and FLOP/s of every arm whose work is known."""
    for cases in suites:
        for case in cases:
            for arm in case["arms"]:
                flops, moved = arm.get("flops"), arm.get("bytes")
                if flops and moved and arm["seconds"]:
                    yield arm["arm"], flops / moved, flops / arm["seconds"]
