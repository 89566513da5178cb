"""Several convolutions in a row that stand for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .standing import deferred

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class ConvolutionPair(nn.Sequential):
    """Two or three convolutions that stand for one, with the same padding, strides and size of the result."""

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The result for `x [samples, channels, *sizes]`; `output_size` as in transposed convolutions."""
        if output_size is None:
            return super().forward(x)
        sizes = list(output_size)[2 - x.dim() :] if len(output_size) == x.dim() else list(output_size)
        for part in self:
            if isinstance(part, _TRANSPOSED):
                # Only axes that a part goes over reach their last size in it.
                own = [k > 1 or s > 1 or p > 0 for k, s, p in _along_axes(part)]
                x = part(
                    x, [a if o else b for a, b, o in zip(sizes, x.shape[-len(sizes) :], own, strict=True)]
                )
            else:
                x = part(x)
        return x

    def plain(self) -> nn.Sequential:
        """The same convolutions where torch is all there is; they take no `output_size`."""
        return nn.Sequential(*self).train(self.training)

    @property
    def weight(self) -> Tensor:
        """The kernel that these stand for; see `DeferredWeight`."""
        parts: list[Any] = list(self)
        made, given = parts[-1].out_channels, parts[0].in_channels
        transposed = any(isinstance(part, _TRANSPOSED) for part in parts)
        groups = parts[0].groups
        kernel = [max(sizes) for sizes in zip(*(part.kernel_size for part in parts), strict=True)]
        shape = (given, made // groups, *kernel) if transposed else (made, given // groups, *kernel)

        def compute() -> Tensor:
            whole: Any = None
            for part in parts:
                w = part.weight.unflatten(0, (groups, -1))
                w = w if isinstance(part, _TRANSPOSED) else w.transpose(1, 2)
                # No axis has several taps in two parts, so that products of kernels are outer ones.
                whole = w if whole is None else torch.einsum("gir...,gro...->gio...", whole, w)
            merged: Tensor = (whole if transposed else whole.transpose(1, 2)).flatten(0, 1)
            return merged

        return deferred(tuple(shape), parts[0].weight, compute, self)

    @property
    def bias(self) -> Any:
        """Of the layer that these stand for."""
        return self[-1].bias


def _along_axes(part: Any) -> list[tuple[int, int, int]]:
    return list(zip(part.kernel_size, part.stride, part.padding, strict=True))


def convolution(
    layer: nn.Module, weight: Tensor, axes: Sequence[int], bias: Tensor | None = None
) -> nn.Module:
    """A convolution over some axes of `layer`, as it goes over them.

    Args:
        layer: a convolution or transposed convolution.
        weight: `[groups, out, in, *taps of axes]`.
        axes: ascending; along all others there is one tap.
        bias: `[groups x out]`.
    """
    assert isinstance(layer, nn.modules.conv._ConvNd)
    groups, made, given = weight.shape[:3]
    kernel = [layer.kernel_size[axis] if axis in axes else 1 for axis in range(len(layer.kernel_size))]
    shared: dict[str, Any] = {"groups": groups, "bias": bias is not None}

    def over(values: Sequence[int], default: int) -> tuple[int, ...]:
        return tuple(v if axis in axes else default for axis, v in enumerate(values))

    moved = any(layer.kernel_size[axis] > 1 or layer.stride[axis] > 1 for axis in axes)
    moved = moved or any(any(p) if isinstance(p, tuple) else p for p in (layer.padding, layer.output_padding))
    transposed = isinstance(layer, _TRANSPOSED) and bool(axes) and moved
    kinds = _TRANSPOSED if transposed else _CONVOLUTIONS
    kind: Any = kinds[len(kernel) - 1]
    if axes and (transposed or not isinstance(layer, _TRANSPOSED)):
        padding = layer.padding if isinstance(layer.padding, str) else over(layer.padding, 0)
        shared |= {"stride": over(layer.stride, 1), "dilation": over(layer.dilation, 1), "padding": padding}
        shared["padding_mode"] = layer.padding_mode
    if transposed:
        shared["output_padding"] = over(layer.output_padding, 0)
    made_by: Any = kind(groups * given, groups * made, tuple(kernel), **shared, dtype=torch.float64)
    weight = weight.transpose(1, 2) if transposed else weight
    with torch.no_grad():
        made_by.weight.copy_(weight.reshape(made_by.weight.shape))
        if bias is not None:
            made_by.bias.copy_(bias)
    found: nn.Module = made_by
    return found
