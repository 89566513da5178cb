"""Axes that show a disk model: equal aspect, the boundary drawn, nothing else in the way."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from stonefx.geometry import klein, lorentz, poincare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Model = Literal["klein", "poincare"]
DISKS = ("klein", "poincare")
TITLES = {"klein": "Klein", "poincare": "Poincaré", "lorentz": "Lorentz"}
COLORS = ("#2f5d8c", "#c8553d", "#4f8a5b", "#8a5a9e", "#c9972c", "#3c8f98", "#a8476b", "#6b6b6b")
BOUNDARY = "#2b2b2b"
INSIDE = "#f7f5f0"


def pyplot() -> Any:
    """matplotlib's pyplot.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError('stonefx.plot needs matplotlib: pip install "stonefx[plot]"') from error
    return pyplot


def in_model(points: Tensor, model: Model, c: float) -> Tensor:
    """Points of the Poincaré disk in another disk model."""
    return poincare.to_klein(points, c) if model == "klein" else points


def curvature(c: Any) -> float:
    """A curvature as a float: a number, or a tensor or array of one number.

    Raises:
        TypeError: it is none of these.
        ValueError: it is not positive and finite.

    >>> curvature(torch.tensor(0.5))
    0.5
    """
    if not isinstance(c, numbers.Real) and getattr(c, "shape", None) != ():
        shape = f" of shape {list(c.shape)}" if hasattr(c, "shape") else ""
        raise TypeError(f"expected c to be a number, or a 0-dim tensor, got {type(c).__name__}{shape}")
    value = float(c)
    if not 0 < value < math.inf:
        raise ValueError(f"expected a curvature c > 0, got {value!r}")
    return value


def disk_models(show: Any) -> list[Model]:
    """The disk models to show, given as one name or several.

    Raises:
        ValueError: another name, or none.

    >>> disk_models("klein"), disk_models(("klein", "poincare"))
    (['klein'], ['klein', 'poincare'])
    """
    names: list[Any] = list(show) if isinstance(show, Iterable) and not isinstance(show, str) else [show]
    wrong = [name for name in names if name not in DISKS]
    if wrong or not names:
        hint = "; compare_models draws the hyperboloid" if "lorentz" in wrong else ""
        got = repr(wrong[0]) if wrong else "none"
        raise ValueError(f"expected show to name disks, 'klein' or 'poincare', got {got}{hint}")
    return names


def one_disk(show: Any) -> Model:
    """The disk model to show, where there is one picture.

    Raises:
        ValueError: another name, or several.
    """
    if not isinstance(show, str):
        raise ValueError(f"expected show to be one disk, 'klein' or 'poincare', got {show!r}")
    return disk_models(show)[0]


def checked(points: Any, model: str, c: float, name: str = "points", plane: bool = True) -> Tensor:
    """Points of a model as float64 points of the Poincaré disk, `[n, 2]`, or ball, `[n, dim]`.

    Args:
        points: `[n, 2]` in the Klein or Poincaré disk, `[n, 3]` on the hyperboloid, with the time first.
        model: "klein", "poincare" or "lorentz".
        c: curvature, positive.
        name: what messages call the points.
        plane: no more than two dimensions will do.

    Raises:
        TypeError: `points` is no floating tensor.
        ValueError: wrong model or shape, or a point that does not lie in the model.
    """
    if model not in TITLES:
        raise ValueError(f"expected model to be one of {', '.join(map(repr, TITLES))}, got {model!r}")
    if not isinstance(points, Tensor) or not points.is_floating_point():
        got = points.dtype if isinstance(points, Tensor) else type(points).__name__
        raise TypeError(f"expected {name} to be a floating tensor, got {got}")
    width = 3 if model == "lorentz" else 2
    if points.dim() != 2 or points.shape[1] < width or (plane and points.shape[1] > width):
        wanted = f"[n, {width}]" if plane else f"[n, {width}] or wider"
        raise ValueError(f"expected {name} of shape {wanted} for model {model!r}, got {list(points.shape)}")
    exact = points.detach().cpu().double()
    if not bool(exact.isfinite().all()):
        raise ValueError(f"expected finite {name}, got NaN or infinity in {_first(~exact.isfinite().all(1))}")
    if model == "lorentz":
        time, space = exact[:, 0], exact[:, 1:]
        off = (time - (1 / c + space.square().sum(1)).sqrt()).abs() > 1e-3 * time.abs() + 1e-6
        if bool(off.any()):
            raise ValueError(
                f"expected {name} with time = sqrt(1 / c + |space|^2), c = {c}; that does not hold of {_first(off)}"
            )
        return lorentz.to_poincare(lorentz.project(exact, c), c)
    off = exact.norm(dim=1) * c**0.5 >= 1
    if bool(off.any()):
        raise ValueError(
            f"expected {name} of norm < 1 / sqrt(c) = {c**-0.5:.4g}; that does not hold of {_first(off)}"
        )
    return klein.to_poincare(exact, c) if model == "klein" else exact


