"""`stone::lorentz_cdist`: distances of all pairs of points of the hyperboloid."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import batching, checks
from ..calling import Caller
from ..curvature import positive
from ..library import declare
from ..rows.lorentz import DIST
from .cdist import operator

_NAME = "lorentz_cdist"


def reference(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """The distances in plain torch, differentiable, in the dtype of `x`: `lorentz_dist` of all pairs."""
    numbers = c.unsqueeze(-1) if c.dim() else c
    return DIST.evaluate(x.unsqueeze(-2), y.unsqueeze(-3), numbers)


def gradients(grad: Tensor, x: Tensor, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for `x` and `y` as if neither broadcast, and for one curvature a matrix, `[*batch, 1, 1]`."""
    batch, dtype = grad.shape[:-2], batching.compute_dtype(x)
    u, v = (p.double().expand(*batch, *p.shape[-2:]) for p in (x, y))
    k = c.to(device=x.device, dtype=torch.float64).expand(*batch, 1, 1)
    with torch.enable_grad():
        grads = torch.func.vjp(reference, u, v, k)[1](grad.double())
    return tuple(g.to(x.dtype if index < 2 else dtype) for index, g in enumerate(grads))


def _check_time(x: Tensor) -> None:
    if x.shape[-1] == 0:
        raise RuntimeError(
            "stone::lorentz_cdist: points of the hyperboloid are [*batch, points, 1 + dim], time first, got x "
            f"{checks.shape(x)}; prepend sqrt(1/c + ||x||^2)"
        )


OPERATOR = operator(_NAME, (), "Tensor x, Tensor y, Tensor c", reference, gradients, _check_time)
declare(OPERATOR)
_CALL = Caller(_NAME)


def lorentz_cdist(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Distances of all pairs of points of the hyperboloid of curvature `-c`.

    `1 / sqrt(c) * arcosh(c (x0 y0 - <xs, ys>))` with `x0 = sqrt(1/c + ||xs||^2)` formed from the space components,
    so that points that rounding moved off the hyperboloid count as on it, and time has gradient 0. Computed as
    distances of the images `xs / (1 + sqrt(c) x0)` in the Poincaré ball, in float64 for every dtype: arcosh loses
    the digits of near points. No `[n, m, dim]` temporary is made, forward or backward; the gradient is 0 for
    coincident points.

    Args:
        x: points, time first, `[*batch, n, 1 + dim]`, float32, float64, bfloat16 or float16.
        y: points, `[*batch, m, 1 + dim]`, the dtype of `x`; the batch dimensions broadcast.
        c: curvature, a positive float, or a floating tensor that is 0-dim or broadcasts to `[*batch, 1, 1]`.
            One number on the CPU is looked at; what is not positive elsewhere gives NaN.

    Returns:
        `[*batch, n, m]`, in the dtype of `x`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> origin, away = [1.0, 0.0, 0.0], [1.25, 0.75, 0.0]
    >>> lorentz_cdist(torch.tensor([origin, away]), torch.tensor([origin, away]))
    tensor([[0.0000, 0.6931],
            [0.6931, 0.0000]])
    """
    curvature = positive(_NAME, x, c)
    return _CALL(x, y, curvature)
