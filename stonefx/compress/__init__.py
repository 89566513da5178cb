"""Door 3: `stonefx.compress`, the smallest and fastest model that keeps the accuracy asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from . import data as user_data
from .search import Search
from .settings import FORMS, Settings
from .stats import CompressionStats, LayerRow, Point

__all__ = ["CompressionStats", "LayerRow", "Point", "compress"]


def compress(
    model: nn.Module,
    data: Any = None,
    *,
    layers: str | Sequence[str] | None = None,
    min_accuracy: float = 0.95,
    metric: str | Callable[..., Any] = "cosine",
    max_ratio: float | None = None,
    max_seconds: float | None = None,
    forms: Sequence[str] = FORMS,
    energy: float | None = None,
    refine: bool = False,
    seed: int = 0,
    cost: str = "both",
    confidence: float = 0.95,
    evaluations: int = 12,
    selection_data: Any = None,
    confirmation_data: Any = None,
    probe: str = "auto",
    probes: int | None = None,
    output: Callable[[Any], Tensor] | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> tuple[nn.Module, CompressionStats]:
    """Return the smallest model that keeps the accuracy asked for, and what was done to get it."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    settings = Settings(
        layers=layers,
        min_accuracy=min_accuracy,
        metric=metric,
        max_ratio=max_ratio,
        max_seconds=max_seconds,
        forms=tuple(forms) if not isinstance(forms, str) else forms,
        energy=energy,
        refine=refine,
        seed=seed,
        cost=cost,
        confidence=confidence,
        evaluations=evaluations,
        probe=probe,
        probes=probes,
        output=output,
        batch_size=batch_size,
        progress=progress,
    )
    with _in_eval(model):
        splits = _splits(model, data, selection_data, confirmation_data, settings)
        return Search(model, copy.deepcopy(model), settings, splits).run()


@contextmanager
def _in_eval(model: nn.Module) -> Iterator[None]:
    """The user's model in eval, where it neither drops out nor counts statistics, and back as it was."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def _splits(
    model: nn.Module, data: Any, selection: Any, confirmation: Any, settings: Settings
) -> user_data.Splits | None:
    if data is None:
        if selection is not None or confirmation is not None:
            raise TypeError(
                "data: expected calibration data beside selection_data= and confirmation_data=, got None"
            )
        return None
    given = {"select": selection, "confirm": confirmation}
    names = {"select": "selection_data", "confirm": "confirmation_data"}
    parts = {
        name: user_data.read(value, model, batch_size=settings.batch_size, what=names[name])
        for name, value in given.items()
        if value is not None
    }
    missing = [name for name in given if name not in parts]
    shares = (user_data.SHARES[0], *(user_data.SHARES[1] for _ in missing))
    shares = tuple(s / sum(shares) for s in shares)
    batches = user_data.read(data, model, batch_size=settings.batch_size)
    calibrate, *rest = user_data.split(batches, settings.seed, shares) if missing else [batches]
    return user_data.Splits(calibrate=calibrate, **parts, **dict(zip(missing, rest, strict=True)))
