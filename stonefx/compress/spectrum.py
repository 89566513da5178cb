"""The best map of every rank in the metric of the data: `min tr G (W - W') C (W - W')^T`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .statistics import Statistics

DAMPING = 0.01
"""Of the mean eigenvalue of the gradients' covariance; 0.01 was best of 0.01, 0.1 and 1."""


@dataclass(frozen=True)
class Spectrum:
    """What each rank of a matrix costs, and the factors that reach it.

    With `G = L L^T` and `C = E[x x^T]`, the best map of rank r is `W' = L^-T U U^T L^T W`, where `U` are the first r
    eigenvectors of `L^T W C W^T L` (any square root of G gives the same map). Only G is inverted, and it is damped.

    Attributes:
        root: `L`, `[groups, rows, rows]`; None where gradients do not count.
        basis: `U`, `[groups, rows, k]`, best first.
        whitened: `L^T W`, `[groups, rows, columns]`.
        tails: `[k + 1]`: the loss of keeping r components, in units of the probed scalar squared, over all groups.
    """

    root: Tensor | None
    basis: Tensor
    whitened: Tensor
    tails: Tensor

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """`a [groups, rows, rank]` and `b [groups, rank, columns]` with columns and rows of equal length, float64."""
        b = self.basis[:, :, :rank].mT @ self.whitened
        a, _ = self.projection(rank)
        # The inverse root is huge where gradients are small: without this, half precision would overflow.
        smallest = torch.finfo(torch.float64).tiny
        scale = (b.norm(dim=2) / a.norm(dim=1).clamp_min(smallest)).sqrt()
        scale = torch.where(scale > 0, scale, 1.0)
        return a * scale[:, None, :], b / scale[:, :, None]

    def projection(self, rank: int) -> tuple[Tensor, Tensor]:
        """`a [groups, rows, rank]` and `x [groups, rank, rows]`: the best map is `a x W`, and `x a` the identity."""
        u = self.basis[:, :, :rank]
        if self.root is None:
            return u, u.mT
        return torch.linalg.solve_triangular(self.root.mT, u, upper=True), u.mT @ self.root.mT

    def components(self) -> tuple[Tensor, Tensor]:
        """`p [groups, rows, k]` and `q [groups, columns, k]` with `W - W_r = sum over i >= r of p_i q_i^T`."""
        u = self.basis
        p = u if self.root is None else torch.linalg.solve_triangular(self.root.mT, u, upper=True)
        return p, self.whitened.mT @ u


def decompose(matrix: Tensor, statistics: Statistics | None) -> Spectrum:
    """The spectrum of `matrix [groups, rows, columns]`, float64; without statistics that of its plain singular values.

    Raises:
        ValueError: the matrix or its statistics are not finite.
    """
    root, whitened = None, matrix
    inputs = None if statistics is None else statistics.inputs
    if statistics is not None and statistics.gradients is not None:
        root = cholesky(_damped(statistics.gradients))
        whitened = root.mT @ matrix
    for what, value in (("weights", matrix), ("inputs", inputs), ("gradients", root)):
        if value is not None and not bool(value.isfinite().all()):
            raise ValueError(f"its {what} are not finite")
    rows, columns = matrix.shape[1:]
    if rows <= columns:
        spread = whitened if inputs is None else _times(whitened, inputs)
        values, u = torch.linalg.eigh(spread @ whitened.mT)
        values, u = values.flip(-1).clamp_min(0), u.flip(-1)
    else:
        # The thin side: eigenvalues of K^T M^T M K, where K K^T = C.
        thin = whitened if inputs is None else _times_root(whitened, inputs)
        values, v = torch.linalg.eigh(thin.mT @ thin)
        values, v = values.flip(-1).clamp_min(0), v.flip(-1)
        # By QR and not by division with singular values, so that it stays orthonormal where they are tiny.
        u = torch.linalg.qr(thin @ v).Q
    tails = 0.5 * torch.cat([values.flip(-1).cumsum(-1).flip(-1), values.new_zeros(len(values), 1)], -1).sum(
        0
    )
    return Spectrum(root, u, whitened, tails)


def energy_rank(matrix: Tensor, energy: float) -> int:
    """The smallest rank that keeps this share of the squared singular values, of all groups together.

    >>> energy_rank(torch.diag(torch.tensor([3.0, 1.0, 0.1]))[None], 0.99)
    2
    """
    squares = torch.linalg.svdvals(matrix.double()).square().sum(0)
    kept = squares.cumsum(0) / squares.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return min(int((kept < energy - 1e-12).sum()) + 1, len(kept))


def cholesky(matrix: Tensor) -> Tensor:
    """A square root of a covariance, lower triangular; one that rounding made indefinite is lifted a little."""
    lift = 0.0
    mean = (
        matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp_min(torch.finfo(torch.float64).tiny)
    )
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(12):
        root, failed = torch.linalg.cholesky_ex(matrix + lift * mean * identity)
        if not bool(failed.any()):
            return root
        lift = max(10 * lift, 1e-13)
    return root * torch.nan


def _damped(gradients: Tensor) -> Tensor:
    mean = gradients.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    # A layer that no probe reached has no gradients at all; then every output counts alike.
    mean = torch.where(mean > 0, mean, 1.0)
    return gradients + DAMPING * mean * torch.eye(
        gradients.shape[-1], dtype=gradients.dtype, device=gradients.device
    )


def _times(matrix: Tensor, inputs: Tensor) -> Tensor:
    return matrix * inputs[:, None, :] if inputs.dim() == 2 else matrix @ inputs


def _times_root(matrix: Tensor, inputs: Tensor) -> Tensor:
    if inputs.dim() == 2:
        return matrix * inputs.sqrt()[:, None, :]
    return matrix @ cholesky(inputs)
