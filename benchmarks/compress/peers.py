"""Recipes of others, from their papers' formulas, on the statistics that all arms share.

All store pairs of factors of the best map in some metric of the input, `min ||(W - W') S||` with ranks by some rule:

- plain SVD: `S = I`, the same share everywhere.
- SVD-LLM (2403.07378): `S S^T = E[x x^T]`, the same share everywhere.
- ASVD (2312.05821): `S` diagonal, how large each input is to the power 1/2; each layer's rank by how far the model's
  result moves where it alone is made smaller, at six shares.
- ZS-SVD: `S S^T = E[x x^T]`; of each singular value the first-order change of the model's loss were it dropped; over
  all layers the values go whose changes keep their sum nearest to zero.
- MoDeGPT (2408.09632): of a feed-forward block the units of greatest ridge leverage score under `E[h h^T]`, and what
  reads them fitted anew.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stonefx.compress.choose import Plan
from stonefx.compress.int8 import plain as plain_layers
from stonefx.compress.options import Option
from stonefx.compress.spectrum import Spectrum, cholesky, decompose
from stonefx.compress.statistics import Statistics
from stonefx.compress.views import View

ASVD_SHARES = (0.9, 0.7, 0.5, 0.4, 0.3, 0.2)
RIDGE = 1e-3
"""Of the mean eigenvalue, in MoDeGPT's leverage scores."""


def plain(view: View, statistics: Statistics) -> Spectrum:
    """In the metric of the weights alone."""
    return decompose(view.matrix(), None)


def whitened(view: View, statistics: Statistics) -> Spectrum:
    """In the metric of the input's covariance."""
    return decompose(view.matrix(), Statistics(statistics.inputs, None, statistics.positions))


def scaled(view: View, statistics: Statistics) -> Spectrum:
    """In the metric of each input's size to the power 1/2: the root of its mean square stands for its mean size."""
    size = statistics.inputs.diagonal(dim1=-2, dim2=-1).sqrt()
    # The spectrum takes squares: a scale of size^(1/2) is a covariance of size.
    return decompose(view.matrix(), Statistics(size, None, statistics.positions))


def rank_of_share(view: View, share: float) -> int:
    """The rank whose pair stores this share of the layer's weights.

    >>> from stonefx.compress.linear import LinearView
    >>> rank_of_share(LinearView("", nn.Linear(100, 100), 1, 100, 100), 0.5)
    25
    """
    return max(1, int(share * view.rows * view.columns / (view.rows + view.columns)))


def pair(view: View, spectrum: Spectrum, rank: int, dense: Option) -> Option:
    """The layer as a pair of this rank; dense where that would not be smaller."""
    form = view.forms()["pair"]
    element = next(view.layer.parameters()).element_size()
    after = dense.bytes - (view.groups * view.rows * view.columns - form.numbers(rank)) * element
    if after >= dense.bytes:
        return dense
    return Option(
        "pair",
        rank,
        spectrum.tails[rank].item(),
        after,
        None,
        lambda: {view.path: form.build(*spectrum.factors(rank))},
    )


def uniform(
    views: Mapping[str, View], spectra: Mapping[str, Spectrum], dense: Mapping[str, Option], share: float
) -> Plan:
    """The same share of every layer."""
    return by_ranks(views, spectra, dense, {k: rank_of_share(v, share) for k, v in views.items()})


def by_ranks(
    views: Mapping[str, View],
    spectra: Mapping[str, Spectrum],
    dense: Mapping[str, Option],
    ranks: Mapping[str, int],
) -> Plan:
    """A pair of the given rank for each layer; layers without a rank stay dense."""
    chosen: dict[tuple[str, ...], Option] = {
        (path,): pair(view, spectra[path], ranks[path], dense[path]) if path in ranks else dense[path]
        for path, view in views.items()
    }
    return Plan(chosen, sum(o.bytes for o in chosen.values()), sum(o.loss for o in chosen.values()))


def by_sensitivity(
    views: Mapping[str, View], falls: Mapping[tuple[str, float], float], share: float
) -> dict[str, int]:
    """Ranks after ASVD: all layers may fall by the same amount, which is bisected on the weights kept.

    Args:
        views: by path.
        falls: (path, share) -> how far the model's score falls where this layer alone keeps that share.
        share: of all weights.
    """
    total = sum(v.rows * v.columns for v in views.values())
    best: dict[str, int] = {}
    for limit in sorted(falls.values()):
        shares = {
            path: min((s for s in ASVD_SHARES if falls[path, s] <= limit), default=1.0) for path in views
        }
        kept = sum(shares[path] * v.rows * v.columns for path, v in views.items())
        best = {path: rank_of_share(views[path], s) for path, s in shares.items() if s < 1}
        if kept <= share * total:
            break
    return best


def falls(
    views: Mapping[str, View],
    spectra: Mapping[str, Spectrum],
    with_modules: Callable[[Mapping[str, nn.Module]], AbstractContextManager[nn.Module]],
    fall: Callable[[nn.Module], float],
) -> dict[tuple[str, float], float]:
    """(path, share) -> how far the score falls where this layer alone keeps that share, for `by_sensitivity`.

    Args:
        views, spectra: by path.
        with_modules: puts layers into the model for the time of a block.
        fall: of the model in it.
    """
    found = {}
    for path, view in views.items():
        for share in ASVD_SHARES:
            factors = spectra[path].factors(rank_of_share(view, share))
            with with_modules({path: view.forms()["pair"].build(*factors)}) as model, torch.no_grad():
                found[path, share] = fall(model)
    return found


