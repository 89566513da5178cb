"""Exact bounds for samples that are right or wrong, of which a bootstrap knows no doubt where few of them differ."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

NUISANCE = 0.002
"""Share of the doubt that is spent on each of what is not asked for: how many the original has right, and how many
samples become right."""
STEPS = 48
"""Chances to become right that are looked at."""
FEW = 150
"""Samples that changed, up to which all that might have happened are added up; beyond it the score is normal."""
NEGLIGIBLE = 1e-7
"""Chance of outcomes that are counted as the worst instead of being looked at."""


def share(hits: int, n: int, confidence: float) -> float:
    """What the chance of a hit is at least: the bound of Clopper and Pearson (1934).

    >>> round(share(59, 59, 0.95), 4)
    0.9505
    """
    if hits == 0:
        return 0.0
    k = torch.arange(hits, n + 1, dtype=torch.float64)
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        # The chance of as many hits or more; the bound is where it is 1 - confidence.
        tail = _binomial(n, middle, k).sum().item()
        low, high = (middle, high) if tail < 1 - confidence else (low, middle)
    return low


@lru_cache(maxsize=512)
def kept(lost: int, gained: int, right: int, n: int, confidence: float) -> float:
    """What the share of right samples of a changed model over that of the original is at least, both on the same ones.

    With chances l to become wrong, g to become right and o that the original is right, `1 - (l - g) / o` is asked for.
    That it is at most f is rejected where few outcomes that are as good as the one seen, by the score of
    `l - g = (1 - f) o` (Tango 1998), would come out then, whatever g is: the exact unconditional test of Suissa and
    Shuster (1991), with g and o in their own bounds (Berger and Boos 1994).

    Args:
        lost, gained: samples that became wrong, and right.
        right: samples that the original has right.
        n: samples.
        confidence: that it is no less.

    >>> round(kept(0, 0, 500, 500, 0.95), 4), round(kept(2, 2, 480, 500, 0.95), 4)
    (0.994, 0.9906)
    """
    if right == n:
        # The share of right samples itself is no more than what is kept.
        return share(n - lost, n, confidence)
    doubt = 1 - confidence - 2 * NUISANCE
    if right == 0 or doubt <= 0:
        return 0.0
    least = share(right, n, 1 - NUISANCE)
    most = 1 - share(n - gained, n, 1 - NUISANCE)
    low, high = 0.0, 1.0 + gained / right
    for _ in range(14):
        f = (low + high) / 2
        if _chance(lost, gained, n, (1 - f) * least, most) < doubt:
            low = f
        else:
            high = f
    return low


def _chance(lost: int, gained: int, n: int, difference: float, most: float) -> float:
    """Of outcomes as good as this one, were `l - g` as large as `difference` and g at most `most`."""
    seen = _score(_float([lost]), _float([gained]), n, difference).item()
    if lost + gained > FEW:
        return 0.5 * math.erfc(-seen / math.sqrt(2))
    # l = g + difference, and both are chances.
    least = max(0.0, -difference)
    g = torch.linspace(least, max(min(most, (1 - difference) / 2), least), STEPS, dtype=torch.float64)
    top = g[-1].item()
    x = torch.arange(_largest(n, top + difference) + 1, dtype=torch.float64)
    y = torch.arange(_largest(n, top) + 1, dtype=torch.float64)
    x, y = (t.flatten() for t in torch.meshgrid(x, y, indexing="ij"))
    good = (_score(x, y, n, difference) <= seen + 1e-9) & (x + y <= n)
    x, y = x[good], y[good]
    counts = torch.stack([x, y, n - x - y])
    chances = torch.stack([g + difference, g, 1 - 2 * g - difference], 1).clamp_min(0)
    # A chance of zero to the power of zero is one, and to any other negligible.
    logs = chances.clamp_min(1e-300).log() @ counts - torch.lgamma(counts + 1).sum(0) + math.lgamma(n + 1)
    return logs.exp().sum(1).max().item() + NEGLIGIBLE


def _score(x: Tensor, y: Tensor, n: int, difference: float) -> Tensor:
    """How many standard errors `(x - y) / n` lies above `difference`, with the error that it has where that is true."""
    d = difference
    linear = (x + y) * (1 - d) + 2 * d * (x - n)
    root = (linear.square() + 8 * n * y * d * (1 - d)).clamp_min(0).sqrt()
    q = ((linear + root) / (4 * n)).clamp(max(0.0, -d), (1 - d) / 2)
    return (x - y - n * d) / (n * (2 * q + d * (1 - d))).clamp_min(1e-300).sqrt()


def _binomial(n: int, p: float, k: Tensor) -> Tensor:
    """Chances of k of n."""
    ways = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return (ways + k * math.log(p) + (n - k) * math.log1p(-p)).exp()


def _float(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _largest(n: int, p: float) -> int:
    """A number of n that is exceeded with a negligible chance."""
    # Bernstein's inequality.
    t = -math.log(NEGLIGIBLE / 4)
    return min(n, math.ceil(n * p + t / 3 + math.sqrt(t * t / 9 + 2 * t * n * p)))
