"""Which calls of a library an operator answers: plain float rows along the last dimension, outside of transforms."""

from __future__ import annotations

import torch
from torch import Tensor

from stonefx.ops.curvature import is_eager

is_compiling = torch.compiler.is_compiling
_FLOATS = frozenset((torch.float32, torch.float64))
_TYPES: set[type] = {Tensor, torch.nn.Parameter}


def accept(*kinds: type) -> None:
    """Take instances of these classes for plain tensors, too: those that change no function of torch."""
    _TYPES.update(kinds)


def fits(dim: int, *vectors: Tensor) -> bool:
    """Whether these are rows of one width, dtype and device along `dim`, which is the last dimension."""
    x = vectors[0]
    if not is_compiling() and not _is_plain(vectors):
        return False
    if x.dtype not in _FLOATS or x.dim() == 0:
        return False
    rank = x.dim()
    if dim != -1 and dim != rank - 1:
        return False
    for y in vectors[1:]:
        if (
            y.dtype != x.dtype
            or y.dim() == 0
            or y.shape[-1] != x.shape[-1]
            or y.device != x.device
            or (dim != -1 and y.dim() != rank)
        ):
            return False
    return True


def _is_plain(vectors: tuple[Tensor, ...]) -> bool:
    for x in vectors:
        if type(x) not in _TYPES:
            return False
    return is_eager()


def is_number(r: object, x: Tensor) -> bool:
    """Whether `r` is a number, or one for each row of `x`, that an operator takes."""
    if not isinstance(r, Tensor) or r.dtype not in _FLOATS:
        return False
    if not is_compiling() and type(r) not in _TYPES:
        return False
    return r.dim() == 0 or (r.dtype == x.dtype and r.shape[-1] == 1 and r.dim() <= x.dim())


def multiplies(x: Tensor) -> bool:
    """Whether matrix products run in the dtype of `x`, which autocast may change."""
    return not torch.is_autocast_enabled(x.device.type)


def is_matrix(m: object, x: Tensor) -> bool:
    """Whether `m` is one matrix for rows `x`."""
    if not isinstance(m, Tensor) or (not is_compiling() and type(m) not in _TYPES):
        return False
    return (
        m.dim() == 2
        and m.dtype == x.dtype
        and m.shape[1] == x.shape[-1]
        and m.device == x.device
        and multiplies(x)
    )