def weight_gradients(
    views: Mapping[str, View], batches: Sequence[Any], loss: Callable[[Any], Tensor]
) -> dict[str, Tensor]:
    """Of the mean loss by the weights of linear layers, `[rows, columns]`, for `zero_sum`.

    Args:
        views: by path.
        batches: what the mean is over.
        loss: of a batch.
    """
    weights: dict[str, Any] = {path: view.layer.weight for path, view in views.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        for batch in batches:
            (loss(batch) / len(batches)).backward()
        return {path: weight.grad.double() for path, weight in weights.items()}
    finally:
        for weight in weights.values():
            weight.requires_grad_(False).grad = None


def zero_sum(
    views: Mapping[str, View],
    spectra: Mapping[str, Spectrum],
    gradients: Mapping[str, Tensor],
    share: float,
) -> dict[str, int]:
    """Ranks after ZS-SVD: the smallest component of some layer goes, the one that brings the predicted change of the
    loss nearest to zero, until what the pairs store is the share asked for.

    Args:
        views: by path.
        spectra: whitened by the input alone.
        gradients: `[rows, columns]`, of the mean loss by the weights.
        share: of all weights.
    """
    changes = {}
    for path, spectrum in spectra.items():
        p, q = spectrum.components()
        # Dropping p_i q_i^T changes the loss by -<gradient, p_i q_i^T>, to first order.
        changes[path] = -torch.einsum("ri,rc,ci->i", p[0], gradients[path].double(), q[0])
    ranks = {path: len(c) for path, c in changes.items()}
    total = sum(v.rows * v.columns for v in views.values())
    stored = {path: v.rows * v.columns for path, v in views.items()}
    predicted, kept = 0.0, total
    negative: list[tuple[float, str]] = []
    positive: list[tuple[float, str]] = []

    def offer(path: str) -> None:
        change = changes[path][ranks[path] - 1].item()
        heapq.heappush(positive if change >= 0 else negative, (abs(change), path))

    for path in views:
        offer(path)
    while kept > share * total and (negative or positive):
        wanted = negative if (predicted > 0 and negative) or not positive else positive
        change, path = heapq.heappop(wanted)
        predicted += change if wanted is positive else -change
        ranks[path] -= 1
        view = views[path]
        after = min(stored[path], ranks[path] * (view.rows + view.columns))
        kept += after - stored[path]
        stored[path] = after
        if ranks[path] > 1:
            offer(path)
    return ranks


def leverage(inputs: Tensor, count: int) -> Tensor:
    """The units of greatest ridge leverage score, in order of their number.

    Args:
        inputs: `E[h h^T]`, `[units, units]`.
        count: how many.
    """
    ridge = RIDGE * inputs.diagonal().mean() * torch.eye(len(inputs), dtype=inputs.dtype)
    scores = torch.linalg.solve(inputs + ridge, inputs).diagonal()
    return scores.topk(count).indices.sort().values


def narrow(up: Sequence[nn.Linear], down: nn.Linear, inputs: Tensor, share: float) -> list[nn.Linear]:
    """A feed-forward block with fewer units: what makes them, then what reads them.

    Args:
        up: layers that make the units (two of a gated block).
        down: the layer that reads them.
        inputs: `E[h h^T]` of what `down` is given.
        share: of the units.
    """
    kept = leverage(inputs, max(1, round(share * len(inputs))))
    ridge = 1e-6 * inputs.diagonal().mean() * torch.eye(len(kept), dtype=inputs.dtype)
    root = cholesky((inputs[kept][:, kept] + ridge)[None])[0]
    read = torch.cholesky_solve(inputs[kept] @ down.weight.detach().double().T, root).T
    made = [_linear(u.weight.detach()[kept], None if u.bias is None else u.bias.detach()[kept]) for u in up]
    return [*made, _linear(read.to(down.weight.dtype), None if down.bias is None else down.bias.detach())]


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights, and inputs rounded to 8 bits a row where that is asked for.

    Args:
        layer: whose weights are rounded.
        per: "tensor" or "channel": what has a scale of its own.
        inputs: whether inputs are rounded too, with a scale a row.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear, per: str, inputs: bool) -> None:
        super().__init__()
        weight = layer.weight.detach()
        largest = weight.abs().amax(1, keepdim=True) if per == "channel" else weight.abs().max().reshape(1, 1)
        scale = (largest / 127).clamp_min(1e-12)
        self.inputs = inputs
        self.register_buffer("weight", (weight / scale).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        x, scale = input, None
        if self.inputs:
            scale = (x.abs().amax(-1, keepdim=True) / 127).clamp_min(1e-12)
            x = (x / scale).round()
        y = functional.linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype).T
        if scale is not None:
            y = y * scale
        return y if self.bias is None else y + self.bias


def quantised(modules: Mapping[str, nn.Module], per: str, inputs: bool) -> dict[str, nn.Module]:
    """Each linear layer, or each in a pair of them, in 8 bits; others as they are."""
    found: dict[str, nn.Module] = {}
    for path, module in modules.items():
        layer = plain_layers(module)
        if isinstance(layer, nn.Linear):
            found[path] = Int8Linear(layer, per, inputs)
        elif isinstance(layer, nn.Sequential) and all(isinstance(m, nn.Linear) for m in layer):
            found[path] = nn.Sequential(*(Int8Linear(m, per, inputs) for m in layer))  # type: ignore[arg-type]
        else:
            found[path] = module
    return found


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return layer
