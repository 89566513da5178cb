"""Random subspaces: the loss is that of the map returned, its excess is bounded, and the time pays."""

from __future__ import annotations

import pytest
import torch

from stonefx.compress import randomized
from stonefx.compress.spectrum import decompose
from stonefx.compress.statistics import Statistics

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is random for large matrices is so for small ones, whose exact values are had at once."""
    monkeypatch.setattr(randomized, "LEAST_SIZE", 128)


SPECTRA = {
    "flat": lambda i: torch.ones_like(i),
    "slow": lambda i: (1 + i) ** -0.5,
    "fast": lambda i: 0.9**i,
    "low": lambda i: torch.where(i < 16, 1.0, 1e-6),
}


def matrix(rows: int, columns: int, kind: str, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    full = min(rows, columns)
    u = torch.linalg.qr(torch.randn(rows, full, generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(columns, full, generator=generator, dtype=torch.float64)).Q
    return (u * SPECTRA[kind](torch.arange(full, dtype=torch.float64))) @ v.T


def covariance(n: int, condition: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    return (q * torch.logspace(0, -float(torch.tensor(condition).log10()), n, dtype=torch.float64)) @ q.T


def loss(w: torch.Tensor, other: torch.Tensor, c: torch.Tensor | None, g: torch.Tensor | None) -> float:
    change = w - other
    left = change if g is None else g @ change
    right = change if c is None else (change * c if c.dim() == 1 else change @ c)
    return 0.5 * (left * right).sum().item()


CASES = [
    (rows, columns, kind, sides)
    for rows, columns in ((160, 160), (240, 160), (160, 200))
    for kind in SPECTRA
    for sides in ("none", "inputs", "both", "diagonal")
    if (rows, columns) == (160, 160) or sides == "both"
]


@pytest.mark.parametrize(("rows", "columns", "kind", "sides"), CASES)
def test_certificate_against_dense_float64(rows: int, columns: int, kind: str, sides: str) -> None:
    w = matrix(rows, columns, kind)
    c = {
        "none": None,
        "inputs": covariance(columns, 1e6, 1),
        "both": covariance(columns, 1e6, 1),
        "diagonal": torch.rand(columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    }[sides]
    g = covariance(rows, 1e6, 2) if sides == "both" else None
    damped = None if g is None else g + 0.01 * g.diagonal().mean() * torch.eye(rows, dtype=torch.float64)
    statistics = Statistics(
        torch.eye(columns, dtype=torch.float64)[None] if c is None else c[None],
        None if g is None else g[None],
        1,
    )
    rank = 12
    found = decompose(w[None], statistics, most_rank=rank, seed=3)
    exact = decompose(w[None], statistics)
    total = exact.tails[0].item()
    assert found.left.shape == (1, rows, rank)
    assert (found.excess >= 0).all()
    for r in (0, 1, 8, rank):
        kept = found.left[0, :, :r] @ found.right[0, :r]
        # The loss of the map that is returned is known, and lies between the least and the least and the bound.
        assert found.tails[r].item() == pytest.approx(loss(w, kept, c, damped), rel=1e-8, abs=1e-11 * total)
        assert found.tails[r] >= exact.tails[r] - 1e-10 * total
        assert found.tails[r] - found.excess[r] <= exact.tails[r] + 1e-10 * total
    root_ratio = (
        (found.tails[rank] / exact.tails[rank]).sqrt().item() if exact.tails[rank] > 1e-9 * total else 1.0
    )
    assert root_ratio < 1.05


def test_bound_says_something_where_singular_values_fall() -> None:
    found = decompose(matrix(160, 160, "fast")[None], None, most_rank=20)
    assert found.excess[:16].max() < 0.02 * found.tails[0]
    low = decompose(matrix(160, 160, "low")[None], None, most_rank=20)
    assert low.excess[16] < 1e-6 * low.tails[0]


def test_single_precision_products_are_good_to_six_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomized, "SINGLE_FROM", 160)
    w, c, g = matrix(160, 160, "slow"), covariance(160, 1e6, 1)[None], covariance(160, 1e6, 2)[None]
    found = decompose(1e-20 * w[None], Statistics(1e30 * c, g, 1), most_rank=20)
    exact = decompose(1e-20 * w[None], Statistics(1e30 * c, g, 1))
    assert (found.tails - exact.tails[:21]).abs().max() < 0.05 * exact.tails[0]
    assert found.tails[0].item() == pytest.approx(exact.tails[0].item(), rel=1e-5)


def test_seed_decides_and_small_matrices_are_decomposed_whole() -> None:
    w = matrix(160, 160, "slow")[None]
    one, same, other = (decompose(w, None, most_rank=16, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.left, same.left)
    assert not torch.equal(one.left, other.left)
    small = decompose(w[:, :64, :64], None, most_rank=4)
    assert small.left.shape == (1, 64, 4)
    assert (small.excess == 0).all()
    assert small.rest(w[:, :64, :64]) is not None
    torch.testing.assert_close(small.tails, decompose(w[:, :64, :64], None).tails[:5])


def test_zero_and_groups() -> None:
    w = torch.stack([torch.zeros(160, 160, dtype=torch.float64), matrix(160, 160, "fast")])
    found = decompose(w, None, most_rank=16)
    assert found.left.isfinite().all() and found.right.isfinite().all()
    assert (found.right[0] == 0).all()
    torch.testing.assert_close(found.tails, decompose(w, None).tails[:17], rtol=1e-3, atol=1e-9)
