"""Weighted midpoints: sums of points, and what brings a sum back to its model. The sums are float64.

Several midpoints of the same points, as in attention, are products of matrices: nothing of the size of weights times
coordinates is made.

Without points, or with weights that are all 0, a midpoint is the origin. Weights are not looked at, since that would
wait for the device: one below 0 goes into the sums as it is, and where these are then no multiple of a point, the
result means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stonefx.ops.calling import Caller
from stonefx.ops.checks import FLOATING, broadcasts_to, shape, show
from stonefx.ops.curvature import positive

from .bounds import of
from .function import is_number, not_a_number, not_tensors

_CONFORMAL_FACTOR = Caller("conformal_factor")
_LORENTZ_CDIST = Caller("lorentz_cdist")
_LORENTZ_PROJECT = Caller("lorentz_project")
_PROJECT = Caller("project")


class _Sides(NamedTuple):
    """Points `[*batch, n, dim]`, weights `[*batch, n, 1]`, and the curvature of points and of results, in float64."""

    points: Tensor
    shares: Tensor
    of_points: Tensor
    curvature: Tensor

    def sum(self, values: Tensor) -> Tensor:
        """The weighted sum of what each point has, `[*batch, n, k]` to `[*batch, k]`."""
        if not self.has_shared_points:
            return (self.shares * values).sum(-2)
        return self.shares[..., 0] @ (values.squeeze(-3) if values.dim() > 2 else values)

    @property
    def has_shared_points(self) -> bool:
        """Whether the last of the batch dimensions is one of the weights alone."""
        weights = self.shares.shape[:-2]
        return bool(weights) and weights[-1] > 1 and (self.points.dim() == 2 or self.points.shape[-3] == 1)

    def length(self, times: Tensor, space: Tensor) -> Tensor:
        """The Minkowski length of the weighted sum of points of the hyperboloid of curvature -1, `[*batch, 1]`.

        Args:
            times, space: `[*batch, n, 1]` and `[*batch, n, dim]`.
        """
        # As many numbers for pairs of points as for points of each midpoint are no more to hold.
        if self.has_shared_points and space.shape[-2] <= self.shares.shape[-3] * space.shape[-1]:
            return self._length_by_pairs(torch.cat([times, space], -1))
        return _length(self.shares, times, space / times)

    def _length_by_pairs(self, points: Tensor) -> Tensor:
        """`sqrt(sum w_i w_j cosh d_ij)`, whose terms are not negative where no weight is: `-<x, y> = cosh d(x, y)`."""
        points = points.squeeze(-3) if points.dim() > 2 else points
        products = _LORENTZ_CDIST(points, points, points.new_ones(())).cosh()
        # Squares of small weights vanish, and a factor of all weights of a midpoint comes out of the root.
        largest = _nonzero(self.shares.detach().abs().amax(-2)) if points.shape[-2] else 1.0
        weights = self.shares[..., 0] / largest
        return largest * _nonzero((weights @ products * weights).sum(-1, keepdim=True)).sqrt()


def _prepare(function: str, points: Tensor, weights: Tensor | None, c: float | Tensor) -> _Sides:
    if not isinstance(points, Tensor) or not (weights is None or isinstance(weights, Tensor)):
        raise not_tensors(function, points=points, **({} if weights is None else {"weights": weights}))
    if points.dim() < 2:
        raise ValueError(
            f"{function}: points must be [*batch, n, dim], got {list(points.shape)}; stack the points of one "
            "midpoint along dimension -2"
        )
    _check_dtype(function, "points", points)
    curvature = _curvature(function, points, c)
    wide = points.double()
    shares = torch.ones_like(wide[..., :1]) if weights is None else _shares(function, points, weights)
    of_points = curvature.unsqueeze(-2) if curvature.dim() else curvature
    return _Sides(wide, shares, of_points, curvature)


def _check_dtype(function: str, label: str, x: Tensor) -> None:
    if x.dtype not in FLOATING:
        raise RuntimeError(
            f"{function}: {label} must be float32, float64, bfloat16 or float16, got {show(x.dtype)}; convert them, "
            f"for instance with {label}.float()"
        )


def _curvature(function: str, points: Tensor, c: float | Tensor) -> Tensor:
    if not is_number(c):
        raise not_a_number(function, "c", c)
    curvature = positive(function, points, c)
    _check_dtype(function, "c", curvature)
    wanted = (*points.shape[:-2], 1)
    if curvature.dim() and not broadcasts_to(curvature.shape, wanted):
        raise RuntimeError(
            f"{function}: c must be 0-dim or broadcast to [*batch, 1] = {list(wanted)}, got {shape(curvature)} with "
            f"points {shape(points)}; a curvature for each midpoint needs a last dimension of 1: c.unsqueeze(-1)"
        )
    _check_device(function, "c", points, curvature)
    return curvature.to(device=points.device, dtype=torch.float64)


def _shares(function: str, points: Tensor, weights: Tensor) -> Tensor:
    if weights.dtype.is_complex or (weights.dtype.is_floating_point and weights.dtype not in FLOATING):
        raise RuntimeError(
            f"{function}: weights must be real numbers, for instance float32 or float64, got {show(weights.dtype)}; "
            "convert them with weights.float()"
        )
    wanted = tuple(points.shape[:-1])
    # More batches than the points have are welcome: several midpoints of the same points.
    if not broadcasts_to(weights.shape[-1:], wanted[-1:]) or not _broadcasts(weights.shape[:-1], wanted[:-1]):
        raise RuntimeError(
            f"{function}: weights must broadcast with [*batch, n] = {list(wanted)}, got {shape(weights)} with points "
            f"{shape(points)}; give each point one weight, in the order of dimension -2"
        )
    _check_device(function, "weights", points, weights)
    return weights.double().unsqueeze(-1)


def _broadcasts(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes broadcast with each other."""
    return all(a == b or 1 in (a, b) for a, b in zip(reversed(one), reversed(other), strict=False))


