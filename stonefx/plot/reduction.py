"""Points of more than two dimensions in the plane, so that as much of their distances is kept as can be."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from stonefx.geometry import lorentz, poincare

from .disk import checked

Method = Literal["tangent", "horopca"]
TITLES = {"tangent": "Tangent PCA", "horopca": "HoroPCA"}
# Directions are fitted to at most so many points: all pairs of them are looked at in each of the steps.
_MOST, _STEPS = 400, 100


class Reduced(NamedTuple):
    """Points of the plane and how good they are.

    Args:
        points: `[n, 2]` in the Poincaré disk, float64; the centroid of the points is the origin.
        kept: the sum of the squared distances of all pairs over that of the points given, 1 where there are none.
    """

    points: Tensor
    kept: float


def reduce_points(points: Tensor, method: Method = "horopca", c: float = 1.0) -> Reduced:
    """Bring points of the Poincaré ball into the plane.

    The points are moved so that their centroid is the origin. "tangent" shows the two principal components of their
    tangent vectors there: distances from the centroid of what lies in the plane are kept, others shrink. "horopca"
    (Chami et al. 2021, "HoroPCA: Hyperbolic Dimensionality Reduction via Horospherical Projections") projects along
    horospheres about two ideal points, which keeps distances along the lines to them and lets none grow; the ideal
    points are those that keep the most of the squared distances of all pairs, found from the principal components on
    by gradients.

    Args:
        points: `[n, dim]`, `dim >= 2`, in the ball of curvature `-c`.
        method: "tangent" or "horopca".
        c: curvature.

    Raises:
        ValueError: there is no such method, or `dim < 2`.

    >>> line = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, -0.5]])
    >>> reduced = reduce_points(line)
    >>> reduced.points.shape, round(reduced.kept, 4)
    (torch.Size([3, 2]), 1.0)
    """
    if method not in TITLES:
        raise ValueError(f"expected reduce to be {' or '.join(map(repr, TITLES))}, got {method!r}")
    if points.dim() != 2 or points.shape[1] < 2:
        raise ValueError(f"expected points of shape [n, dim] with dim >= 2, got {list(points.shape)}")
    exact = points.detach().cpu().double() * math.sqrt(c)
    if not len(exact):
        return Reduced(exact[:, :2], 1.0)
    centred = poincare.mobius_add(-poincare.gyromidpoint(exact), exact)
    axes = torch.linalg.svd(poincare.logmap0(centred), full_matrices=False).Vh
    # Fewer points than two leave directions open, and any do.
    axes = torch.cat([axes, torch.eye(exact.shape[1], dtype=torch.float64)])[:2]
    axes = torch.linalg.qr(axes.T).Q.T
    # Decompositions leave the signs open, and libraries choose them differently.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    if method == "tangent":
        plane = poincare.expmap0(poincare.logmap0(centred) @ axes.T)
    else:
        plane = lorentz.to_poincare(_horospherical_plane(poincare.to_lorentz(centred), axes))
    before, after = (_spread(poincare.to_lorentz(each)) for each in (centred, plane))
    return Reduced(plane / math.sqrt(c), float(after / before) if before > 0 else 1.0)


def in_the_plane(
    points: Any, model: str, c: float, reduce: Method | None, name: str = "points"
) -> tuple[Tensor, str]:
    """Points to draw, and a line that says what became of them; empty where they are drawn as they are.

    Args:
        points, model, c, name: see `disk.checked`.
        reduce: how to bring points of more dimensions into the plane; None takes none of more.

    Raises:
        TypeError, ValueError: as `disk.checked`, and for `reduce`.
    """
    if reduce is None:
        try:
            return checked(points, model, c, name), ""
        except ValueError as error:
            wide = (
                isinstance(points, Tensor)
                and points.dim() == 2
                and points.shape[1] > 2 + (model == "lorentz")
            )
            hint = "; reduce='horopca' or 'tangent' brings more dimensions into the plane" if wide else ""
            raise ValueError(f"{error}{hint}") from None
    ball = checked(points, model, c, name, plane=False)
    found = reduce_points(ball, reduce, c)
    return found.points, (
        f"{TITLES[reduce]} of {ball.shape[1]} dimensions: {found.kept:.0%} of the squared distances"
    )


def _horospherical_plane(x: Tensor, axes: Tensor) -> Tensor:
    """The projection of points of the hyperboloid, `[n, 3]`, that keeps the most of those that were tried.

    Args:
        x: `[n, 1 + dim]`.
        axes: orthonormal directions to start from, `[2, dim]`.
    """
    chosen = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:_MOST]]
    angles = [torch.tensor(a, dtype=x.dtype) for a in (0.3, math.pi / 4)]
    turns = [(each, a) for each in (axes, axes.flip(0), -axes, -axes.flip(0)) for a in angles]
    tried = []
    for found in turns:
        tried.append((float(_spread(horospherical(chosen, *found))), found))
    for _, (plane, angle) in sorted(tried, key=lambda each: -each[0])[:2]:
        free, logit = plane.T.clone().requires_grad_(), (angle / (math.pi / 2)).logit().requires_grad_()
        optimizer = torch.optim.Adam([free, logit], lr=0.05)
        for _ in range(_STEPS):
            found = torch.linalg.qr(free).Q.T, logit.sigmoid() * (math.pi / 2)
            kept = _spread(horospherical(chosen, *found))
            tried.append((float(kept.detach()), (found[0].detach(), found[1].detach())))
            optimizer.zero_grad()
            (-kept).backward()
            optimizer.step()
    return horospherical(x, *max(tried, key=lambda each: each[0])[1])


def horospherical(x: Tensor, plane: Tensor, angle: Tensor) -> Tensor:
    """The points of a plane through the origin that lie on the horospheres of `x` about two ideal points of it.

    The ideal points are `p = (1, cos a, s sin a)` for `s = 1, -1`. With `b = -<x, p>` and
    `n = (cos a, 1, 0) / sin a`, of length 1 and orthogonal to both,
    `y = (b_2 p_1 + b_1 p_2) / (2 sin^2 a) - t n`, where `t^2 = b_1 b_2 / sin^2 a - 1 >= 0` brings it onto the
    hyperboloid. The sign is that of the origin, on whose side of the line between the ideal points all results lie: so
    no distance grows, and what lies beyond that line is folded back.

    Args:
        x: points of the hyperboloid of curvature -1, `[n, 1 + dim]`.
        plane: two orthonormal directions, `[2, dim]`; the first one is in the middle between the ideal points.
        angle: `a`, in `(0, pi / 2)`.

    Returns:
        Points of the hyperbolic plane, `[n, 3]`.
    """
    sine, cosine = angle.sin(), angle.cos()
    along = x[:, 1:] @ plane.T
    middle, side = x[:, 0] - along[:, 0] * cosine, along[:, 1] * sine
    first, second = middle - side, middle + side
    t = (first * second / sine.square() - 1).clamp_min(1e-12).sqrt()
    total, apart = (second + first) / (2 * sine.square()), (second - first) / (2 * sine.square())
    space = torch.stack([total * cosine - t / sine, apart * sine], -1)
    return lorentz.project(torch.cat([torch.zeros_like(space[:, :1]), space], -1))


def _spread(x: Tensor) -> Tensor:
    """The mean of the squared distances of all pairs; of many points a thousand rows at a time."""
    total = x.new_zeros(())
    for rows in x.split(1000):
        total = total + lorentz.cdist(rows, x).square().sum()
    return total / len(x) ** 2
