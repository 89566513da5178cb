"""The first components of a large matrix by random subspaces: their loss is known, its excess bounded."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

LEAST_SIZE = 512
"""Smaller matrices are decomposed whole: that takes less than a second."""
SHARE = 4
"""Random subspaces pay where the rank is at most this part of the full one."""
APPLICATIONS = 3
"""Of the product to the random subspace; each takes the errors of the squared singular values down by their ratio."""
PROBES = 10
"""Vectors that bound what lies outside the subspace; the bound holds with probability `1 - 10 ** -PROBES`."""
POWER = 12
"""Of the remainder whose size the vectors probe; its root tightens the bound."""
SINGLE_FROM = 1024
"""From this size on products that only choose the subspace, and the total, are taken in float32."""


def pays(full: int, rank: int) -> bool:
    """Whether a random subspace is worth while for this many components of a full rank.

    >>> pays(4096, 256), pays(4096, 2048), pays(128, 8)
    (True, False, False)
    """
    return full >= LEAST_SIZE and rank + oversampling(rank) <= full // SHARE


def oversampling(rank: int) -> int:
    """Columns beside those wanted; they make the last ones good."""
    return max(16, rank // 8)


def top(
    matrix: Tensor,
    inputs: Tensor | None,
    gradients: Tensor | None,
    rank: int,
    seed: int = 0,
    least: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Left and right factors of the first `rank` components, their losses, and how far above the least those may be.

    Subspace iteration for the first eigenvectors of `S = L^T W C W^T L`, `G = L L^T`, in the coordinates
    `a = L^-T u` in which no root of G is needed: `W C W^T G a = theta a` with `a^T G a = 1`.

    What is certified. Let `theta` be the Rayleigh quotients of the subspace, `E` the residual `(1 - U U^T) S U` and
    `B` the rest `(1 - U U^T) S (1 - U U^T)`.

    - The loss of the map `a a^T G W` of rank r *is* `1/2 (tr S - theta_1 - ... - theta_r)`: nothing is estimated. Of
      matrices of `SINGLE_FROM` and more the trace is summed from float32 products and is good to about six digits of
      itself.
    - `|B| <= s`, where s is from `PROBES` Gaussian vectors through the `POWER`-th power of B (Halko, Martinsson and
      Tropp 2011, lemma 4.1), with probability `1 - 10 ** -PROBES`.
    - The i-th eigenvalue of S is at most that of the block diagonal, `max(theta_i, s)`, and
      `2 |E|^2 / (eta + sqrt(eta^2 + 4 |E|^2))` with the gap `eta = max(theta_i - s, 0)` (Li and Li 2005). The sum of
      the first r is also at most that of the block diagonal and the r largest singular values of E (Fan 1949), and
      at most the trace. The least of the three, less what was captured, is the excess.

    Args:
        matrix: `[groups, rows, columns]`, float64.
        inputs: `[groups, columns, columns]`, its diagonal `[groups, columns]`, or None for the identity.
        gradients: `[groups, rows, rows]`, positive definite, or None for the identity.
        rank: how many components.
        seed: of the random vectors.
        least: a positive lower bound of the eigenvalues of `gradients`, where there are any.

    Returns:
        `left [groups, rows, rank]`, `right [groups, rank, columns]`, `dual [groups, rank, rows]`,
        `tails [rank + 1]`, `excess [rank + 1]`.
    """
    parts = [
        _top(
            matrix[i],
            None if inputs is None else inputs[i],
            None if gradients is None else gradients[i],
            rank,
            least,
            torch.Generator().manual_seed(seed + i),
        )
        for i in range(len(matrix))
    ]
    left, right, dual, tails, excess = zip(*parts, strict=True)
    return torch.stack(left), torch.stack(right), torch.stack(dual), sum(tails), sum(excess)


