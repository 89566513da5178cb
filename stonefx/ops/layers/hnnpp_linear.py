"""`stone::hnnpp_linear`: the fully connected layer of Hyperbolic Neural Networks++ (as in HypLL)."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import batching, checks
from ..curvature import operand
from ..library import LIBRARY, NO_LIMIT, TAGS, implement_composite
from ..rows.point_of_distances import point_of_distances


def _linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    c: Tensor,
    *,
    min_alpha: float = 0.0,
    max_radius: float = NO_LIMIT,
) -> Tensor:
    if x.dim() == 0 or weight.dim() != 2 or bias.dim() != 1 or weight.shape != (x.shape[-1], bias.shape[0]):
        raise RuntimeError(
            "stone::hnnpp_linear: expected x [*batch, in], weight [in, out] and bias [out], got "
            f"{checks.shape(x)}, {checks.shape(weight)} and {checks.shape(bias)}; weight is the transpose of "
            "nn.Linear.weight"
        )
    checks.options("hnnpp_linear", min_alpha=min_alpha, max_radius=max_radius)
    wide = [t.to(batching.compute_dtype(t)) for t in (x, weight, bias)]
    distances = torch.ops.stone.hnnpp_mlr.default(*wide, c, min_alpha=min_alpha)
    return point_of_distances(distances, c.reshape(()), max_radius=max_radius).to(x.dtype)


LIBRARY.define(
    "hnnpp_linear(Tensor x, Tensor weight, Tensor bias, Tensor c, *, float min_alpha=0, "
    f"float max_radius={NO_LIMIT:.0e}) -> Tensor",
    tags=TAGS[:1],
)
implement_composite("hnnpp_linear", _linear)


def hnnpp_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    c: float | Tensor = 1.0,
    *,
    min_alpha: float = 0.0,
    max_radius: float = NO_LIMIT,
) -> Tensor:
    """Fully connected layer between Poincaré balls of curvature `-c`.

    `y = w / (1 + sqrt(1 + c||w||^2))`, `w = sinh(sqrt(c) v) / sqrt(c)` with `v = hnnpp_mlr(x, weight, bias)` (Shimizu
    et al. 2021, Hyperbolic Neural Networks++, equation 7): the point whose signed distances to the coordinate
    hyperplanes are `v`. Long `v` do not overflow.

    Args:
        x: points, `[*batch, in]`, float32, float64, bfloat16 or float16.
        weight: normals, `[in, out]`, the dtype of `x`.
        bias: distances of the hyperplanes of the origin, `[out]`, the dtype of `x`.
        c: curvature, a positive float, or a floating tensor with one element; a tensor is not inspected.
        min_alpha: the least `1 - c||x||^2`; 0 is no guard.
        max_radius: the largest `sqrt(c) ||y||`, to which longer results are scaled; the default is none.

    Returns:
        Points, `[*batch, out]`, in the dtype of `x`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> hnnpp_linear(torch.tensor([[0.3, 0.4]]), torch.eye(2) / 2, torch.zeros(2))
    tensor([[0.3000, 0.4000]])
    """
    curvature = operand("hnnpp_linear", x, c)
    return torch.ops.stone.hnnpp_linear.default(
        x, weight, bias, curvature, min_alpha=min_alpha, max_radius=min(max_radius, NO_LIMIT)
    )
