"""Copies of a call's arguments: on their own, and all that a forward may ask of them as it was."""

from __future__ import annotations

from typing import Any

import torch

from .arguments import Path, rebuild, walk


def copied(call: Any, *, exact: bool = True) -> Any:
    """A call with copies of its tensors, of the same type and place in the history of gradients.

    Args:
        call: a nest of containers.
        exact: keep strides that leave gaps or overlap, and pass one copy where the call passes one tensor twice;
            else the copies are dense, and each is on its own.
    """
    seen: dict[int, torch.Tensor] = {}

    def copy(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if exact and id(value) in seen:
            return seen[id(value)]
        with torch.inference_mode(False), torch.enable_grad():
            detached = value.detach()
            made = _with_history_of(value, _same_layout(detached) if exact else detached.clone())
        seen[id(value)] = made
        return made

    return rebuild(call, copy)


def is_plain(call: Any) -> bool:
    """Whether the exact copies of a call are no others than the inexact ones."""
    tensors = [value for _, value in walk(call, Path("call")) if isinstance(value, torch.Tensor)]
    dense = all(
        not has_strides(value) or torch.empty_like(value, device="meta").stride() == value.stride()
        for value in tensors
    )
    return dense and len({id(value) for value in tensors}) == len(tensors)


def resized(call: Any, batch: int, size: int) -> Any:
    """A call whose tensors of leading size `batch` have their rows in turn, `size` of them, in the same layout."""

    def resize(value: Any) -> Any:
        if not has_batch(value, batch):
            return value
        with torch.inference_mode(False), torch.enable_grad():
            rows = value.detach()[torch.arange(size, device=value.device) % batch]
            made = torch.empty_strided(
                rows.shape, _strides(value, size), dtype=rows.dtype, device=rows.device
            )
            return _with_history_of(value, made.copy_(rows))

    return rebuild(call, resize)


def has_batch(value: Any, batch: int | None) -> bool:
    """Whether a value is a tensor of this leading size."""
    return leading_size(value) == batch is not None


def leading_size(value: Any) -> int | None:
    """The first size of a tensor; None where it has no sizes."""
    if not isinstance(value, torch.Tensor) or value.dim() == 0 or _is_ragged(value):
        return None
    return value.shape[0]


def has_strides(value: torch.Tensor) -> bool:
    """Whether a tensor lies in memory by strides."""
    return value.layout is torch.strided and not value.is_nested


def _is_ragged(value: torch.Tensor) -> bool:
    """Whether a tensor is a nested one of the first kind, which has no sizes that could be asked for."""
    return value.is_nested and value.layout is torch.strided


def _same_layout(value: torch.Tensor) -> torch.Tensor:
    """A copy with the strides that the tensor has, whether they leave gaps or overlap."""
    copy = value.clone()
    if not has_strides(value) or copy.stride() == value.stride():
        return copy
    last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    flat = value.as_strided((last + 1,), (1,), value.storage_offset()).clone()
    # Not a view, as the tensor itself may be none.
    return copy.new_empty(0).set_(flat.untyped_storage(), 0, value.shape, value.stride())


def _strides(value: torch.Tensor, size: int) -> list[int]:
    """Strides for another leading size: those of the tensor, if its rows lie one after another, else as dense."""
    strides = list(value.stride())
    within = [(count - 1) * stride for count, stride in zip(value.shape[1:], strides[1:], strict=True)]
    if strides[0] > sum(within):
        return strides
    shape = [size, *value.shape[1:]]
    step = 1
    for dim in sorted(range(value.dim()), key=lambda dim: (value.stride(dim), -dim)):
        strides[dim] = step
        step *= max(shape[dim], 1)
    return strides


def _with_history_of(original: torch.Tensor, copy: torch.Tensor) -> torch.Tensor:
    """Let a copy require a gradient as `original` does; only where that is no leaf may forward write to it."""
    if isinstance(original, torch.nn.Parameter):
        return torch.nn.Parameter(copy, original.requires_grad)
    copy = copy.requires_grad_(original.requires_grad)
    if original.is_leaf:
        return copy
    computed = copy.clone()
    if has_strides(copy) and computed.stride() != copy.stride():
        last = sum((size - 1) * stride for size, stride in zip(copy.shape, copy.stride(), strict=True))
        computed = copy.as_strided((last + 1,), (1,), 0).clone().as_strided(copy.shape, copy.stride())
    return computed
