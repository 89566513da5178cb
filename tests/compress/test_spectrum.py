"""Spectra: the loss is what it says, no map of that rank has less, and degenerate data are no obstacle."""

from __future__ import annotations

import pytest
import torch

from stonefx.compress.checkpoint import Store
from stonefx.compress.spectrum import DAMPING, Spectra, decompose, energy_rank
from stonefx.compress.statistics import Statistics


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariance(n: int, seed: int, condition: float = 1.0) -> torch.Tensor:
    rows = (
        random(3 * n, n, seed=seed)
        * torch.logspace(0, -0.5, n, dtype=torch.float64) ** torch.tensor(condition).log10()
    )
    return (rows.T @ rows / len(rows))[None]


def damped(g: torch.Tensor) -> torch.Tensor:
    mean = g.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None]
    return g + DAMPING * torch.where(mean > 0, mean, 1.0) * torch.eye(g.shape[1], dtype=g.dtype)


def loss(change: torch.Tensor, c: torch.Tensor | None, g: torch.Tensor | None) -> float:
    """`1/2 tr G dW C dW^T`, over all groups."""
    left = change if g is None else damped(g) @ change
    right = change if c is None else change @ c
    return 0.5 * (left * right).sum().item()


SHAPES = [(7, 12), (12, 7), (9, 9)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sides", ["none", "inputs", "both"])
@pytest.mark.parametrize("condition", [1.0, 1e8])
def test_loss_of_every_rank_is_the_formula(shape: tuple[int, int], sides: str, condition: float) -> None:
    w = random(2, *shape)
    c = None if sides == "none" else covariance(shape[1], 1, condition).expand(2, -1, -1)
    g = covariance(shape[0], 2, condition).expand(2, -1, -1) if sides == "both" else None
    statistics = None if c is None else Statistics(c, g, 1)
    spectrum = decompose(w, statistics)
    p, q = spectrum.components()
    assert (spectrum.tails[:-1] >= spectrum.tails[1:]).all() and spectrum.tails[-1] == 0
    for r in range(min(shape) + 1):
        a, b = spectrum.factors(r)
        torch.testing.assert_close(a.norm(dim=1), b.norm(dim=2), rtol=1e-9, atol=1e-12)
        total = spectrum.tails[0].item()
        assert spectrum.tails[r].item() == pytest.approx(loss(w - a @ b, c, g), rel=1e-6, abs=1e-9 * total)
        torch.testing.assert_close(w - a @ b, p[:, :, r:] @ q[:, :, r:].mT, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_map_of_that_rank_loses_less(shape: tuple[int, int]) -> None:
    w, c, g = random(1, *shape), covariance(shape[1], 1), covariance(shape[0], 2)
    spectrum = decompose(w, Statistics(c, g, 1))
    for r in (1, 3, 5):
        a, b = (x.clone().requires_grad_() for x in spectrum.factors(r))
        best = spectrum.tails[r].item()
        # Perturbed factors lose more, and descent from elsewhere never gets below.
        for seed in range(20):
            other = (a + 0.1 * random(*a.shape, seed=seed)) @ (b + 0.1 * random(*b.shape, seed=seed + 99))
            assert loss((w - other).detach(), c, g) >= best * (1 - 1e-9)
        start = [random(*a.shape, seed=7), random(*b.shape, seed=8)]
        right = start[1]
        for _ in range(300):
            # Alternating least squares; G drops out of the left factor and C out of the right.
            left = w @ c @ right.mT @ torch.linalg.inv(right @ c @ right.mT)
            right = torch.linalg.inv(left.mT @ damped(g) @ left) @ left.mT @ damped(g) @ w
        reached = loss(w - left @ right, c, g)
        assert reached >= best * (1 - 1e-9)
        assert reached <= best * 1.5


def test_identity_gradients_give_the_svd_of_whitened_weights() -> None:
    w, c = random(1, 8, 11), covariance(11, 3)
    root = torch.linalg.cholesky(c)
    values = torch.linalg.svdvals(w @ root)[0]
    spectrum = decompose(w, Statistics(c, None, 1))
    expected = 0.5 * values.square().flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(spectrum.tails[:-1], expected, rtol=1e-9, atol=1e-12)
    u, s, v = torch.linalg.svd(w @ root, full_matrices=False)
    swift = (u[:, :, :4] * s[:, None, :4]) @ v[:, :4] @ torch.linalg.inv(root)
    a, b = spectrum.factors(4)
    torch.testing.assert_close(a @ b, swift, rtol=1e-8, atol=1e-8)
    scaled = decompose(w, Statistics(c, 3 * torch.eye(8, dtype=torch.float64)[None], 1))
    a, b = scaled.factors(4)
    torch.testing.assert_close(a @ b, swift, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("what", ["inputs", "gradients", "weights", "single input"])
def test_zeros_and_covariances_of_one_direction(shape: tuple[int, int], what: str) -> None:
    w, c, g = random(1, *shape), covariance(shape[1], 1), covariance(shape[0], 2)
    if what == "inputs":
        c = torch.zeros_like(c)
    elif what == "gradients":
        g = torch.zeros_like(g)
    elif what == "weights":
        w = torch.zeros_like(w)
    else:
        x = random(shape[1], 1)
        c = (x @ x.T)[None]
    spectrum = decompose(w, Statistics(c, g, 1))
    for r in range(min(shape) + 1):
        a, b = spectrum.factors(r)
        assert a.isfinite().all() and b.isfinite().all()
        assert loss(w - a @ b, c, g) == pytest.approx(spectrum.tails[r].item(), rel=1e-6, abs=1e-9)
    if what == "single input":
        assert spectrum.tails[1] <= 1e-12 * spectrum.tails[0]


@pytest.mark.parametrize("what", ["weights", "inputs", "gradients"])
def test_what_is_not_finite_is_named(what: str) -> None:
    w, c, g = random(1, 4, 5), covariance(5, 1), covariance(4, 2)
    {"weights": w, "inputs": c, "gradients": g}[what][0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match=f"its {what} are not finite"):
        decompose(w, Statistics(c, g, 1))


def test_spectra_in_files_are_the_same(tmp_path) -> None:
    held, filed = Spectra(Store(None)), Spectra(Store(tmp_path), resident=False)
    spectrum = decompose(random(1, 6, 5), None)
    for spectra in (held, filed):
        spectra[3] = spectrum
        assert list(spectra) == [3] and len(spectra) == 1
        with pytest.raises(KeyError):
            spectra[4]
        for name, value in vars(spectra[3]).items():
            assert torch.equal(value, getattr(spectrum, name))
    again = Spectra(Store(tmp_path))
    assert again.known(3) and not again.known(4)
    assert torch.equal(again[3].left, spectrum.left)
    del filed[3]
    assert not Spectra(Store(tmp_path)).known(3)


def test_energy_rank_counts_all_groups() -> None:
    w = torch.stack([torch.diag(torch.tensor([3.0, 1.0, 0.1])), torch.diag(torch.tensor([3.0, 2.0, 0.1]))])
    assert energy_rank(w, 0.7) == 1
    assert energy_rank(w, 0.99) == 2
    assert energy_rank(w, 1.0) == 3
