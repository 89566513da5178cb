"""What each tap of a convolution reads or writes along one axis, without a convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def windows(x: Tensor, axis: int, taps: int, step: int, spacing: int) -> Tensor:
    """What each of the taps reads: `axis` counts the windows, and a last dimension the taps.

    >>> windows(torch.arange(5), 0, 2, 1, 2)
    tensor([[0, 2],
            [1, 3],
            [2, 4]])
    """
    return x.unfold(axis, spacing * (taps - 1) + 1, step)[..., ::spacing]


def scattered(x: Tensor, axis: int, taps: int, step: int, spacing: int) -> Tensor:
    """Where each of the taps writes, the transpose of `windows`: a last dimension counts the taps.

    >>> scattered(torch.arange(1, 4), 0, 2, 1, 2).t()
    tensor([[1, 2, 3, 0, 0],
            [0, 0, 1, 2, 3]])
    """
    span = step * (x.shape[axis] - 1) + 1
    shape = list(x.shape)
    shape[axis] = span + spacing * (taps - 1)
    made = x.new_zeros(*shape, taps)
    for tap in range(taps):
        where: list[slice | int] = [slice(None)] * x.dim()
        where[axis] = slice(spacing * tap, spacing * tap + span, step)
        made[(*where, tap)] = x
    return made


def kept(count: int, taps: int, step: int, spacing: int) -> Tensor | None:
    """Positions that some of `count` windows reads, up to the last of them; None where that is all.

    >>> kept(3, 1, 2, 1), kept(3, 3, 2, 1)
    (tensor([0, 2, 4]), None)
    """
    starts = step * torch.arange(count)
    found = (starts[:, None] + spacing * torch.arange(taps)).unique()
    return None if len(found) == int(found[-1]) + 1 else found


def placed(x: Tensor, axis: int, before: int, size: int, mode: str = "constant") -> Tensor:
    """`x` with `before` positions in front and `size` in all; negative ones are cut off.

    >>> placed(torch.arange(1, 4)[None], 1, 1, 5), placed(torch.arange(1, 4)[None], 1, -1, 2)
    (tensor([[0, 1, 2, 3, 0]]), tensor([[2, 3]]))
    """
    after = size - before - x.shape[axis]
    if mode == "constant":
        return functional.pad(x, [0, 0] * (x.dim() - 1 - axis) + [before, after])
    # Padding of other modes wants as many dimensions as it pads, and two in front.
    shape = x.shape
    flat = x.reshape(1, -1, *shape[axis:]).flatten(3) if axis + 1 < x.dim() else x.reshape(1, -1, shape[axis])
    pads = [before, after] if flat.dim() == 3 else [0, 0, before, after]
    flat = functional.pad(flat, pads, mode)
    return flat.reshape(*shape[:axis], size, *shape[axis + 1 :])


def per_axis(pads: Sequence[int]) -> list[tuple[int, int]]:
    """`(before, after)` of each axis, from the order in which `functional.pad` takes them.

    >>> per_axis([1, 2, 3, 4])
    [(3, 4), (1, 2)]
    """
    return [(pads[i], pads[i + 1]) for i in range(len(pads) - 2, -1, -2)]
