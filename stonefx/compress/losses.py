"""What each rank of each layer really costs, sampled: errors of one sample add up before they are squared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import processes
from .checkpoint import Running, flat, numbered
from .data import Batch
from .statistics import Pass, aligned, hooked
from .views import View


@dataclass(frozen=True)
class Directions:
    """Parts of a layer that may be dropped, in the order in which they are kept.

    Attributes:
        view: whose products they are parts of.
        p, q: `[groups, rows, k]` and `[groups, columns, k]`: part i is the map `p_i q_i^T`.
        rest: `[groups, rows, columns]`, what is dropped in any case beside the parts; None: nothing.
    """

    view: View
    p: Tensor
    q: Tensor
    rest: Tensor | None = None


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
    running: Callable[[str], Running] | None = None,
) -> tuple[dict[Any, Tensor], dict[Any, float]]:
    """Losses of every rank of `directions`, `[k + 1]` each, and of whole `changes`, `[groups, rows, columns]`.

    `1/2 E_sample[(sum over dropped i, over positions t of (g_t . p_i)(q_i . x_t))^2]`: one reading gives all.
    With a mean over positions in the model, errors of positions add up coherently, which the product of covariances
    cannot know. `running` makes the sums that can be resumed.
    """
    reading = Pass(model, kind=kind, output=output, metric=metric, seed=seed)
    rank_keys, change_keys = list(directions), list(changes)
    views = [directions[key].view for key in rank_keys] + [changes[key][0] for key in change_keys]
    given: dict[int, list[tuple[Tensor, Tensor | None]]] = {}
    totals: dict[int, Tensor] = {}
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

        def moved(weight: Tensor) -> Tensor:
            """`[samples, positions, groups, rows of the weight]`, zero where nothing counts."""
            found = (
                _pick(weight, rows) if view.indexed else torch.einsum("spgj,gij->spgi", _float(rows), weight)
            )
            return found if mask is None else found * mask.to(found)[:, :, None, None]

        like = _float(rows)
        if number >= len(rank_keys):
            change = changes[change_keys[number - len(rank_keys)]][1]
            values: tuple[Tensor, Tensor | None] = moved(cast(number, "w", change, like)), None
        else:
            parts = directions[rank_keys[number]]
            rest = None if parts.rest is None else moved(cast(number, "rest", parts.rest, like))
            values = moved(cast(number, "q", parts.q, like).mT), rest
        given.setdefault(number, []).append(values)

    def on_gradient(number: int, view: View, gradient: Tensor) -> None:
        assert reading.batch is not None
        g = _float(aligned(view.outputs(gradient), reading.batch.samples))
        # A layer called twice gets its gradients back in the opposite order, once for each probe.
        moved, rest = given[number][-1 - seen.get(number, 0) % len(given[number])]
        seen[number] = seen.get(number, 0) + 1
        if number >= len(rank_keys):
            parts = (g * moved).sum((1, 2, 3)).double()[:, None]
        else:
            p = cast(number, "p", directions[rank_keys[number]].p, g)
            parts = (torch.einsum("spgi,gik->spgk", g, p) * moved).sum((1, 2)).double()
            # What is dropped in any case stands last: all ranks lose it.
            last = parts.new_zeros(len(parts)) if rest is None else (g * rest).sum((1, 2, 3)).double()
            parts = torch.cat([parts, last[:, None]], 1).flip(1).cumsum(1).flip(1)
        parts = parts / reading.scale
        before = pending.get(number)
        if before is None or before.shape == parts.shape:
            pending[number] = parts if before is None else before + parts
        else:
            # Calls whose rows belong to no sample in particular (a mixture's experts): each counts by itself.
            count_in(number, parts)

    def count_in(number: int, parts: Tensor) -> None:
        total = parts.square().sum(0).cpu()
        totals[number] = totals[number] + total if number in totals else total

    seen: dict[int, int] = {}
    pending: dict[int, Tensor] = {}

    def settle() -> None:
        for number, value in pending.items():
            count_in(number, value)
        pending.clear()
        seen.clear()

    start = 0
    kept = None if running is None else running("losses")
    found = None if kept is None else kept.resume()
    if found is not None:
        totals.update(numbered(found.tensors, "losses"))
        reading.samples, start = found.values["samples"], found.values["batches"]

    def on_done(done: int) -> None:
        given.clear()
        if kept is not None:
            kept.after(done, lambda: (flat(totals, "losses"), {"samples": reading.samples}))

    with hooked(views, on_inputs, on_gradient):
        reading.run(
            batches,
            gradients=True,
            count=count,
            description=description,
            on_batch=given.clear,
            on_probe=settle,
            start=start,
            on_done=on_done,
        )
    totals = numbered(processes.added(flat(totals, "losses")), "losses")
    n = max(sum(processes.gathered(reading.samples)), 1)
    losses = {}
    for number, key in enumerate(rank_keys):
        unknown = torch.full((directions[key].p.shape[2] + 1,), torch.nan, dtype=torch.float64)
        losses[key] = 0.5 * totals.get(number, unknown) / n
    whole = {
        key: 0.5 * totals[number].item() / n if number in totals else float("nan")
        for number, key in enumerate(change_keys, start=len(rank_keys))
    }
    return losses, whole


def _float(rows: Tensor) -> Tensor:
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.float()


def _pick(weight: Tensor, indices: Tensor) -> Tensor:
    """Columns of `weight [1, rows, columns]` by `indices [samples, positions]`: `[samples, positions, 1, rows]`."""
    return weight[0].t()[indices][:, :, None, :]
