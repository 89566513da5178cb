"""A convolution of one tap as pivot channels and the combinations of them that are its other channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .standing import deferred, traced


class PifaConvolution(nn.Module):
    """Two convolutions in a row, all channels of both in the order of those that they stand for.

    Args:
        pivot: to the pivot channels, with stride and padding.
        interpolation: from these to the others; None where there are none.
        index: `[channels]`, which of the pivot channels, then of the others, each is.
        bias: `[channels]`, or None.

    >>> pivot, other = nn.Conv1d(3, 1, 1, bias=False), nn.Conv1d(1, 1, 1, bias=False)
    >>> PifaConvolution(pivot, other, torch.tensor([1, 0]), None)(torch.ones(2, 3, 5)).shape
    torch.Size([2, 2, 5])
    """

    index: Tensor
    bias: Tensor | None

    def __init__(
        self, pivot: nn.Module, interpolation: nn.Module | None, index: Tensor, bias: Tensor | None
    ) -> None:
        super().__init__()
        self.pivot, self.interpolation = pivot, interpolation
        self.axes = len(pivot.kernel_size)  # type: ignore[arg-type]
        self.register_buffer("index", index.int())
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias))

    def forward(self, x: Tensor) -> Tensor:
        """The result for `x [samples, channels, *sizes]`, or one sample."""
        y, channels = self.pivot(x), -self.axes - 1
        if self.interpolation is not None:
            y = torch.cat([y, self.interpolation(y)], channels)
        y = y.index_select(channels, self.index)
        return y if self.bias is None else y + self.bias.reshape(-1, *[1] * self.axes)

    def plain(self) -> nn.Module:
        """The same map in torch alone."""
        return traced(self)

    @property
    def weight(self) -> Tensor:
        """The kernel that these stand for; see `DeferredWeight`."""
        first: Tensor = self.pivot.weight  # type: ignore[assignment]
        shape: Sequence[int] = (len(self.index), *first.shape[1:])

        def compute() -> Tensor:
            whole = first.flatten(1)
            if self.interpolation is not None:
                second: Tensor = self.interpolation.weight  # type: ignore[assignment]
                whole = torch.cat([whole, second.flatten(1) @ whole])
            return whole[self.index.long()].reshape(shape)

        return deferred(tuple(shape), first, compute, self)