def _first(wrong: Tensor) -> str:
    return f"row {int(wrong.nonzero()[0])}"


def empty_disk(axes: Axes, model: Model, c: float) -> None:
    """Prepare axes for a disk model: its boundary, filled, at its true aspect."""
    from matplotlib.patches import Circle

    radius = c**-0.5
    axes.set_aspect("equal")
    axes.set_xlim(-1.06 * radius, 1.06 * radius)
    axes.set_ylim(-1.06 * radius, 1.06 * radius)
    axes.set_axis_off()
    axes.set_title(TITLES[model])
    axes.add_patch(Circle((0, 0), radius, facecolor=INSIDE, edgecolor="none", zorder=0))
    axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor=BOUNDARY, linewidth=1.2, zorder=5))


def panels(models: Sequence[str], axes: Any, size: float = 4.2) -> tuple[Figure, list[Axes]]:
    """A figure with one panel a model, or the axes that were given.

    Raises:
        TypeError: what was given is no axes.
        ValueError: another number of axes than of models.
    """
    if axes is None:
        figure, made = pyplot().subplots(
            1, len(models), figsize=(size * len(models), size * 1.08), squeeze=False, layout="constrained"
        )
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
        return figure, list(made[0])
    # pyplot.subplots(2, 2) gives a square of them
    rows = axes.flatten() if hasattr(axes, "flatten") else axes
    given = list(rows) if isinstance(rows, Sequence) or hasattr(rows, "__len__") else [rows]
    if len(given) != len(models):
        raise ValueError(
            f"expected {len(models)} axes, one for each of {', '.join(models)}, got {len(given)}"
        )
    for each in given:
        if not hasattr(each, "add_collection"):
            raise TypeError(
                f"expected axes of matplotlib, such as those of pyplot.subplots(1, {len(models)}), got "
                f"{type(each).__name__}"
            )
    return given[0].figure, given


def segments(starts: Tensor, ends: Tensor, model: Model, c: float, steps: int = 64) -> Tensor:
    """Points along the geodesics between points of the Poincaré disk, `[n, steps, 2]` in a disk model."""
    if model == "klein":  # straight
        ends_of = [poincare.to_klein(each, c)[:, None] for each in (starts, ends)]
        t = torch.linspace(0, 1, 2, dtype=torch.float64)[None, :, None]
        return ends_of[0] + t * (ends_of[1] - ends_of[0])
    t = torch.linspace(0, 1, steps, dtype=torch.float64)[None, :, None].expand(len(starts), steps, 1)
    shape = (len(starts), steps, 2)
    return poincare.geodesic(
        starts[:, None].expand(shape).contiguous(),
        ends[:, None].expand(shape).contiguous(),
        t.contiguous(),
        c,
    )


def draw_segments(axes: Axes, lines: Tensor, **style: Any) -> None:
    """Draw lines `[n, steps, 2]`."""
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(list(lines.numpy()), capstyle="round", **style))
