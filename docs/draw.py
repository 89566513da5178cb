"""The pictures of the documentation: `python docs/draw.py [FOLDER]` draws them into docs/pictures.

What they show is computed here: times by the cost model of a default machine, errors against 40 digits. They hold no
measured time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import mpmath
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "ops"))

import exact

from stonefx.geometry import klein, lorentz, poincare, sphere
from stonefx.passes.cost.machine import Machine

HERE = Path(__file__).resolve().parent
BLUE, RED, GREY = "#2563eb", "#dc2626", "#6b7280"
EPS = torch.finfo(torch.float32).eps


def main(folder: Path) -> None:
    """Draw all."""
    # Names of paths in an SVG are random otherwise, and each run would change each file.
    pyplot.rcParams.update({"svg.hashsalt": "stonefx", "svg.fonttype": "none", "font.size": 10})
    pictures: dict[str, Callable[[], Figure]] = {
        "pipeline": pipeline,
        "region": region,
        "price": price,
        "errors-poincare": errors_poincare,
        "errors-two-points": errors_two_points,
        "errors-lorentz": errors_lorentz,
        "errors-klein": errors_klein,
        "errors-sphere": errors_sphere,
        "errors-pairs": errors_pairs,
    }
    for name, draw in pictures.items():
        figure = draw()
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)


def box(axes: Axes, x: float, y: float, text: str, colour: str = GREY, width: float = 1.7) -> None:
    """A box with its middle at a place."""
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - 0.3), width, 0.6, boxstyle="round,pad=0.05", fc="white", ec=colour, lw=1.6
        )
    )
    axes.text(x, y, text, ha="center", va="center", color="#111827")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    """An arrow between two places."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=GREY, lw=1.2))
    if text:
        axes.text((start[0] + end[0]) / 2 + 0.1, (start[1] + end[1]) / 2, text, va="center", color=GREY)


def canvas(width: float, height: float, x: float, y: float) -> tuple[Figure, Axes]:
    """A figure without axes, in units of boxes."""
    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.set(xlim=(0, x), ylim=(0, y), aspect="equal")
    axes.axis("off")
    return figure, axes


def pipeline() -> Figure:
    """From a model to the module that runs."""
    figure, axes = canvas(9, 3.1, 12, 4)
    steps = ["your model", "capture", "passes", "lower", "what runs"]
    below = [
        "nn.Module, or a\ngraph of Dynamo",
        "one ATen graph, and\nevery fact it relies on",
        "find, price, rewrite,\nverify each site",
        "operators that\nthe device has",
        "a module of its own,\nor inductor's code",
    ]
    for place, (name, text) in enumerate(zip(steps, below, strict=True)):
        x = 1.2 + 2.4 * place
        box(axes, x, 2.6, name, BLUE if name == "passes" else GREY)
        axes.text(x, 1.75, text, ha="center", va="center", fontsize=8, color=GREY)
        if place:
            arrow(axes, (x - 1.5, 2.6), (x - 0.9, 2.6))
    axes.text(
        6, 0.6, "the report: each place that was looked at, rewritten or refused", ha="center", color=RED
    )
    arrow(axes, (6, 1.35), (6, 0.85))
    return figure


def region() -> Figure:
    """A residual block of linear maps, and the one map that it is."""
    figure, axes = canvas(8, 3.9, 10.6, 5)
    box(axes, 2, 4.4, "x")
    box(axes, 3.2, 3.2, "linear 64 -> 256")
    box(axes, 3.2, 2.1, "linear 256 -> 64")
    box(axes, 2, 0.9, "add", RED)
    arrow(axes, (2.3, 4.05), (2.9, 3.55))
    arrow(axes, (3.2, 2.85), (3.2, 2.45))
    arrow(axes, (2.9, 1.75), (2.4, 1.25))
    arrow(axes, (1.7, 4.05), (1.7, 1.25))
    axes.text(5.9, 2.6, "is", ha="center", color=GREY)
    box(axes, 8.4, 4.4, "x")
    box(axes, 8.4, 2.6, "linear 64 -> 64", BLUE, 2)
    box(axes, 8.4, 0.9, "the same values")
    arrow(axes, (8.4, 4.05), (8.4, 2.95), "weight: B A + I")
    arrow(axes, (8.4, 2.25), (8.4, 1.25), "bias: B a + b")
    return figure


