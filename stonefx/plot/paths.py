"""Geodesics: straight in the Klein disk, arcs of circles in the Poincaré disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from .disk import (
    COLORS,
    Model,
    checked,
    curvature,
    disk_models,
    draw_segments,
    empty_disk,
    in_model,
    panels,
    segments,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def geodesics(
    starts: Tensor,
    ends: Tensor,
    *,
    model: Literal["klein", "poincare", "lorentz"] = "poincare",
    c: float = 1.0,
    show: Model | Sequence[Model] = ("klein", "poincare"),
    axes: Any = None,
) -> Figure:
    """Draw the geodesics between pairs of points, one panel for each model shown.

    Args:
        starts, ends: `[n, 2]` in the Klein or Poincaré disk, or `[n, 3]` on the hyperboloid with the time first.
        model: the model that they are coordinates of.
        c: curvature, a positive number or 0-dim tensor.
        show: the disk models to show, or one.
        axes: matplotlib axes to draw on, one a model shown; a new figure if left out.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: a tensor is not floating, `c` is no number, or `axes` are no axes.
        ValueError: wrong shapes, a point outside the model, a model that is no disk, or a wrong number of axes.

    >>> import torch
    >>> figure = geodesics(torch.tensor([[0.7, 0.0]]), torch.tensor([[0.0, 0.7]]))
    >>> [axes.get_title() for axes in figure.axes]
    ['Klein', 'Poincaré']
    """
    c, shown = curvature(c), disk_models(show)
    first, second = checked(starts, model, c, "starts"), checked(ends, model, c, "ends")
    if len(first) != len(second):
        raise ValueError(f"expected as many starts as ends, got {len(first)} and {len(second)}")
    figure, drawn = panels(shown, axes)
    colors = [COLORS[place % len(COLORS)] for place in range(len(first))]
    for panel, name in zip(drawn, shown, strict=True):
        empty_disk(panel, name, c)
        draw_segments(panel, segments(first, second, name, c), colors=colors, linewidths=1.6, zorder=3)
        for points in (first, second):
            across, up = in_model(points, name, c).unbind(1)
            panel.scatter(across, up, s=20, c=colors, zorder=6)
    return figure
