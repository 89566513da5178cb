"""Batch sizes that only torch's stand-ins for kernels ruled out, tried on the model itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ..capture import Capture, fill
from ..tracing.arguments import rebuild
from ..tracing.sizes import evaluate
from .calling import returned_weights
from .weights import weight
from .whole import run_preserved, same_results

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_TRIED = (1, 2, 3, 16, 17, 33)


def with_free_batch(capture: Capture, model: nn.Module, example: Arguments) -> Capture:
    """Drop the guards on the batch size that do not bear on the result.

    While tracing, torch's stand-in for a kernel may look at the batch size, to choose a memory layout for
    instance: a graph traced at batch 2 then claims to hold below 16 only. The graph calls the kernel itself, which
    looks again. Each such guard is dropped if the graph computes what the model does at sizes beyond it; a guard
    that a line of the model asked for always stays.

    Args:
        capture: the capture, not rewritten yet.
        model: the captured model.
        example: positional and keyword arguments that it was captured with.
    """
    dropped = []
    for guard in capture.checks.kernel_guards:
        (symbol,) = (name for name in capture.checks.symbols if name in guard)
        beyond = [size for size in _TRIED if not evaluate(guard, {symbol: size})]
        path, dimension = capture.checks.symbols[symbol]
        batch = path.read(capture.bind(*example)).shape[dimension]
        if dimension == 0 and beyond and all(_holds(capture, model, example, batch, size) for size in beyond):
            dropped.append(guard)
    return replace(capture, checks=capture.checks.without(dropped))


def other_sizes_run(capture: Capture, model: nn.Module, example: Arguments) -> bool:
    """Whether the model runs where a size that its graph was captured for is another one.

    Each such size of an argument is tried one larger, alone and together with all that are equal to it. A size that a
    weight asks for makes the model raise.

    Args:
        capture, model, example: as of `with_free_batch`.
    """
    arguments = capture.bind(*example)
    fixed = [
        (id(path.read(arguments)), dim, size)
        for path, check in capture.checks.tensors.items()
        for dim, size in enumerate(check.sizes)
        if isinstance(size, int) and size > 0
    ]
    groups = [[(tensor, dim)] for tensor, dim, _ in fixed]
    groups += [
        [(t, dim) for t, dim, other in fixed if other == size] for size in {size for *_, size in fixed}
    ]
    for group in groups:
        try:
            run_preserved(model, rebuild(example, partial(_enlarged, group)))
        except Exception:
            continue
        return True
    return False


def _enlarged(dimensions: list[tuple[int, int]], value: Any) -> Any:
    for dim in [dim for tensor, dim in dimensions if tensor == id(value)]:
        if isinstance(value, torch.Tensor):
            size = value.shape[dim]
            rows = torch.arange(size + 1, device=value.device) % size
            value = value.detach().index_select(dim, rows)
    return value


def _holds(capture: Capture, model: nn.Module, example: Arguments, batch: int, size: int) -> bool:
    call = rebuild(example, lambda value: _resized(value, batch, size))
    try:
        expected = run_preserved(model, call)
        came = run_preserved(_Replayed(capture, model), call)
    except Exception:
        # A size that the model itself refuses needs no graph.
        return False
    return same_results(expected, came)


def _resized(value: Any, batch: int, size: int) -> Any:
    if not isinstance(value, torch.Tensor) or not value.dim() or value.shape[0] != batch:
        return value
    return value.detach()[torch.arange(size, device=value.device) % batch]


class _Replayed(nn.Module):
    """A captured graph in its model's place."""

    def __init__(self, capture: Capture, model: nn.Module) -> None:
        super().__init__()
        self.capture, self.model = capture, model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self.capture.bind(args, kwargs)
        outputs = self.capture.module(*self.capture.inputs(self.model, arguments))
        weights = {name: weight(self.model, name) for name in returned_weights(self.capture.output)}
        return fill(self.capture.output, outputs, arguments, weights)