def price() -> Figure:
    """What two layers are predicted to take as they stand and merged, for a thick and a thin middle."""
    machine = Machine()
    rows = [2**power for power in range(0, 13)]
    figure, both = pyplot.subplots(1, 2, figsize=(9, 3.3), layout="constrained", sharey=True)
    for axes, middle in zip(both, (1024, 32), strict=True):
        apart = [
            machine.linear_seconds(n, 256, middle, 4) + machine.linear_seconds(n, middle, 256, 4)
            for n in rows
        ]
        merged = [machine.linear_seconds(n, 256, 256, 4) for n in rows]
        axes.loglog(rows, [1e6 * t for t in apart], color=RED, label="two maps, as they stand")
        axes.loglog(rows, [1e6 * t for t in merged], color=BLUE, label="one map, merged")
        axes.set(title=f"256 -> {middle} -> 256", xlabel="rows")
        axes.grid(alpha=0.3)
    both[0].set_ylabel("predicted microseconds")
    both[0].legend()
    return figure


def directions(count: int, dim: int, seed: int) -> torch.Tensor:
    """Random unit rows."""
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=-1, keepdim=True)


Row = list[mpmath.mpf]
Textbook = Callable[..., Row]


def worst_error(result: torch.Tensor, vectors: Sequence[torch.Tensor], textbook: Textbook) -> float:
    """The largest error of a row, over the norm of the row."""
    errors = []
    with mpmath.workdps(40):
        for got, *rows in zip(
            result.reshape(len(vectors[0]), -1).tolist(), *(v.tolist() for v in vectors), strict=True
        ):
            want = textbook(*([mpmath.mpf(e) for e in row] for row in rows), mpmath.mpf(1))
            difference = exact.norm([mpmath.mpf(g) - w for g, w in zip(got, want, strict=True)])
            size = exact.norm(want)
            errors.append(float(difference / size) if size else 0.0)
    return max(max(errors), 1e-9)


Operator = Callable[..., torch.Tensor]


def curves(
    axes: Axes,
    title: str,
    places: Sequence[float],
    make: Callable[[float], list[torch.Tensor]],
    ours: Operator,
    plain: Operator,
    textbook: Textbook,
) -> None:
    """The error of an operator and of the plain formula, both in float32, over places."""
    for function, colour, label in ((plain, RED, "plain torch"), (ours, BLUE, "stonefx")):
        errors = []
        for place in places:
            vectors = [v.float() for v in make(place)]
            errors.append(worst_error(function(*vectors), vectors, textbook))
        finite = [e if e == e and e < 10 else 10.0 for e in errors]
        axes.loglog(places, finite, color=colour, label=label)
    axes.axhline(EPS, color=GREY, lw=0.8, ls=":")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)


def grid(titles: int) -> tuple[Figure, list[Axes]]:
    """Axes in a row, with the labels that all share."""
    figure, found = pyplot.subplots(1, titles, figsize=(3.2 * titles, 3.1), layout="constrained", sharey=True)
    found[0].set(ylabel="largest error, float32")
    return figure, list(found)


def finished(figure: Figure, axes: Sequence[Axes], label: str) -> Figure:
    """With a legend and the label of what lies below."""
    for one in axes:
        one.set_xlabel(label)
    axes[0].legend(loc="best", fontsize=8)
    return figure


