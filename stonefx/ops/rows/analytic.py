"""Functions of a squared length for the references: smooth at 0, differentiable twice, in plain torch.

`f(w)` with `w = u^2` stands where a textbook divides `f(u)` by `u`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_RADIUS = 0.0625
_TERMS = 13


def _tanh_series() -> list[float]:
    """Coefficients of tanh(u) / u in u^2, from tanh' = 1 - tanh^2."""
    t = [1.0]
    for n in range(1, _TERMS):
        t.append(-sum(t[i] * t[n - 1 - i] for i in range(n)) / (2 * n + 1))
    return t


_TANH = _tanh_series()
_ASINH = [(-0.25) ** k * math.comb(2 * k, k) / (2 * k + 1) for k in range(_TERMS)]
_ATAN = [(-1.0) ** k / (2 * k + 1) for k in range(_TERMS)]
_SINH = [1 / math.factorial(2 * k + 1) for k in range(9)]
_COSH = [1 / math.factorial(2 * k) for k in range(9)]
_SIN = [(-1.0) ** k * a for k, a in enumerate(_SINH)]
_COS = [(-1.0) ** k * a for k, a in enumerate(_COSH)]


def _smooth(w: Tensor, direct: Callable[[Tensor], Tensor], series: Sequence[float]) -> Tensor:
    near = w < _RADIUS
    small = torch.where(near, w, 0.0)
    value = torch.full_like(small, series[-1])
    for coefficient in reversed(series[:-1]):
        value = value * small + coefficient
    return torch.where(near, value, direct(torch.where(near, _RADIUS, w).sqrt()))


def tanhc(w: Tensor) -> Tensor:
    """`tanh(u) / u`."""
    return _smooth(w, lambda u: torch.tanh(u) / u, _TANH)


def asinhc(w: Tensor) -> Tensor:
    """`asinh(u) / u`."""
    return _smooth(w, lambda u: torch.asinh(u) / u, _ASINH)


def artanhc_of_odds(odds: Tensor) -> Tensor:
    """`artanh(u) / u` from `u^2 / (1 - u^2)`."""
    return asinhc(odds) * (1 + odds).sqrt()


def atanc(w: Tensor) -> Tensor:
    """`atan(u) / u`."""
    return _smooth(w, lambda u: torch.atan(u) / u, _ATAN)


def sinhc(w: Tensor) -> Tensor:
    """`sinh(u) / u`."""
    return _smooth(w, lambda u: torch.sinh(u) / u, _SINH)


def cosh(w: Tensor) -> Tensor:
    """`cosh(u)`."""
    return _smooth(w, torch.cosh, _COSH)


def sinc(w: Tensor) -> Tensor:
    """`sin(u) / u`."""
    return _smooth(w, lambda u: torch.sin(u) / u, _SIN)


def cos(w: Tensor) -> Tensor:
    """`cos(u)`."""
    return _smooth(w, torch.cos, _COS)


def root(w: Tensor) -> Tensor:
    """`sqrt(w)` whose derivative at 0 is given as 0."""
    zero = w <= 0  # NaN is passed on
    return torch.where(zero, 0.0, torch.where(zero, 1.0, w).sqrt())


def asinh_of_square(w: Tensor) -> Tensor:
    """`asinh(u)`; its derivative at 0 is given as 0."""
    return torch.where(w < _RADIUS, root(w) * asinhc(w), torch.asinh(root(w)))


def at_least(value: Tensor, bound: float) -> Tensor:
    """`max(value, bound)`: the gradient passes where they are equal, as it does through the kernels.

    Releases of torch differ in what a clamp does there.
    """
    return torch.where(value < bound, bound, value)


def at_most(value: Tensor, bound: float) -> Tensor:
    """`min(value, bound)`: the gradient passes where they are equal."""
    return torch.where(value > bound, bound, value)


def shrink_to(limit: float, square: Tensor) -> Tensor:
    """`limit / u` where `u` exceeds it, else 1; `u` is given as its square."""
    holds = (
        square > min(limit * limit, 1e308) if limit < 1e154 else torch.zeros_like(square, dtype=torch.bool)
    )
    return torch.where(holds, limit / torch.where(holds, square, 1.0).sqrt(), 1.0)


def at_most_squared(square: Tensor, limit: float) -> Tensor:
    """`min(u, limit)^2` from `u^2`."""
    return at_most(square, limit * limit) if limit < 1e154 else square


def odds_of(u: float) -> float:
    """`u^2 / (1 - u^2)`."""
    return u * u / ((1 - u) * (1 + u))


def asinh_of_quotient(n: Tensor, d: Tensor, limit: float = 1.0) -> Tensor:
    """`asinh(u / sqrt(1 - u^2))`, which is `artanh(u)`, of the odds `n / d`; `u` is kept at `limit` if that is below 1.

    It is kept there beyond the boundary too, where `d` is not above 0.
    """
    odds = n / d
    if limit < 1:
        odds = odds.where(n <= odds_of(limit) * d, odds_of(limit))
    return asinh_of_square(odds)


def odds_at_most(odds: Tensor, limit: float) -> Tensor:
    """The odds `u^2 / (1 - u^2)` of `min(u, limit)` from those of `u`."""
    return at_most(odds, odds_of(limit)) if limit < 1 else odds


def share_of_arc(t: Tensor, squared_length: Tensor) -> Tensor:
    """`sinh(t d) / sinh(d)` from `d^2`."""
    return t * sinhc(t * t * squared_length) / sinhc(squared_length)


def inner(x: Tensor, y: Tensor) -> Tensor:
    """The inner product of rows, `[*batch, 1]`."""
    return (x * y).sum(-1, keepdim=True)


def gap(c: Tensor, x: Tensor, min_gap: float) -> Tensor:
    """`1 - c ||x||^2`, at least `min_gap`."""
    return at_least(1 - c * inner(x, x), min_gap)


def signed_gap(c: Tensor, x: Tensor, min_gap: float) -> Tensor:
    """`1 - c ||x||^2`, at least `min_gap` if that is above 0: beyond the boundary it is negative."""
    return gap(c, x, min_gap) if min_gap > 0 else 1 - c * inner(x, x)
