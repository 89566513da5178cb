"""`stone::point_of_distances`: the point of the Poincaré ball at given distances from the coordinate hyperplanes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..calling import Caller
from ..library import NO_LIMIT, declare
from .row_formula import RowFormula

# Arguments of sinh beyond this are scaled down, row by row: the point depends on their ratios alone.
_LARGEST_ARGUMENT = 30.0


def _reference(v: Tensor, c: Tensor, *, max_radius: float) -> Tensor:
    """`w / (1 + sqrt(1 + c||w||^2))` with `w = sinh(sqrt(c) v) / sqrt(c)`, without overflow for any finite `v`."""
    root = c.sqrt()
    t = root * v
    excess = (t.detach().abs().amax(-1, keepdim=True) - _LARGEST_ARGUMENT).clamp_min(0)
    scaled = 0.5 * (torch.exp(t - excess) - torch.exp(-t - excess))
    exact = torch.sinh(t.clamp(-_LARGEST_ARGUMENT, _LARGEST_ARGUMENT))
    sinh, one = torch.where(excess > 0, scaled, exact), torch.exp(-excess)
    y = sinh / (root * (one + torch.sqrt(one * one + sinh.square().sum(-1, keepdim=True))))
    if max_radius >= NO_LIMIT:
        return y
    squares = c * y.square().sum(-1, keepdim=True)
    beyond = squares > max_radius**2
    return torch.where(beyond, y * (max_radius / torch.where(beyond, squares, 1.0).sqrt()), y)


FORMULA = RowFormula(name="point_of_distances", vectors=("v",), guards=("max_radius",), reference=_reference)
declare(FORMULA.operator())
_CALL = Caller(FORMULA.name)


def point_of_distances(v: Tensor, c: Tensor, *, max_radius: float = NO_LIMIT) -> Tensor:
    """The point of the Poincaré ball of curvature `-c` with signed distances `v` to the coordinate hyperplanes.

    `y = w / (1 + sqrt(1 + c||w||^2))`, `w = sinh(sqrt(c) v) / sqrt(c)` (Shimizu et al. 2021, Hyperbolic Neural Networks
    ++, equation 7), shortened to `sqrt(c) ||y|| <= max_radius`. Long `v` do not overflow.

    Args:
        v: distances, `[*batch, dim]`, float32, float64, bfloat16 or float16; all is computed in float64.
        c: curvature, a floating tensor, 0-dim or broadcasting to `[*batch, 1]`, not inspected.
        max_radius: the default is none.

    Returns:
        Points, `[*batch, dim]`, in the dtype of `v`.

    Raises:
        RuntimeError: a wrong dtype, shape or device, or a negative radius.

    >>> point_of_distances(torch.tensor([[0.0, 1000.0]]), torch.tensor(1.0))
    tensor([[0., 1.]])
    """
    return _CALL(v, c, max_radius=min(max_radius, NO_LIMIT))
