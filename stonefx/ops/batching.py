"""Batching rules: bring the mapped dimension to the front; the operators' own broadcasting does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def align(tensors: Sequence[Tensor], in_dims: Sequence[int | None]) -> list[Tensor]:
    """Move each mapped dimension to the front and pad behind it, so that the tensors broadcast together.

    An unmapped tensor is left alone: broadcasting aligns it at the last dimension.
    """
    logical = [x.dim() - (d is not None) for x, d in zip(tensors, in_dims, strict=True)]
    depth = max(logical)
    return [x if d is None else pad(x.movedim(d, 0), depth) for x, d in zip(tensors, in_dims, strict=True)]


def pad(x: Tensor, depth: int) -> Tensor:
    """`[mapped, *shape]` to `[mapped, 1, ..., 1, *shape]` with `depth` dimensions behind the first."""
    return x.reshape(x.shape[0], *[1] * (depth + 1 - x.dim()), *x.shape[1:])


def spread(x: Tensor, dim: int | None, size: int) -> Tensor:
    """`[size, *shape]`, whether `x` was mapped or not."""
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


def matrix_product(x: Tensor, weight: Tensor) -> Tensor:
    """`[mapped, *batch, in]` with `[mapped, out, in]` to `[mapped, *batch, out]`."""
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    return torch.bmm(flat, weight.transpose(1, 2)).reshape(*x.shape[:-1], weight.shape[1])


def sum_to(gradient: Tensor, like: Tensor) -> Tensor:
    """Sum a gradient over what broadcasting repeated, in the dtype and on the device of the operand."""
    summed = gradient if gradient.shape == like.shape else gradient.sum_to_size(like.shape)
    return summed.to(device=like.device, dtype=like.dtype)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that the references compute in: float32 for the half types, else the operand's own."""
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype


def each(info: Any, in_dims: Sequence[int | None], *operands: Tensor) -> list[tuple[Tensor, ...]]:
    """The operands of every mapped entry, one tuple for each."""
    spreads = [spread(t, d, info.batch_size) for t, d in zip(operands, in_dims, strict=False)]
    return [tuple(t[i] for t in spreads) for i in range(info.batch_size)]
