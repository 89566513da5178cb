"""The same points in the Klein disk, the Poincaré disk and on the hyperboloid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from stonefx.geometry import poincare

from .disk import (
    BOUNDARY,
    COLORS,
    TITLES,
    curvature,
    draw_segments,
    empty_disk,
    in_model,
    pyplot,
    segments,
)
from .reduction import Method, in_the_plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compare_models(
    points: Tensor,
    *,
    model: Literal["klein", "poincare", "lorentz"] = "poincare",
    c: float = 1.0,
    labels: Sequence[Any] | None = None,
    edges: Tensor | Iterable[tuple[int, int]] | None = None,
    reduce: Method | None = None,
) -> Figure:
    """Draw points in the Klein disk, the Poincaré disk and on the hyperboloid, side by side.

    Args:
        points: `[n, 2]` in the Klein or Poincaré disk, or `[n, 3]` on the hyperboloid with the time first; with
            `reduce` of any number of dimensions.
        model: the model that `points` are coordinates of.
        c: curvature, a positive number or 0-dim tensor.
        labels: a class for each point; each class has its colour and its line in the legend.
        edges: pairs of indices, drawn as geodesics.
        reduce: "horopca" or "tangent" brings points of more than two dimensions into the plane, with their centroid at
            the origin, see `reduce_points`; the figure says how much of the squared distances is kept.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: `points` is no floating tensor, `c` no number, or `edges` no pairs of indices.
        ValueError: wrong shapes, a point outside the model, an index out of range, a wrong number of labels.

    >>> import torch
    >>> figure = compare_models(torch.tensor([[0.0, 0.0], [0.5, 0.2]]), labels=["root", "leaf"])
    >>> [axes.get_title() for axes in figure.axes]
    ['Klein', 'Poincaré', 'Lorentz']
    """
    c = curvature(c)
    ball, caption = in_the_plane(points, model, c, reduce)
    if labels is not None and len(labels) != len(ball):
        raise ValueError(f"expected {len(ball)} labels, one a point, got {len(labels)}")
    pairs = index_pairs(edges, len(ball))
    figure = pyplot().figure(figsize=(12.6, 4.8), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.12)
    if caption:
        figure.suptitle(caption, fontsize="medium")
    disks = [figure.add_subplot(1, 3, place) for place in (1, 2)]
    space = figure.add_subplot(1, 3, 3, projection="3d")
    for axes, name in zip(disks, ("klein", "poincare"), strict=True):
        empty_disk(axes, name, c)  # type: ignore[arg-type]
        lines = segments(ball[pairs[:, 0]], ball[pairs[:, 1]], name, c)  # type: ignore[arg-type]
        draw_segments(axes, lines, colors="#9a9a9a", linewidths=0.9, zorder=2)
    _hyperboloid(space, ball, pairs, c)
    shown = [in_model(ball, "klein", c), ball, poincare.to_lorentz(ball, c)[:, (1, 2, 0)]]
    for (number, label), places in _classes(labels, len(ball)):
        color = COLORS[number % len(COLORS)]
        for axes, coordinates in zip((*disks, space), shown, strict=True):
            flat = {"depthshade": False} if axes is space else {}
            axes.scatter(*coordinates[places].unbind(1), s=22, color=color, label=label, zorder=6, **flat)
    if labels is not None:
        handles, names = disks[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 8), frameon=False)
    return figure


def _classes(labels: Sequence[Any] | None, count: int) -> list[tuple[tuple[int, str | None], list[int]]]:
    """A number and name for each class, with the places of its points."""
    if labels is None:
        return [((0, None), list(range(count)))]
    found: dict[Any, list[int]] = {}
    for place, label in enumerate(labels):
        key = label.item() if isinstance(label, Tensor) else label
        found.setdefault(key, []).append(place)
    return [((number, str(name)), places) for number, (name, places) in enumerate(found.items())]


def _hyperboloid(axes: Any, ball: Tensor, pairs: Tensor, c: float) -> None:
    """The sheet as far up as the points go, and the edges on it."""
    lifted = poincare.to_lorentz(ball, c)
    reach = 1.15 * max(float(lifted[:, 1:].norm(dim=1).max()) if len(ball) else 0.0, 1.2 * c**-0.5)
    radius = torch.linspace(0, reach, 24, dtype=torch.float64)[:, None]
    angle = torch.linspace(0, 2 * torch.pi, 49, dtype=torch.float64)[None]
    x, y, time = radius * angle.cos(), radius * angle.sin(), (1 / c + radius**2).sqrt() + 0 * angle
    axes.plot_wireframe(
        x.numpy(), y.numpy(), time.numpy(), rstride=4, cstride=4, color="#c9c4b8", linewidth=0.5, zorder=1
    )
    axes.plot(*(line[-1].numpy() for line in (x, y, time)), color=BOUNDARY, linewidth=0.9)
    for line in segments(ball[pairs[:, 0]], ball[pairs[:, 1]], "poincare", c):
        axes.plot(*poincare.to_lorentz(line, c)[:, (1, 2, 0)].numpy().T, color="#9a9a9a", linewidth=0.9)
    axes.set_title(TITLES["lorentz"])
    axes.set_box_aspect((1, 1, 0.75), zoom=0.88)
    axes.view_init(elev=22, azim=-60)
    axes.set_xlabel("$x_1$")
    axes.set_ylabel("$x_2$")
    axes.set_zlabel("$x_0$")
    axes.locator_params(nbins=4)


def index_pairs(edges: Tensor | Iterable[tuple[int, int]] | None, count: int) -> Tensor:
    """Edges as indices `[n, 2]`.

    Args:
        edges: a tensor or array `[n, 2]`, or any iterable of pairs.
        count: how many points there are.

    Raises:
        TypeError: no iterable of pairs of integers.
        ValueError: wrong shapes, or an index out of range.
    """
    if edges is None:
        return torch.zeros(0, 2, dtype=torch.long)
    try:
        # An array goes over as a whole; a set or an iterator has no shape.
        pairs = torch.as_tensor(edges if hasattr(edges, "shape") else [tuple(pair) for pair in edges]).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"expected edges to be pairs of indices, such as [(0, 1), (0, 2)], got {edges!r:.80} "
            f"({type(edges).__name__})"
        ) from error
    if pairs.shape[:1] == (0,):
        return torch.zeros(0, 2, dtype=torch.long)
    if pairs.dim() != 2 or pairs.shape[1] != 2 or pairs.is_floating_point():
        raise ValueError(
            f"expected edges of shape [n, 2] holding indices, got {list(pairs.shape)}, {pairs.dtype}"
        )
    if int(pairs.min()) < 0 or int(pairs.max()) >= count:
        raise ValueError(
            f"expected edges between points 0 to {count - 1}, got {int(pairs.min())} to {int(pairs.max())}"
        )
    return pairs.long()
