"""Regular tilings `{p, q}` of the hyperbolic plane: polygons of `p` sides, `q` of them around each corner."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stonefx.geometry import lorentz, poincare

from .disk import Model, draw_segments, empty_disk, one_disk, panels, segments

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#dfe7ee", "#f3d9b8")
_EDGE = "#55606b"
_MOST_TILES = 20_000


def tessellation(p: int, q: int, *, layers: int = 3, show: Model = "poincare", axes: Any = None) -> Figure:
    """Draw the regular tiling `{p, q}` around a polygon at the origin, in curvature -1.

    Args:
        p: sides of a polygon, at least 3.
        q: polygons around a corner, at least 3.
        layers: how many rings of polygons to draw around the one in the middle; a polygon belongs to the ring
            that says how many sides a path from the middle crosses.
        show: the disk model to show.
        axes: matplotlib axes to draw on; a new figure if left out.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: `axes` are no axes.
        ValueError: `(p - 2) (q - 2) <= 4`, so that the tiling is not hyperbolic; more than 20,000 polygons; or a model
            to show that is no disk.

    >>> figure = tessellation(7, 3, layers=1)
    >>> len(figure.axes[0].collections[0].get_paths())
    8
    """
    show = one_disk(show)
    tiles, rings = polygons(p, q, layers)
    figure, (panel,) = panels([show], axes, size=5.0)
    empty_disk(panel, show, 1.0)
    panel.set_title(f"{{{p}, {q}}}")
    corners = tiles.flatten(0, 1)
    following = tiles.roll(-1, 1).flatten(0, 1)
    steps = 2 if show == "klein" else 24
    lines = segments(corners, following, show, 1.0, steps).unflatten(0, (len(tiles), p))
    from matplotlib.collections import PolyCollection

    outlines = lines[:, :, :-1].flatten(1, 2).numpy()
    fills = [_COLORS[ring % 2] for ring in rings]
    panel.add_collection(PolyCollection(list(outlines), facecolors=fills, edgecolors="none", zorder=1))
    draw_segments(panel, lines.flatten(0, 1), colors=_EDGE, linewidths=0.5, zorder=2)
    return figure


def polygons(p: int, q: int, layers: int) -> tuple[Tensor, list[int]]:
    """The corners of the polygons in the Poincaré disk, `[n, p, 2]` in float64, and the ring of each.

    Neighbours are reflections in the sides, `x - 2 <x, n> n` on the hyperboloid with `n` the unit normal of a side.
    The corners of the middle lie at radius `sqrt(cos(a + b) / cos(a - b))` with `a = pi / p`, `b = pi / q`
    (Coxeter, "Regular Polytopes", 1973).

    Raises:
        ValueError: see `tessellation`.

    >>> tiles, rings = polygons(5, 4, 2)
    >>> rings.count(0), rings.count(1)
    (1, 5)
    """
    for name, value in (("p", p), ("q", q)):
        if not isinstance(value, int) or value < 3:
            raise ValueError(f"expected {name} to be an integer of at least 3, got {value!r}")
    if (p - 2) * (q - 2) <= 4:
        kind = "Euclidean" if (p - 2) * (q - 2) == 4 else "spherical"
        raise ValueError(f"expected (p - 2) (q - 2) > 4; the tiling {{{p}, {q}}} is {kind}")
    if not isinstance(layers, int) or layers < 0:
        raise ValueError(f"expected layers to be an integer of at least 0, got {layers!r}")
    a, b = math.pi / p, math.pi / q
    radius = math.sqrt(math.cos(a + b) / math.cos(a - b))
    turns = 2 * a * torch.arange(p, dtype=torch.float64) + math.pi / 2
    middle = poincare.to_lorentz(radius * torch.stack([turns.cos(), turns.sin()], 1))
    tiles, rings = [middle], [0]
    known = {_place(middle)}
    edge = [middle]
    for ring in range(1, layers + 1):
        following = []
        for tile in edge:
            for side in range(p):
                reflected = _reflected(tile, tile[side], tile[(side + 1) % p])
                if (place := _place(reflected)) not in known:
                    known.add(place)
                    following.append(reflected)
            if len(known) > _MOST_TILES:
                raise ValueError(
                    f"{layers} layers of {{{p}, {q}}} are more than {_MOST_TILES:,} polygons; ask for fewer"
                )
        tiles += following
        rings += [ring] * len(following)
        edge = following
    return lorentz.to_poincare(torch.stack(tiles)), rings


def _reflected(points: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Points of the hyperboloid, reflected in the geodesic through two of its points."""
    normal = torch.linalg.cross(one, other)
    normal = normal * normal.new_tensor([-1.0, 1.0, 1.0])  # orthogonal in the Lorentzian inner product
    normal = normal / lorentz.inner(normal, normal).abs().sqrt()
    reflected = points - 2 * lorentz.inner(points, normal.expand_as(points))[:, None] * normal
    return lorentz.project(reflected)


def _place(tile: Tensor) -> tuple[int, int]:
    """A key for a polygon: where its middle lies, coarser than rounding."""
    # The tangent vector at the origin: far out, where disks crowd, polygons stay apart in it.
    x, y = (1e5 * lorentz.logmap0(lorentz.project(tile.mean(0)))[1:]).tolist()
    return round(x), round(y)
