"""The first components of a large matrix by random subspaces: their loss is known, its excess bounded."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .eigen import eigenvalues, eigenvectors

LEAST_SIZE = 512
"""Smaller matrices are decomposed whole: that takes less than a second."""
SHARE = 4
"""Random subspaces pay where the rank is at most this part of the full one."""
APPLICATIONS = 2
"""Of the product to the random subspace; each takes the errors of the squared singular values down by their ratio."""
PROBES = 16
"""Vectors that bound what lies outside the subspace."""
DOUBT = 1e-10
"""The probability that the bound does not hold, at most."""
STEPS = 8
"""Of Lanczos' iteration from each of these vectors; more of them tighten the bound."""
SINGLE_FROM = 1024
"""From this size on products are taken in float32, and sums of them in float64."""


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
      matrices of `SINGLE_FROM` and more these are float32 products and good to about six digits of the trace.
    - `|B| <= s` with probability `1 - DOUBT`, see `_rest`.
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
    scale, w = _scaled(w, fast)
    c_scale, c = (1.0, None) if c is None else _scaled(c, fast)
    g_scale, g = (1.0, None) if g is None else _scaled(g, fast)
    # All below is in units in which entries are small, and `unit` takes squares back.
    unit = scale**2 * c_scale * g_scale
    wc = w if c is None else _right(w, c)
    gw = w if g is None else g @ w
    total = _inner(wc, gw)
    columns = rank + oversampling(rank)
    a = torch.randn(w.shape[0], columns, generator=generator, dtype=torch.float64).to(w)
    for _ in range(APPLICATIONS):
        # Only its span counts, which the lower factor has; it becomes orthonormal below.
        a = _lower(wc @ (gw.mT @ a))
    a = _orthonormal(a.double())
    # Orthonormal under G, and then along the eigenvectors of the Rayleigh quotient.
    ga = a
    if g is not None:
        ga = (g @ a.to(fast)).double()
        root = torch.linalg.cholesky(a.mT @ ga)
        a, ga = (torch.linalg.solve_triangular(root, x.mT, upper=False).mT for x in (a, ga))
    b = ga.to(fast).mT @ w
    bc = b if c is None else _right(b, c)
    theta, turn = eigenvectors(bc.double() @ b.double().mT)
    a, ga, b = a @ turn, ga @ turn, turn.mT @ b.double()

    residual = (w @ (turn.mT.to(fast) @ bc).mT).double() - a * theta
    weighted = residual if g is None else (g @ residual.to(fast)).double()
    singular = eigenvalues(residual.mT @ weighted).sqrt()
    s = _rest(w, c, gw, g, a, ga, least / g_scale, generator)
    captured = torch.cat([theta.new_zeros(1), theta[:rank].cumsum(0)])
    most = _most(theta, singular, s, rank).clamp_max(total)
    tails = 0.5 * unit * (total - captured).clamp_min(0)
    excess = torch.minimum(0.5 * unit * (most - captured).clamp_min(0), tails)
    # `a` is orthonormal under the scaled G: what is returned is so under G itself.
    a, ga, b = a / g_scale**0.5, ga * g_scale**0.5, b * (scale * g_scale**0.5)
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
    w: Tensor,
    c: Tensor | None,
    gw: Tensor,
    g: Tensor | None,
    a: Tensor,
    ga: Tensor,
    least: float,
    generator: torch.Generator,
) -> float:
    """What the greatest eigenvalue of the rest B is at most, with probability `1 - DOUBT`.

    Lanczos' iteration from `PROBES` Gaussian vectors `x` in the coordinates `a`, side by side, each `STEPS` long. If
    its greatest Ritz value lies below `mu = (1 - e) lambda`, with lambda the greatest eigenvalue of B and v its
    eigenvector, then every polynomial p of degree `STEPS - 1` has
    `(v, x)^2 p(lambda)^2 (lambda - mu) < sum (v_i, x)^2 p(lambda_i)^2 (mu - lambda_i) <= mu |x|^2 max_[0, mu] p^2`;
    with the Chebyshev polynomial T of `[0, mu]` therefore `(v, x)^2 < |x|^2 (1 - e) / (e T((1 + e) / (1 - e))^2)`
    (as Kuczynski and Wozniakowski 1992). But `(v, x)` is Gaussian with a variance of at least the least eigenvalue of
    G, and all vectors have to meet it at once. So lambda is at most the greatest Ritz value of all over `1 - e`.
    """
    rows, probes = len(a), PROBES
    trace = float(rows) if g is None else g.diagonal().double().sum().item()
    least = 1.0 if g is None else least
    x = torch.randn(rows, probes, generator=generator, dtype=torch.float64).to(a)
    x = x - a @ (ga.mT @ x)
    size = _norm(x, g)
    # Twice what is expected: hardly ever reached, and the bound is used only below it.
    radius = math.sqrt(2 * trace)
    if not bool((size <= radius).all()) or least <= 0:
        return math.inf
    x, previous = x / size.clamp_min(torch.finfo(x.dtype).tiny), torch.zeros_like(x)
    diagonal, beside, beta = [], [], torch.zeros_like(size)
    for step in range(STEPS):
        # In the coordinates `a`: B x, and its products with x under G by what is on the way to it.
        z = gw.mT @ x.to(gw)
        cz = z if c is None else _right(z.mT, c).mT
        y = (w @ cz).double()
        y = y - a @ (ga.mT @ y)
        alpha = (z.double() * cz.double()).sum(0)
        diagonal.append(alpha)
        if step + 1 == STEPS:
            break
        y = y - x * alpha - previous * beta
        beta = _norm(y, g)
        beside.append(beta)
        previous, x = x, y / beta.clamp_min(torch.finfo(y.dtype).tiny)
    ritz = torch.diag_embed(torch.stack(diagonal, 1))
    if beside:
        off = torch.diag_embed(torch.stack(beside, 1), 1)
        ritz = ritz + off + off.mT
    greatest = eigenvalues(ritz).max().item()
    return greatest / (1 - _slack(radius / math.sqrt(least)))


