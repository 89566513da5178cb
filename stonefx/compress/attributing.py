"""What each change of a layer really loses: the sampled loss of the difference that its replacement makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import processes
from .data import Batch
from .statistics import Pass


def measured(
    model: nn.Module,
    replacements: Mapping[str, nn.Module],
    batches: Sequence[Batch],
    *,
    kind: str = "auto",
    count: int | None = None,
    output: Callable[[Any], Tensor],
    metric: Any = None,
    seed: int = 0,
    description: str | None = None,
) -> dict[str, float]:
    """`1/2 E_sample[(g . (y' - y))^2]` by path, in the units of `losses.sampled`.

    With `y` the result of the layer in `model`, `y'` that of its replacement in the same call, and `g` the gradient of
    a probe. A layer whose results are no tensors by sample, such as packed sequences, has none.
    """
    reading = Pass(model, kind=kind, output=output, metric=metric, seed=seed)
    totals: dict[str, Tensor] = {}
    pending: dict[str, Tensor] = {}

    def count_in(path: str, parts: Tensor) -> None:
        totals[path] = totals.get(path, torch.zeros((), dtype=torch.float64)) + parts.square().sum().cpu()

    def settle() -> None:
        for path, parts in pending.items():
            count_in(path, parts)
        pending.clear()

    def add(path: str, change: Tensor, gradient: Tensor) -> None:
        assert reading.batch is not None
        samples = reading.batch.samples
        products = (gradient.double() * change.double()).flatten(1).sum(1) / reading.scale
        if len(products) % samples:
            # Rows that belong to no sample in particular: each counts by itself.
            count_in(path, products)
            return
        parts = products.reshape(samples, -1).sum(1)
        pending[path] = pending[path] + parts if path in pending else parts

    def hook(path: str, replacement: nn.Module) -> Callable[..., None]:
        def called(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            y = _by_sample(module, result)
            if y is None or not torch.is_grad_enabled() or not y.requires_grad:
                return
            with torch.no_grad():
                other = _by_sample(module, replacement(*args, **kwargs))
                assert other is not None
                change = other - y
            y.register_hook(lambda gradient: add(path, change, gradient))

        return called

    handles = [
        model.get_submodule(path).register_forward_hook(hook(path, replacement), with_kwargs=True)
        for path, replacement in replacements.items()
    ]
    try:
        reading.run(batches, gradients=True, count=count, description=description, on_probe=settle)
    finally:
        for handle in handles:
            handle.remove()
    n = max(sum(processes.gathered(reading.samples)), 1)
    return {path: 0.5 * total.item() / n for path, total in processes.added(totals).items()}


def _by_sample(layer: nn.Module, result: Any) -> Tensor | None:
    """The tensor of a layer's result, samples first."""
    y = result[0] if type(result) is tuple else result
    if not isinstance(y, Tensor) or y.dim() < 2:
        return None
    if isinstance(layer, nn.RNNBase) and not layer.batch_first and y.dim() == 3:
        return y.transpose(0, 1)
    return y
