"""What the tests of distance matrices share: points of each model, and exact distances."""

import math

import mpmath
import torch
from operator_cases import points

NAMES = ("poincare_cdist", "klein_cdist", "lorentz_cdist")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def operands(name, dtype=torch.float64, batch=(), rows=5, columns=4, dim=6, radius=0.8, c=0.7):
    """`x`, `y` and `c` of one call; `radius` is that in the ball of curvature `-c`."""
    x = in_model(name, points(*batch, rows, dim, radius=radius), c)
    y = in_model(name, points(*batch, columns, dim, seed=3, radius=radius), c)
    return x.to(dtype), y.to(dtype), torch.tensor(c, dtype=torch.float64)


def space(name, width):
    """`dim` of points that are stored with `width` entries."""
    return width - (name == "lorentz_cdist")


def in_model(name, ball, c=1.0):
    """Points of the unit ball as points of the operator's model of curvature `-c`."""
    if name == "poincare_cdist":
        return ball / math.sqrt(c)
    squares = ball.square().sum(-1, keepdim=True)
    if name == "klein_cdist":
        return 2 * ball / (1 + squares) / math.sqrt(c)
    return torch.cat([1 + squares, 2 * ball], -1) / (1 - squares) / math.sqrt(c)


def exact_distance(x, y, c):
    """Distance of two points of the ball to 50 digits, and how rounding of the points near the boundary magnifies."""
    with mpmath.workdps(50):
        x, y, c = [mpmath.mpf(v) for v in x], [mpmath.mpf(v) for v in y], mpmath.mpf(c)
        squares = mpmath.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))
        alpha, beta = (1 - c * mpmath.fsum(a * a for a in p) for p in (x, y))
        distance = 2 / mpmath.sqrt(c) * mpmath.asinh(mpmath.sqrt(c * squares / (alpha * beta)))
        return distance, float(1 / alpha + 1 / beta)
