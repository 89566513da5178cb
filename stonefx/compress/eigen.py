"""Eigenvalues of symmetric matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from ..machine.measure import using_threads

SERIAL = 512
"""Up to this size one thread is used: LAPACK's threads meet after every column, and where other programs have the cores
each waits for the other, hundreds of times as long as the work takes."""


def eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues `[*batch, n]`, greatest first, none below zero, and eigenvectors as columns `[*batch, n, n]`.

    Args:
        matrix: `[*batch, n, n]`, symmetric and positive semidefinite but for rounding.

    >>> eigenvectors(torch.diag(torch.tensor([1.0, 4.0])))[0]
    tensor([4., 1.])
    """
    with using_threads(_threads(matrix)):
        values, vectors = torch.linalg.eigh(matrix)
    return values.flip(-1).clamp_min(0), vectors.flip(-1)


def eigenvalues(matrix: Tensor) -> Tensor:
    """Those of `eigenvectors` alone."""
    with using_threads(_threads(matrix)):
        return torch.linalg.eigvalsh(matrix).flip(-1).clamp_min(0)


def _threads(matrix: Tensor) -> int | None:
    return 1 if matrix.device.type == "cpu" and matrix.shape[-1] <= SERIAL else None
