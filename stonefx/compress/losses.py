"""What each rank of each layer really costs, sampled: errors of one sample add up before they are squared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .data import Batch
from .statistics import Pass, aligned, hooked
from .views import View


@dataclass(frozen=True)
class Directions:
    """Parts of a layer that may be dropped, in the order in which they are kept.

    Attributes:
        view: whose products they are parts of.
        p, q: `[groups, rows, k]` and `[groups, columns, k]`: part i is the map `p_i q_i^T`.
    """

    view: View
    p: Tensor
    q: Tensor


def sampled(
    model: nn.Module,
    directions: Mapping[Any, Directions],
    changes: Mapping[Any, tuple[View, Tensor]],
    batches: Sequence[Batch],
    *,
    kind: str = "auto",
    count: int | None = None,
    output: Callable[[Any], Tensor],
    metric: Any = None,
    seed: int = 0,
    description: str | None = None,
) -> tuple[dict[Any, Tensor], dict[Any, float]]:
    """Losses of every rank of `directions`, `[k + 1]` each, and of whole `changes`, `[groups, rows, columns]`.

    `1/2 E_sample[(sum over dropped i, over positions t of (g_t . p_i)(q_i . x_t))^2]`: one reading gives all.
    With a mean over positions in the model, errors of positions add up coherently, which the product of covariances
    cannot know.
    """
    reading = Pass(model, kind=kind, output=output, metric=metric, seed=seed)
    rank_keys, change_keys = list(directions), list(changes)
    views = [directions[key].view for key in rank_keys] + [changes[key][0] for key in change_keys]
    given: dict[int, list[Tensor]] = {}
    totals: list[Any] = [0.0] * len(views)
    operands: dict[tuple[int, str], Tensor] = {}

    def cast(number: int, name: str, value: Tensor, like: Tensor) -> Tensor:
        found = operands.get((number, name))
        if found is None or found.dtype != like.dtype or found.device != like.device:
            found = operands[number, name] = value.to(like.device, like.dtype)
        return found

    def on_inputs(number: int, view: View, arguments: tuple[Any, ...]) -> None:
        assert reading.batch is not None
        rows = aligned(view.inputs(arguments), reading.batch.samples)
        mask = reading.mask_of(rows.shape[:2])
        if number >= len(rank_keys):
            weight = cast(number, "w", changes[change_keys[number - len(rank_keys)]][1], _float(rows))
            moved = (
                _pick(weight, rows) if view.indexed else torch.einsum("spgj,gij->spgi", _float(rows), weight)
            )
        else:
            q = cast(number, "q", directions[rank_keys[number]].q, _float(rows))
            moved = _pick(q.mT, rows) if view.indexed else torch.einsum("spgj,gjk->spgk", _float(rows), q)
        if mask is not None:
            moved = moved * mask.to(moved)[:, :, None, None]
        given.setdefault(number, []).append(moved)

    def on_gradient(number: int, view: View, gradient: Tensor) -> None:
        assert reading.batch is not None
        g = aligned(view.outputs(gradient), reading.batch.samples)
        # A layer called twice gets its gradients back in the opposite order, once for each probe.
        moved = given[number][-1 - seen.get(number, 0) % len(given[number])]
        seen[number] = seen.get(number, 0) + 1
        if number >= len(rank_keys):
            parts = (_float(g) * moved).sum((1, 2, 3)).double()[:, None]
        else:
            p = cast(number, "p", directions[rank_keys[number]].p, _float(g))
            parts = (torch.einsum("spgi,gik->spgk", _float(g), p) * moved).sum((1, 2)).double()
            parts = parts.flip(1).cumsum(1).flip(1)
        before = pending.get(number)
        if before is None or before.shape == parts.shape:
            pending[number] = parts if before is None else before + parts
        else:
            # Calls whose rows belong to no sample in particular (a mixture's experts): each counts by itself.
            totals[number] = totals[number] + parts.square().sum(0)

    seen: dict[int, int] = {}
    pending: dict[int, Tensor] = {}

    def settle() -> None:
        for number, value in pending.items():
            totals[number] = totals[number] + value.square().sum(0)
        pending.clear()
        seen.clear()

    with hooked(views, on_inputs, on_gradient):
        reading.run(
            batches,
            gradients=True,
            count=count,
            description=description,
            on_batch=given.clear,
            on_probe=settle,
        )
    n = max(reading.samples, 1)
    losses = {}
    for number, key in enumerate(rank_keys):
        total = totals[number]
        k = directions[key].p.shape[2]
        tail = total if isinstance(total, Tensor) else torch.full((k,), torch.nan, dtype=torch.float64)
        losses[key] = torch.cat([0.5 * tail.cpu() / n, torch.zeros(1, dtype=torch.float64)])
    whole = {}
    for number, key in enumerate(change_keys, start=len(rank_keys)):
        total = totals[number]
        whole[key] = 0.5 * total.item() / n if isinstance(total, Tensor) else float("nan")
    return losses, whole


def _float(rows: Tensor) -> Tensor:
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.float()


def _pick(weight: Tensor, indices: Tensor) -> Tensor:
    """Columns of `weight [1, rows, columns]` by `indices [samples, positions]`: `[samples, positions, 1, rows]`."""
    return weight[0].t()[indices][:, :, None, :]