def _slack(ratio: float) -> float:
    """The least e of `_rest`, where `ratio` is that of a vector's greatest norm to the deviation along v."""
    each = DOUBT ** (1 / PROBES)
    low, high = 0.0, 1.0
    for _ in range(50):
        e = (low + high) / 2
        chebyshev = math.cosh((STEPS - 1) * math.acosh((1 + e) / (1 - e)))
        doubt = math.sqrt(2 / math.pi) * ratio * math.sqrt((1 - e) / e) / chebyshev
        low, high = (e, high) if doubt > each else (low, e)
    return min(high, 1 - 1e-12)


def _norm(x: Tensor, g: Tensor | None) -> Tensor:
    """Of each column, under G."""
    gx = x if g is None else (g @ x.to(g)).double()
    return (x * gx).sum(0).clamp_min(0).sqrt()


def _lower(y: Tensor) -> Tensor:
    """A well-conditioned matrix of the same columns' span, by elimination with pivots: cheaper than QR."""
    factors, pivots, _ = torch.linalg.lu_factor_ex(y)
    order = list(range(len(y)))
    for i, j in enumerate(pivots.tolist()):
        order[i], order[j - 1] = order[j - 1], order[i]
    lower = factors.tril(-1)
    lower.diagonal().fill_(1.0)
    found = torch.empty_like(lower)
    found[torch.tensor(order, device=y.device)] = lower
    return found


def _orthonormal(a: Tensor) -> Tensor:
    """Columns of the same span, orthonormal: by their products, which takes less time than QR, where those allow it."""
    root, failed = torch.linalg.cholesky_ex(a.mT @ a)
    if bool(failed):
        return torch.linalg.qr(a).Q
    return torch.linalg.solve_triangular(root, a.mT, upper=False).mT


def _scaled(value: Tensor, dtype: torch.dtype) -> tuple[float, Tensor]:
    """A tensor over about its greatest entry, so that products neither overflow nor vanish in float32."""
    low, high = value.aminmax()
    largest = max(high.item(), -low.item())
    # A power of two rounds nothing.
    scale = 2.0 ** math.frexp(largest)[1] if largest > 0 else 1.0
    if 2.0**-10 <= scale <= 2.0**10:
        return 1.0, value.to(dtype)
    return scale, (value / scale).to(dtype)


def _right(w: Tensor, c: Tensor) -> Tensor:
    return w * c if c.dim() == 1 else w @ c


def _inner(a: Tensor, b: Tensor) -> float:
    """The sum of products of entries: of rows in their dtype, of these in float64."""
    return math.fsum(
        torch.linalg.vecdot(x, y).double().sum().item()
        for x, y in zip(a.split(256), b.split(256), strict=True)
    )
