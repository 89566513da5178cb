"""`stats.plot`: accuracy over bytes, for the extra `plot`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..files import save_figure

if TYPE_CHECKING:
    from .stats import CompressionStats


def picture(stats: CompressionStats, path: str | os.PathLike[str] | None = None) -> Any:
    """See `CompressionStats.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plot needs matplotlib: pip install "stonefx[plot]"') from error
    if not stats.curve:
        raise ValueError(
            "plot: no plan was evaluated, since compress was given no data; there is no curve to draw"
        )
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    points = sorted(stats.curve, key=lambda point: point.ratio)
    ratios = [100 * point.ratio for point in points]
    accuracies = [point.accuracy for point in points]
    below = [max(point.accuracy - point.lower, 0.0) for point in points]
    above = [0.0 for _ in points]
    confidence = stats.settings.get("confidence", 0.95)
    axes.errorbar(
        ratios,
        accuracies,
        yerr=[below, above],
        fmt="o-",
        color="tab:blue",
        markersize=4,
        linewidth=1,
        capsize=3,
        label=f"plans tried, down to what they keep with {confidence:.0%} confidence",
    )
    axes.plot([100], [1.0], "s", color="tab:gray", label="as it was")
    if stats.accuracy_preserved is not None:
        axes.plot(
            [100 * stats.compression_ratio],
            [stats.accuracy_preserved],
            "*",
            color="tab:red",
            markersize=13,
            label="result, on data that chose nothing",
        )
    if stats.settings.get("max_ratio") is None and stats.settings.get("max_seconds") is None:
        floor = stats.settings.get("min_accuracy", 0.95)
        axes.axhline(floor, color="tab:gray", linestyle="--", linewidth=1, label=f"floor of {floor:g}")
    # Differences that are rounding shall not fill the picture.
    high = max([1.0, *accuracies])
    low = min(axes.get_ylim()[0], 0.989)
    axes.set_ylim(low, high + 0.05 * (high - low))
    axes.set_xlim(-2, 105)
    axes.set_xlabel("bytes of the layers chosen, % of before")
    axes.set_ylabel("share of the accuracy kept")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    if path is not None:
        save_figure(figure, path, dpi=150)
    return figure
