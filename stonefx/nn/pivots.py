"""Rows of a matrix from which the others follow by small coefficients."""

from __future__ import annotations

import torch
from torch import Tensor

# Interpolation coefficients are brought to at most this: then each swap of rows doubles the volume of the pivots.
LARGEST = 2.0


def interpolative_rows(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of `left @ right` of which all its rows are combinations, by coefficients of at most 2.

    The rows are those that elimination with partial pivoting takes from an orthonormal basis of the columns; then rows
    are exchanged as in a strong rank-revealing factorization (Gu and Eisenstat 1996), each time for the largest
    coefficient, until none is above 2. The same input gives the same rows.

    Args:
        left: `[out, rank]`, float64, finite.
        right: `[rank, in]`, float64, finite.

    Returns:
        `pivots` `[found]`, ascending, `others` `[out - found]`, ascending, and `coefficients` `[out - found, found]`
        with `rows[others] = coefficients @ rows[pivots]`. `found` is the rank of `left`, where `right` weighs its
        columns: less than `rank` if some depend on others or do not matter.

    >>> left = torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    >>> pivots, others, coefficients = interpolative_rows(left, torch.eye(2, dtype=torch.float64))
    >>> (left[others] - coefficients @ left[pivots]).abs().max().item() < 1e-15
    True
    """
    # Each column at the size that it has in the product, so that none is lost for its scale.
    lengths = right.norm(dim=1)
    basis, corner = torch.linalg.qr(left * lengths)
    sizes = torch.linalg.svdvals(corner)
    found = int((sizes > max(left.shape) * torch.finfo(torch.float64).eps * sizes[:1]).sum())
    if found < basis.shape[1]:
        basis = basis @ torch.linalg.svd(corner).U[:, :found]
    order = _eliminated(basis)
    pivots, others = order[:found].clone(), order[found:].clone()
    coefficients = _solved(basis, pivots, others)
    _exchange(pivots, others, coefficients)
    pivots, others = pivots.sort().values, others.sort().values
    return pivots, others, _solved(basis, pivots, others)


def _eliminated(basis: Tensor) -> Tensor:
    """All rows, those first that partial pivoting takes."""
    rows, found = basis.shape
    order = torch.arange(rows)
    if found == 0:
        return order
    for at, chosen in enumerate(torch.linalg.lu_factor(basis).pivots.tolist()):
        order[[at, chosen - 1]] = order[[chosen - 1, at]]
    return order


def _solved(basis: Tensor, pivots: Tensor, others: Tensor) -> Tensor:
    if len(pivots) == 0 or len(others) == 0:
        return basis.new_zeros(len(others), len(pivots))
    return torch.linalg.solve(basis[pivots], basis[others], left=False)


def _exchange(pivots: Tensor, others: Tensor, coefficients: Tensor) -> None:
    """Exchange rows in place until no coefficient is above the largest allowed; each exchange is a rank-1 update."""
    while coefficients.numel() > 0:
        place = int(coefficients.abs().argmax())
        i, j = divmod(place, coefficients.shape[1])
        largest = coefficients[i, j].item()
        if abs(largest) <= LARGEST:
            return
        row, column = coefficients[i].clone(), coefficients[:, j].clone()
        row[j] -= 1
        column[i] += 1
        coefficients.addr_(column, row, alpha=-1 / largest)
        pivots[j], others[i] = others[i].clone(), pivots[j].clone()
