"""The maps of the Poincare ball as users spell them in plain torch, with the guards users give them."""

from __future__ import annotations

import torch


def expmap0(v: torch.Tensor, c: float) -> torch.Tensor:
    """Tangent rows `[*batch, dim]` at the origin to points: `tanh(sqrt(c)||v||) v / (sqrt(c)||v||)`.

    >>> expmap0(torch.tensor([[0.0, 0.0]]), 1.0)
    tensor([[0., 0.]])
    """
    n = c**0.5 * v.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return torch.tanh(n) * v / n


def logmap0(x: torch.Tensor, c: float) -> torch.Tensor:
    """Points `[*batch, dim]` to tangent rows at the origin, the inverse of `expmap0`.

    >>> logmap0(expmap0(torch.tensor([[0.25, 0.0]]), 1.0), 1.0)
    tensor([[0.2500, 0.0000]])
    """
    n = c**0.5 * x.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return torch.atanh(n.clamp(max=1 - 1e-6)) * x / n


def mobius_add(x: torch.Tensor, y: torch.Tensor, c: float) -> torch.Tensor:
    """Moebius sum of points `[*batch, dim]`.

    >>> mobius_add(torch.tensor([[0.5, 0.0]]), torch.tensor([0.0, 0.0]), 1.0)
    tensor([[0.5000, 0.0000]])
    """
    xy = (x * y).sum(dim=-1, keepdim=True)
    x2 = x.pow(2).sum(dim=-1, keepdim=True)
    y2 = y.pow(2).sum(dim=-1, keepdim=True)
    numerator = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
    denominator = 1 + 2 * c * xy + c**2 * x2 * y2
    return numerator / denominator.clamp_min(1e-15)
