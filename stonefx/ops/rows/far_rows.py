"""Rows of the hyperboloid far from the origin for the references, in float64: what csrc/include/stone/far_rows.h does.

All rows are taken apart along the farther point `f` of two and across it, without the rounding of products, and a row
in the plane of time and `f` has the coordinates `ahead = time + along` and `behind = time - along`. Lengths, times and
coordinates are times `sqrt(c)`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import analytic as a

# The product of the times of two points from which on their inner products do not do.
_NEAR_TIMES = 4.0


class Across(NamedTuple):
    """Where the product of the times asks for it, the farther point; elsewhere numbers that do no harm."""

    far: Tensor
    point: Tensor
    length: Tensor
    time: Tensor
    ahead: Tensor
    behind: Tensor

    def along(self, row: Tensor, c: Tensor) -> Tensor:
        """The part of a row along the point."""
        return c * a.inner(self.point, row) / self.length

    def part(self, row: Tensor) -> Tensor:
        """The part of a row across the point, right to the last digits of itself."""
        squares = a.inner(self.point, self.point)
        smooth = row - a.inner(self.point, row) / squares * self.point
        return smooth + (_across(self.point.detach(), row.detach()) - smooth).detach()


class Pair(NamedTuple):
    """Two points, `n` the nearer: its parts, `sinh(d / 2)^2` and `sinh(d)` times the cosine of the angle at `f`."""

    f: Across
    second: Tensor  # whether f is y
    n_part: Tensor
    along: Tensor
    time: Tensor
    ahead: Tensor
    behind: Tensor
    across: Tensor
    slant: Tensor
    cosh: Tensor
    half: Tensor


def _two_product(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A product and what rounding took from it (Dekker)."""

    def split(z: Tensor) -> tuple[Tensor, Tensor]:
        shifted = 134217729.0 * z
        high = shifted - (shifted - z)
        return high, z - high

    product = x * y
    (x_high, x_low), (y_high, y_low) = split(x), split(y)
    return product, ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low


def _across(f: Tensor, row: Tensor) -> Tensor:
    pivot = f.abs().argmax(-1, keepdim=True)
    f, row = torch.broadcast_tensors(f, row)
    largest, other = (p.gather(-1, pivot.expand(*p.shape[:-1], 1)) for p in (f, row))
    (one, less_one), (two, less_two) = _two_product(row, largest), _two_product(other, f)
    left = ((one - two) + (less_one - less_two)) / largest
    return left - a.inner(f, left) / a.inner(f, f) * f


def point(f: Tensor, c: Tensor, far: Tensor) -> Across:
    """A point to take others apart along, where `far` holds."""
    safe = torch.where(far, f, 1.0)
    squares = c * a.inner(safe, safe)
    length, time = squares.sqrt(), (1 + squares).sqrt()
    return Across(far, safe, length, time, time + length, 1 / (time + length))


def is_far(x_time: Tensor, y_time: Tensor) -> Tensor:
    """Whether points of these times ask for it."""
    return x_time * y_time > _NEAR_TIMES


def pair(x: Tensor, y: Tensor, c: Tensor) -> Pair:
    """Two points of the hyperboloid by their space components."""
    x, y = torch.broadcast_tensors(x, y)
    b = y - x
    excess = 2 * a.inner(x, b) + a.inner(b, b)
    second = excess > 0
    times = [(1 + c * a.inner(p, p)).sqrt() for p in (x, y)]
    far = is_far(*times)
    f = point(torch.where(second, y, x), c, far)
    n = torch.where(far, torch.where(second, x, y), 0.5)
    part = f.part(n)
    along, time = f.along(n, c), (1 + c * a.inner(n, n)).sqrt()
    across = c * a.inner(part, part)
    forward = along > 0
    large = time + torch.where(forward, along, -along)
    small = (1 + across) / large
    ahead, behind = torch.where(forward, large, small), torch.where(forward, small, large)
    smooth = 0.5 * (f.ahead * behind - f.behind * ahead)
    length = (c * a.inner(n, n)).sqrt()
    bent = torch.where(forward, across / (length + along.abs()), length - along)
    exact = c * excess.abs() / (f.length * time + f.time * length) + f.time * bent
    slant = smooth + (exact - smooth).detach()
    cosh = 0.5 * (f.ahead * behind + f.behind * ahead)
    # quotients, since the derivative of an inverse is its square, which underflows
    half = 0.5 * (slant * (slant / (1 + cosh)) + across / (1 + cosh))
    return Pair(f, second, part, along, time, ahead, behind, across, slant, cosh, half)
