"""The best map of every rank in the metric of the data: `min tr G (W - W') C (W - W')^T`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import processes, randomized
from .checkpoint import Store
from .eigen import eigenvectors
from .statistics import Statistics

DAMPING = 0.01
"""Of the mean eigenvalue of the gradients' covariance; 0.01 was best of 0.01, 0.1 and 1."""


@dataclass(frozen=True)
class Spectrum:
    """What each rank of a matrix costs, and the factors that reach it.

    With `G = L L^T` and `C = E[x x^T]`, the best map of rank r is `W' = L^-T U U^T L^T W`, where `U` are the first r
    eigenvectors of `L^T W C W^T L` (any square root of G gives the same map). Only G is inverted, and it is damped.

    Attributes:
        left: `L^-T U`, `[groups, rows, k]`, best first.
        right: `U^T L^T W`, `[groups, k, columns]`.
        dual: `U^T L^T`, `[groups, k, rows]`: `right` is `dual W`, and `dual left` the identity.
        tails: `[k + 1]`: the loss of keeping r components, in units of the probed scalar squared, over all groups.
        excess: `[k + 1]`: by how much `tails` may at most be above the least loss of any map of that rank; zeros
            where the decomposition is not randomised.
    """

    left: Tensor
    right: Tensor
    dual: Tensor
    tails: Tensor
    excess: Tensor

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """`a [groups, rows, rank]` and `b [groups, rank, columns]` with columns and rows of equal length, float64."""
        a, b = self.left[:, :, :rank], self.right[:, :rank]
        # The inverse root is huge where gradients are small: without this, half precision would overflow.
        smallest = torch.finfo(torch.float64).tiny
        scale = (b.norm(dim=2) / a.norm(dim=1).clamp_min(smallest)).sqrt()
        scale = torch.where(scale > 0, scale, 1.0)
        return a * scale[:, None, :], b / scale[:, :, None]

    def projection(self, rank: int) -> tuple[Tensor, Tensor]:
        """`a [groups, rows, rank]` and `x [groups, rank, rows]`: the best map is `a x W`, and `x a` the identity."""
        return self.left[:, :, :rank], self.dual[:, :rank]

    def components(self) -> tuple[Tensor, Tensor]:
        """`p [groups, rows, k]` and `q [groups, columns, k]` with `W_k - W_r = sum over r <= i < k of p_i q_i^T`."""
        return self.left, self.right.mT

    def rest(self, matrix: Tensor) -> Tensor | None:
        """`W - W_k`, what lies beyond the components; None where all ranks are known."""
        if self.left.shape[2] == min(matrix.shape[1:]):
            return None
        return matrix - self.left @ self.right


def decompose(
    matrix: Tensor, statistics: Statistics | None, most_rank: int | None = None, seed: int = 0
) -> Spectrum:
    """The spectrum of `matrix [groups, rows, columns]`, float64; without statistics that of its plain singular values.

    Args:
        matrix: `[groups, rows, columns]`, float64.
        statistics: of its inputs and gradients, or None.
        most_rank: higher ranks are not wanted. Where it is far below the full rank of a large matrix, the
            decomposition is randomised (`randomized.top`).
        seed: of what is random then.

    Raises:
        ValueError: the matrix or its statistics are not finite.
    """
    inputs = None if statistics is None else statistics.inputs
    gradients = None if statistics is None else statistics.gradients
    for what, value in (("weights", matrix), ("inputs", inputs), ("gradients", gradients)):
        if value is not None and not bool(value.isfinite().all()):
            raise ValueError(f"its {what} are not finite")
    least = 0.0
    if gradients is not None:
        gradients, least = _damped(gradients)
    full = min(matrix.shape[1:])
    if most_rank is not None and randomized.pays(full, most_rank):
        return Spectrum(*randomized.top(matrix, inputs, gradients, most_rank, seed, least))
    root = None if gradients is None else cholesky(gradients)
    if root is not None and not bool(root.isfinite().all()):
        raise ValueError("its gradients are not finite")
    whitened = matrix if root is None else root.mT @ matrix
    rows, columns = matrix.shape[1:]
    if rows <= columns:
        spread = whitened if inputs is None else times(whitened, inputs)
        values, u = eigenvectors(spread @ whitened.mT)
    else:
        # The thin side: eigenvalues of K^T M^T M K, where K K^T = C.
        thin = whitened if inputs is None else _times_root(whitened, inputs)
        values, v = eigenvectors(thin.mT @ thin)
        # By QR and not by division with singular values, so that it stays orthonormal where they are tiny.
        u = torch.linalg.qr(thin @ v).Q
    ends = values.new_zeros(len(values), 1)
    tails = 0.5 * torch.cat([values.flip(-1).cumsum(-1).flip(-1), ends], -1).sum(0)
    kept = full if most_rank is None else min(most_rank, full)
    u = u[:, :, :kept]
    left = u if root is None else torch.linalg.solve_triangular(root.mT, u, upper=True)
    tails = tails[: kept + 1].clone()
    dual = u.mT if root is None else u.mT @ root.mT
    return Spectrum(left.contiguous(), u.mT @ whitened, dual.contiguous(), tails, torch.zeros_like(tails))


