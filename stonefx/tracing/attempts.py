"""Ways to record a call of a model, the most general first."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .arguments import walk_arguments
from .copies import is_plain, leading_size


def signature_of(model: nn.Module) -> inspect.Signature:
    """The signature of a model's forward."""
    try:
        return inspect.signature(model.forward)
    except ValueError:
        # A builtin function has none that Python could read.
        return inspect.signature(lambda *args, **kwargs: None)


def attempts(call: Any, batch: int | None) -> Iterator[tuple[bool, bool, int | None]]:
    """Ways to record a call, the most general first: on exact copies, with gradients, the size that may vary.

    A graph recorded with gradients serves calls without them, too, but some forwards run only in the caller's mode.
    One recorded on exact copies may hold for their layout alone.
    """
    for exact in (False,) if is_plain(call) else (False, True):
        for gradients in dict.fromkeys((True, torch.is_grad_enabled())):
            for size in dict.fromkeys((batch, None)):
                yield exact, gradients, size


def batch_size(arguments: Mapping[str, Any]) -> int | None:
    """The most common leading size of the tensor arguments, the larger of two equally common ones."""
    sizes = (leading_size(value) for _, value in walk_arguments(arguments))
    leading = Counter(size for size in sizes if size)
    return max(leading, key=lambda size: (leading[size], size), default=None)