def _top(
    w: Tensor, c: Tensor | None, g: Tensor | None, rank: int, least: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    fast = torch.float32 if min(w.shape) >= SINGLE_FROM else torch.float64
    scale, w_fast = _scaled(w, fast)
    c_scale, c_fast = (1.0, None) if c is None else _scaled(c, fast)
    g_scale, g_fast = (1.0, None) if g is None else _scaled(g, fast)
    wc = w_fast if c_fast is None else _right(w_fast, c_fast)
    gw = w_fast if g_fast is None else g_fast @ w_fast
    unit = scale**2 * c_scale * g_scale
    total = unit * _inner(wc, gw)

    def apply(x: Tensor) -> Tensor:
        """`W C W^T G x`, in units in which its entries are small."""
        return wc @ (gw.mT @ x)

    columns = rank + oversampling(rank)
    a = torch.randn(w.shape[0], columns, generator=generator, dtype=torch.float64).to(w.device)
    a = a.to(fast)
    for _ in range(APPLICATIONS):
        # Only its span counts here; it becomes orthonormal, in float64, below.
        a = torch.linalg.qr(apply(a)).Q
    a = a.double()
    ga = a if g is None else g @ a
    # Orthonormal under G, and then along the eigenvectors of the Rayleigh quotient.
    root = torch.linalg.cholesky(a.mT @ ga)
    a, ga = (torch.linalg.solve_triangular(root, x.mT, upper=False).mT for x in (a, ga))
    b = ga.mT @ w
    bc = b if c is None else _right(b, c)
    theta, turn = torch.linalg.eigh(bc @ b.mT)
    theta, turn = theta.flip(-1).clamp_min(0), turn.flip(-1)
    a, ga, b, bc = a @ turn, ga @ turn, turn.mT @ b, turn.mT @ bc

    b_scale, b_fast = _scaled(bc, fast)
    residual = scale * b_scale * (w_fast @ b_fast.mT).double() - a * theta
    weighted = residual
    if g_fast is not None:
        r_scale, r_fast = _scaled(residual, fast)
        weighted = g_scale * r_scale * (g_fast @ r_fast).double()
    singular = torch.linalg.eigvalsh(residual.mT @ weighted).flip(-1).clamp_min(0).sqrt()
    s = unit * _rest(apply, a, ga, g, least, generator)
    captured = torch.cat([theta.new_zeros(1), theta[:rank].cumsum(0)])
    most = _most(theta, singular, s, rank).clamp_max(total)
    tails = 0.5 * (total - captured).clamp_min(0)
    excess = torch.minimum(0.5 * (most - captured).clamp_min(0), tails)
    return a[:, :rank].contiguous(), b[:rank], ga[:, :rank].mT.contiguous(), tails, excess


def _most(theta: Tensor, singular: Tensor, s: float, rank: int) -> Tensor:
    """What the first r eigenvalues add up to at most, `[rank + 1]`."""
    diagonal = theta.clamp_min(s)[:rank]
    norm = singular[0]
    gap = (theta[:rank] - s).clamp_min(0)
    tiny = torch.finfo(theta.dtype).tiny
    moved = 2 * norm**2 / (gap + (gap**2 + 4 * norm**2).sqrt()).clamp_min(tiny)
    each = (diagonal + moved).cumsum(0)
    together = diagonal.cumsum(0) + singular[:rank].cumsum(0)
    return torch.cat([theta.new_zeros(1), torch.minimum(each, together)])


def _rest(
    apply: Callable[[Tensor], Tensor],
    a: Tensor,
    ga: Tensor,
    g: Tensor | None,
    least: float,
    generator: torch.Generator,
) -> float:
    """A bound of the greatest eigenvalue outside the subspace, in the units of `apply`.

    Vectors that are Gaussian in the coordinates `a` have in those of S the covariance `L^T L`, which is at least the
    least eigenvalue of G; by its root the bound grows before the `POWER`-th root is taken.
    """
    x = torch.randn(len(a), PROBES, generator=generator, dtype=torch.float64).to(a.device)
    x = x - a @ (ga.mT @ x)
    logarithm = 0.0
    for _ in range(POWER):
        x = apply(x.to(torch.float64 if len(a) < SINGLE_FROM else torch.float32)).double()
        x = x - a @ (ga.mT @ x)
        size = x.norm().item()
        if not size > 0:
            return 0.0
        logarithm += math.log(size)
        x = x / size
    norms = (x * (x if g is None else g @ x)).sum(0).clamp_min(0).sqrt()
    least = 1.0 if g is None else least
    factor = 10 * math.sqrt(2 / math.pi) / math.sqrt(least)
    largest = norms.max().item()
    return math.exp((logarithm + math.log(factor * largest)) / POWER) if largest > 0 else 0.0


def _scaled(value: Tensor, dtype: torch.dtype) -> tuple[float, Tensor]:
    """A tensor over its greatest entry, so that products neither overflow nor vanish in float32."""
    scale = value.abs().max().item() or 1.0
    return scale, (value / scale).to(dtype)


def _right(w: Tensor, c: Tensor) -> Tensor:
    return w * c if c.dim() == 1 else w @ c


def _inner(a: Tensor, b: Tensor) -> float:
    """The sum of products of entries, float64, a few rows at a time."""
    return math.fsum(
        (x.double() * y.double()).sum().item() for x, y in zip(a.split(256), b.split(256), strict=True)
    )