# Gaps to the boundary, of which float32 knows those above 1e-7.
GAPS = [10 ** (-k / 3) for k in range(1, 20)]
STEPS = [10 ** (k / 3) for k in range(-24, 0)]
DISTANCES = [10 ** (k / 6) for k in range(-24, 8)]


def at_radius(gap: float, seed: int = 1, count: int = 6, dim: int = 8) -> torch.Tensor:
    """Points of the ball, so far from its boundary."""
    return directions(count, dim, seed) * (1 - gap)


def plain_mobius_add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The formula as papers have it."""
    xy, xx, yy = (x * y).sum(-1, keepdim=True), (x * x).sum(-1, keepdim=True), (y * y).sum(-1, keepdim=True)
    return ((1 + 2 * xy + yy) * x + (1 - xx) * y) / (1 + 2 * xy + xx * yy)


def plain_dist(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The distance as papers have it."""
    return 2 * torch.atanh(plain_mobius_add(-x, y).norm(dim=-1).clamp(max=1 - 1e-7))


def errors_poincare() -> Figure:
    """Maps of one point of the Poincaré ball towards its boundary."""
    figure, axes = grid(3)

    def radial(function: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
        return lambda x: function(x.norm(dim=-1, keepdim=True)) * x / x.norm(dim=-1, keepdim=True)

    curves(axes[0], "logmap0", GAPS, lambda g: [at_radius(g)], poincare.logmap0, radial(torch.atanh),
           lambda x, c: exact.along(x, mpmath.atanh, c))  # fmt: skip
    curves(axes[1], "dist0", GAPS, lambda g: [at_radius(g)], poincare.dist0,
           lambda x: 2 * torch.atanh(x.norm(dim=-1)), exact.poincare_dist0)  # fmt: skip
    curves(axes[2], "conformal_factor", GAPS, lambda g: [at_radius(g)], poincare.conformal_factor,
           lambda x: 2 / (1 - x.square().sum(-1)), exact.conformal_factor)  # fmt: skip
    return finished(figure, axes, "gap to the boundary")


def errors_two_points() -> Figure:
    """Maps of two points of the Poincaré ball that come near each other, at radius 0.99."""
    figure, axes = grid(3)

    def neighbours(step: float) -> list[torch.Tensor]:
        x = at_radius(0.01)
        return [x, x + step * 0.005 * directions(len(x), x.shape[-1], 2)]

    def plain_logmap(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        w = plain_mobius_add(-x, y)
        n = w.norm(dim=-1, keepdim=True).clamp_min(1e-15)
        return (1 - x.square().sum(-1, keepdim=True)) * torch.atanh(n.clamp(max=1 - 1e-7)) * w / n

    curves(axes[0], "dist", STEPS, neighbours, poincare.dist, plain_dist, exact.poincare_dist)
    curves(axes[1], "mobius_add(-x, y)", STEPS, neighbours, lambda x, y: poincare.mobius_add(-x, y),
           lambda x, y: plain_mobius_add(-x, y),
           lambda x, y, c: exact.mobius_add(exact.scaled(x, -1), y, c))  # fmt: skip
    curves(axes[2], "logmap", STEPS, neighbours, poincare.logmap, plain_logmap, exact.logmap)
    return finished(figure, axes, "how far apart, over 0.005")


def on_hyperboloid(distance: float, seed: int) -> torch.Tensor:
    """Points so far from the origin."""
    space = directions(6, 8, seed) * torch.sinh(torch.tensor(distance, dtype=torch.float64))
    return torch.cat([(1 + space.square().sum(-1, keepdim=True)).sqrt(), space], dim=-1)


def errors_lorentz() -> Figure:
    """Maps of the hyperboloid near the origin and far from it."""
    figure, axes = grid(3)

    def inner(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x[..., 1:] * y[..., 1:]).sum(-1) - x[..., 0] * y[..., 0]

    def plain_logmap0(x: torch.Tensor) -> torch.Tensor:
        u, space = torch.acosh(x[..., :1].clamp_min(1.0)), x[..., 1:]
        return torch.cat([torch.zeros_like(u), u * space / space.norm(dim=-1, keepdim=True)], dim=-1)

    curves(axes[0], "logmap0", DISTANCES, lambda d: [on_hyperboloid(d, 1)], lorentz.logmap0, plain_logmap0,
           exact.lorentz_logmap0)  # fmt: skip
    curves(axes[1], "dist", DISTANCES, lambda d: [on_hyperboloid(d, 1), on_hyperboloid(d, 2)], lorentz.dist,
           lambda x, y: torch.acosh((-inner(x, y)).clamp_min(1.0)), exact.lorentz_dist)  # fmt: skip

    def near(distance: float) -> list[torch.Tensor]:
        x = on_hyperboloid(distance, 1)
        space = x[..., 1:] * (1 + 1e-3)
        return [x, torch.cat([(1 + space.square().sum(-1, keepdim=True)).sqrt(), space], dim=-1)]

    curves(axes[2], "dist of neighbours", DISTANCES, near, lorentz.dist,
           lambda x, y: torch.acosh((-inner(x, y)).clamp_min(1.0)), exact.lorentz_dist)  # fmt: skip
    return finished(figure, axes, "distance from the origin")


def errors_klein() -> Figure:
    """Maps of the Klein ball towards its boundary."""
    figure, axes = grid(2)

    def plain_klein_dist(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        both = (1 - x.square().sum(-1)) * (1 - y.square().sum(-1))
        return torch.acosh(((1 - (x * y).sum(-1)) / both.sqrt()).clamp_min(1.0))

    curves(axes[0], "dist", GAPS, lambda g: [at_radius(g, 1), at_radius(g, 2)], klein.dist, plain_klein_dist,
           exact.klein_dist)  # fmt: skip
    curves(axes[1], "to_poincare", GAPS, lambda g: [at_radius(g)], klein.to_poincare,
           lambda x: x / (1 + (1 - x.square().sum(-1, keepdim=True)).sqrt()), exact.klein_to_poincare)  # fmt: skip
    return finished(figure, axes, "gap to the boundary")


def errors_sphere() -> Figure:
    """Distances on the sphere of points that come near each other."""
    figure, axes = grid(2)
    x = directions(6, 8, 1)

    def apart(angle: float) -> list[torch.Tensor]:
        other = directions(6, 8, 2)
        other = other - (other * x).sum(-1, keepdim=True) * x
        other = other / other.norm(dim=-1, keepdim=True)
        cosine, sine = torch.tensor(angle).double().cos(), torch.tensor(angle).double().sin()
        return [x, cosine * x + sine * other]

    curves(axes[0], "dist, near", STEPS, apart, sphere.dist, lambda x, y: torch.acos((x * y).sum(-1).clamp(-1, 1)),
           exact.sphere_dist)  # fmt: skip
    curves(axes[1], "dist, near the antipode", STEPS, lambda a: apart(3.141592653589793 - a), sphere.dist,
           lambda x, y: torch.acos((x * y).sum(-1).clamp(-1, 1)), exact.sphere_dist)  # fmt: skip
    return finished(figure, axes, "angle, and angle to the antipode")


def errors_pairs() -> Figure:
    """Distance matrices, one entry of each."""
    figure, axes = grid(2)

    def neighbours(step: float) -> list[torch.Tensor]:
        x = at_radius(0.05)
        return [x, x + step * 0.02 * directions(len(x), x.shape[-1], 2)]

    for one, mode in zip(axes, ("accurate", "fast"), strict=True):
        curves(one, f'cdist, mode="{mode}"', STEPS, neighbours,
               lambda x, y, mode=mode: poincare.cdist(x, y, mode=mode).diagonal(), plain_dist,
               exact.poincare_dist)  # fmt: skip
    return finished(figure, axes, "how far apart, over 0.02")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "pictures")
