"""What a caller of `compress` may ask for, checked once."""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from . import probes
from .metric import METRICS

FORMS = ("pair", "pifa", "width", "heads", "int8")
DEFAULT_FORMS = ("pair", "pifa", "width", "int8")
"""All but fewer dimensions of heads, which are looked for where they are asked for."""
COSTS = ("both", "bytes", "seconds")
LAST_SEED = 2**32 - 1
"""Seeds of batches and stages are made from it, and have 64 bits."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """See `compress`."""

    layers: str | Sequence[str] | None = None
    min_accuracy: float = 0.95
    metric: str | Callable[..., Any] = "cosine"
    max_ratio: float | None = None
    max_seconds: float | None = None
    forms: Sequence[str] = DEFAULT_FORMS
    energy: float | None = None
    refine: bool = False
    seed: int = 0
    cost: str = "both"
    confidence: float = 0.95
    evaluations: int = 12
    probe: str = "auto"
    probes: int | None = None
    output: Callable[[Any], Tensor] | None = None
    batch_size: int = 16
    memory: int | None = None
    most_rank: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("min_accuracy", "max_ratio", "energy"):
            value = getattr(self, name)
            optional = name != "min_accuracy" and value is None
            if not optional and not (_number(value) and 0 < value <= 1):
                raise ValueError(f"{name}: expected a number in (0, 1], got {value!r}")
        if not (_number(self.confidence) and 0 < self.confidence < 1):
            raise ValueError(f"confidence: expected a number in (0, 1), got {self.confidence!r}")
        if self.max_seconds is not None and not (
            _number(self.max_seconds) and 0 < self.max_seconds < math.inf
        ):
            raise ValueError(
                f"max_seconds: expected a positive number of seconds a call, got {self.max_seconds!r}"
            )
        if self.max_ratio is not None and self.max_seconds is not None:
            raise ValueError("max_ratio and max_seconds: expected one of the two, got both")
        _check_names(self.layers)
        if isinstance(self.forms, str) or not isinstance(self.forms, Iterable):
            raise TypeError(f"forms: expected a tuple of {', '.join(map(repr, FORMS))}, got {self.forms!r}")
        for form in self.forms:
            _one_of("forms", form, FORMS)
        _one_of("cost", self.cost, COSTS)
        _one_of("probe", self.probe, probes.KINDS)
        if isinstance(self.metric, str):
            _one_of("metric", self.metric, tuple(METRICS), " or a callable metric(model)")
        elif not callable(self.metric):
            raise TypeError(
                f"metric: expected a name or a callable metric(model), got {type(self.metric).__name__}"
            )
        else:
            _check_metric(self.metric)
        for name in ("refine", "progress"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        if self.output is not None and not callable(self.output):
            raise TypeError(
                f"output: expected a function of the model's result, got {type(self.output).__name__}"
            )
        for name, least in (("seed", 0), ("batch_size", 1), ("probes", 1)):
            value = getattr(self, name)
            if name == "probes" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
        if self.seed > LAST_SEED:
            raise ValueError(f"seed: expected an integer of at most {LAST_SEED}, got {self.seed}")
        if self.max_seconds is not None and self.cost == "bytes":
            raise ValueError(
                "max_seconds and cost='bytes': expected one of the two, since with bytes nothing is timed"
            )
        for name in ("memory", "most_rank"):
            value = getattr(self, name)
            if value is not None and not (_number(value) and 1 <= value < math.inf and value == int(value)):
                what = "a number of bytes" if name == "memory" else "a rank of at least 1"
                raise ValueError(f"{name}: expected {what}, got {value!r}")
        if not (isinstance(self.evaluations, int) and self.evaluations >= 2):
            raise ValueError(f"evaluations: expected an integer of at least 2, got {self.evaluations!r}")


def _check_names(layers: Any) -> None:
    """Names or patterns of layers, or None."""
    if layers is None or isinstance(layers, str):
        return
    if not isinstance(layers, Iterable) or isinstance(layers, (nn.Module, Tensor)):
        raise TypeError(f"layers: expected a path or pattern, or several, got {type(layers).__name__}")
    names = list(layers)
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise TypeError(
            f"layers: expected paths such as 'encoder.0.linear', or patterns, got a {type(wrong).__name__}; "
            "model.named_modules() tells the paths"
        )
    if not names:
        raise ValueError(
            "layers: expected at least one path or pattern, got none; None stands for all layers"
        )


def _check_metric(metric: Callable[..., Any]) -> None:
    """It can be called with a model, or with a model and batches."""
    try:
        signature = inspect.signature(metric)
    except (TypeError, ValueError):
        return
    for arguments in ((None,), (None, None)):
        try:
            signature.bind(*arguments)
            return
        except TypeError:
            continue
    raise TypeError(
        f"metric: expected a function metric(model) or metric(model, batches), got one that takes {signature}"
    )


def check_path(name: str, value: Any) -> None:
    """A path, or None.

    Raises:
        TypeError: it is something else.
    """
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name}: expected a path, got {type(value).__name__}")


def _one_of(name: str, value: Any, choices: Sequence[str], more: str = "") -> None:
    if value in choices:
        return
    near = difflib.get_close_matches(value, choices, 1) if isinstance(value, str) else []
    raise ValueError(
        f"{name}: expected one of {', '.join(map(repr, choices))}{more}, got {value!r}"
        + (f"; did you mean {near[0]!r}?" if near else "")
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
