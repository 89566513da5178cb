"""Speed-ups drawn: bars with their intervals, and curves where the cases are batch sizes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stonefx.benchmarks.roofline import draw_roofline, has_points
from stonefx.files import save_figure

_BATCH = re.compile(r"batch (\d+)")
_COLORS = (
    "#2f5d8c", "#c8553d", "#4f8a5b", "#8a5a9e", "#c9972c", "#3c8f98", "#a8476b", "#6b6b6b",
    "#8c8b2f", "#b07d62", "#5b7fb5", "#2f6b4f",
)  # fmt: skip
# Of a bar, and of what lies around the bars of a panel, in inches.
_BAR, _FRAME = 0.16, 1.3


def draw(document: dict[str, Any], path: str | Path) -> None:
    """Draw every suite of a result document as one panel.

    A bar is how many times as fast as the first arm of its case an arm is, with its 95 % interval; the line at 1 is the
    first arm. Cases that could not be told on a busy machine are pale.

    Args:
        document: of `result_document`.
        path: of the picture; its ending chooses the format.

    Below them stands what the arms reach under the ceilings of the machine, where the document has those.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is nothing to draw.
    """
    import matplotlib

    suites = {name: cases for name, cases in document["suites"].items() if cases}
    if not suites:
        raise ValueError("expected results with at least one case, got none; measure something first")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [_FRAME + (3.0 if is_batches(cases) else _BAR * _bars(cases)) for cases in suites.values()]
    roofline = has_points(document)
    heights += [_FRAME + 3.2] if roofline else []
    with matplotlib.rc_context({"font.size": 9, "svg.fonttype": "none"}):
        figure = Figure(figsize=(8.4, sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, cases) in zip(panels, suites.items(), strict=False):
            (_curves if is_batches(cases) else _draw_bars)(axes, cases)
            baseline = cases[0]["arms"][0]["arm"]
            axes.set_title(f"{name}: how many times as fast as {baseline}", loc="left", fontsize="medium")
            axes.spines[["top", "right"]].set_visible(False)
        if roofline:
            every = _arms([case for cases in suites.values() for case in cases])
            draw_roofline(panels[-1], document, lambda arm: every.get(arm, "#2b2b2b"))
            panels[-1].spines[["top", "right"]].set_visible(False)
        machine = document.get("machine", {})
        told = [
            machine.get("cpu"),
            machine.get("gpu"),
            f"threads: {machine.get('threads')}",
            f"torch {machine.get('torch')}",
        ]
        figure.supxlabel(", ".join(str(fact) for fact in told if fact), fontsize="x-small", color="#6b6b6b")
        save_figure(figure, path, dpi=120)


def is_batches(cases: Sequence[dict[str, Any]]) -> bool:
    """Whether the cases of a suite are batch sizes.

    >>> is_batches([{"case": "batch 1"}, {"case": "batch 8"}, {"case": "batch 32"}]), is_batches([{"case": "bert"}])
    (True, False)
    """
    return len(cases) > 2 and all(_BATCH.fullmatch(case["case"]) for case in cases)


def _bars(cases: Sequence[dict[str, Any]]) -> int:
    return sum(len(case["arms"]) for case in cases)


def _arms(cases: Sequence[dict[str, Any]]) -> dict[str, str]:
    names = dict.fromkeys(arm["arm"] for case in cases for arm in case["arms"][1:])
    return {name: _COLORS[number % len(_COLORS)] for number, name in enumerate(names)}


def _error(arm: dict[str, Any]) -> tuple[float, float]:
    low, high = arm.get("interval") or (arm["speedup"], arm["speedup"])
    # A median of ratios lies in its interval, but for rounding.
    return max(arm["speedup"] - low, 0.0), max(high - arm["speedup"], 0.0)


def _draw_bars(axes: Any, cases: Sequence[dict[str, Any]]) -> None:
    place, ticks = 0, []
    colors = _arms(cases)
    for case in cases:
        arms = case["arms"][1:]
        ticks.append((place + (len(arms) - 1) / 2, case["case"] + (" (noisy)" if case["noisy"] else "")))
        for arm in arms:
            pale = 0.45 if case["noisy"] else 1.0
            low, high = _error(arm)
            axes.barh(place, arm["speedup"], 0.8, color=colors[arm["arm"]], alpha=pale)
            axes.errorbar(
                arm["speedup"], place, xerr=[[low], [high]], color="#2b2b2b", linewidth=0.8, capsize=1.5
            )
            axes.annotate(
                f"{arm['speedup']:.2g}x", (arm["speedup"] + high, place), xytext=(3, 0), textcoords="offset points",
                va="center", fontsize=6,
            )  # fmt: skip
            place += 1
        place += 1
    axes.axvline(1, color="#2b2b2b", linewidth=0.8)
    speedups = [arm["speedup"] for case in cases for arm in case["arms"][1:] if arm["speedup"] > 0]
    if speedups and max(speedups) > 8 * min(speedups):
        axes.set_xscale("log")
        _ratios(axes.xaxis)
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    axes.invert_yaxis()
    handles = [axes.barh(0, 0, color=color, label=name) for name, color in colors.items()]
    axes.legend(handles=handles, frameon=False, fontsize="x-small", loc="best")


def _curves(axes: Any, cases: Sequence[dict[str, Any]]) -> None:
    sizes = [int(_BATCH.fullmatch(case["case"])[1]) for case in cases]  # type: ignore[index]
    for name, color in _arms(cases).items():
        points = [
            (size, arm)
            for size, case in zip(sizes, cases, strict=True)
            for arm in case["arms"]
            if arm["arm"] == name
        ]
        across = [size for size, _ in points]
        axes.plot(across, [arm["speedup"] for _, arm in points], "o-", color=color, label=name, markersize=3)
        ends = [
            (arm["speedup"] - low, arm["speedup"] + high) for _, arm in points for low, high in (_error(arm),)
        ]
        axes.fill_between(
            across, [low for low, _ in ends], [high for _, high in ends], color=color, alpha=0.2
        )
    axes.axhline(1, color="#2b2b2b", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    _ratios(axes.yaxis)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlabel("batch")
    axes.legend(frameon=False, fontsize="x-small", ncols=2)


def _ratios(axis: Any) -> None:
    """Ticks of a logarithmic axis as ratios, such as 0.5x and 20x."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}x"))
    axis.set_minor_formatter(NullFormatter())