class Spectra(MutableMapping[int, Spectrum]):
    """Spectra by the number of their view, each a record of its own where there is a store.

    Args:
        store: where they are kept.
        resident: whether they are held in memory too.
        private: whether the store is this process's own.
    """

    def __init__(self, store: Store, resident: bool = True, private: bool = False) -> None:
        self.store = store
        self.private = private
        self.resident = resident or store.folder is None
        self._held: dict[int, Spectrum] = {}
        self._numbers: dict[int, None] = {}

    def known(self, number: int) -> bool:
        """Whether a record of it was left by an earlier run; it is taken over."""
        if f"spectrum-{number}" not in self.store:
            return False
        self._numbers[number] = None
        if self.resident:
            self._held[number] = self._read(number)
        return True

    def exchange(self, owner: Mapping[int, int]) -> None:
        """Give every process the spectra of these numbers, each of which one process has made.

        Those that are not resident are read from the folder that the processes share.
        """
        if processes.size() == 1:
            return
        for number, source in owner.items():
            if self.resident or self.private:
                own = [*vars(self[number]).values()] if source == processes.rank() else None
                spectrum = Spectrum(*processes.sent(own, source))
                if source != processes.rank():
                    self[number] = spectrum
            else:
                self._numbers[number] = None
        self._numbers = dict.fromkeys(sorted(self._numbers))
        # None reads before all have written.
        processes.gathered(None)

    def __getitem__(self, number: int) -> Spectrum:
        if number not in self._numbers:
            raise KeyError(number)
        return self._held[number] if number in self._held else self._read(number)

    def __setitem__(self, number: int, spectrum: Spectrum) -> None:
        name = f"spectrum-{number}"
        if name not in self.store:
            self.store.put(name, vars(spectrum), {})
        self._numbers[number] = None
        if self.resident:
            self._held[number] = spectrum

    def __delitem__(self, number: int) -> None:
        del self._numbers[number]
        self._held.pop(number, None)
        self.store.remove(f"spectrum-{number}")

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def _read(self, number: int) -> Spectrum:
        record = self.store.get(f"spectrum-{number}")
        assert record is not None
        return Spectrum(**record.tensors)


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


def _damped(gradients: Tensor) -> tuple[Tensor, float]:
    """The covariance with a part of its mean eigenvalue added, and the least of what was added."""
    mean = gradients.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    # A layer that no probe reached has no gradients at all; then every output counts alike.
    added = DAMPING * torch.where(mean > 0, mean, 1.0)
    identity = torch.eye(gradients.shape[-1], dtype=gradients.dtype, device=gradients.device)
    return gradients + added * identity, added.min().item()


def times(matrix: Tensor, inputs: Tensor) -> Tensor:
    """`W C`, where a covariance without the second axis of features is a diagonal."""
    return matrix * inputs[:, None, :] if inputs.dim() == 2 else matrix @ inputs


def _times_root(matrix: Tensor, inputs: Tensor) -> Tensor:
    if inputs.dim() == 2:
        return matrix * inputs.sqrt()[:, None, :]
    return matrix @ cholesky(inputs)