def _check_device(function: str, label: str, points: Tensor, other: Tensor) -> None:
    if other.device != points.device and not (other.dim() == 0 and other.device.type == "cpu"):
        raise RuntimeError(
            f"{function}: points and {label} must be on one device, got {points.device} and {other.device}; move one "
            "of them with .to()"
        )


def _nonzero(x: Tensor) -> Tensor:
    """A divisor, or operand of a root, that is 1 where it would be 0: values and gradients stay finite."""
    return torch.where(x > 0, x, 1.0)


def _length(shares: Tensor, times: Tensor, velocities: Tensor) -> Tensor:
    """The Minkowski length `sqrt(T^2 - ||sum w t v||^2)`, `T = sum w t`, of a sum of vectors `(t, t v)` of length 1.

    Far out `T^2` and what is taken from it agree in all digits, so the length is computed as
    `sqrt(T (sum w / t + sum w t ||v - mean||^2))`, whose terms are not negative: `1 - ||v||^2 = 1 / t^2`, and the mean
    of `||v||^2` is the square of the mean plus the variance.

    Args:
        shares: `w`, `[*batch, n, 1]`.
        times: `t`, `[*batch, n, 1]`, at least 1.
        velocities: `v`, `[*batch, n, dim]`.
    """
    masses = shares * times
    total = _nonzero(masses.sum(-2))
    # The variance is the same about any centre, so the centre needs no gradient. What is taken off corrects the
    # rounding of the centre: 1e-16 is much where a time is 1e16 (the corrected two-pass algorithm, Chan et al. 1983).
    centre = ((masses * velocities).sum(-2) / total).detach().unsqueeze(-2)
    apart = velocities - centre
    moments = masses * apart
    squares = (moments * apart).sum(dim=(-2, -1)).unsqueeze(-1)
    spread = squares - moments.sum(-2).square().sum(-1, keepdim=True) / total
    return total.sqrt() * _nonzero((shares / times).sum(-2) + spread).sqrt()


def _into_ball(row: Tensor, c: Tensor, like: Tensor) -> Tensor:
    return _PROJECT(row, c, eps=1 - of(like).radius).to(like.dtype)


def gyromidpoint(points: Tensor, weights: Tensor | None, c: float | Tensor) -> Tensor:
    """`sum w g x / (D + sqrt(D^2 - c ||sum w g x||^2))`, `D = sum w (g - 1)`, `g` the conformal factor."""
    sides = _prepare("gyromidpoint", points, weights, c)
    factor = _CONFORMAL_FACTOR(sides.points, sides.of_points, min_gap=of(points).gap).unsqueeze(-1)
    times = factor - 1  # (g - 1, sqrt(c) g x) is the point of the hyperboloid
    scaled = factor * sides.points
    length = sides.length(times, sides.of_points.sqrt() * scaled)
    return _into_ball(sides.sum(scaled) / (sides.sum(times) + length), sides.curvature, points)


def einstein_midpoint(points: Tensor, weights: Tensor | None, c: float | Tensor) -> Tensor:
    """`sum w g x / sum w g`, `g = 1 / sqrt(1 - c ||x||^2)`."""
    sides = _prepare("einstein_midpoint", points, weights, c)
    factor = _CONFORMAL_FACTOR(sides.points, sides.of_points, min_gap=of(points).gap).unsqueeze(-1)
    gamma = (0.5 * factor).sqrt()
    total = sides.sum(gamma)
    return _into_ball(
        sides.sum(gamma * sides.points) / torch.where(total == 0, 1.0, total), sides.curvature, points
    )


def centroid(points: Tensor, weights: Tensor | None, c: float | Tensor) -> Tensor:
    """`s / sqrt(-c <s, s>)`, `s = sum w x`."""
    sides = _prepare("centroid", points, weights, c)
    lifted = _LORENTZ_PROJECT(sides.points, sides.of_points)
    scaled = sides.of_points.sqrt() * lifted
    length = sides.length(scaled[..., :1], scaled[..., 1:])
    return _LORENTZ_PROJECT(sides.sum(lifted) / length, sides.curvature).to(points.dtype)
