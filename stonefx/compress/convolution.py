"""Convolutions and transposed convolutions of one to three dimensions as matrices, cut in every sensible place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..nn import PifaLinear
from .convolution_pair import ConvolutionPair, convolution
from .convolution_pifa import PifaConvolution
from .linear import bias_of
from .standing import standing_in
from .taps import kept, per_axis, placed, scattered, windows
from .views import Form, Joint, View, computes_as, may_differ

PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

LARGEST = 6144
"""Rows or columns of a view. A covariance of more takes minutes; then only the smallest view is left."""


@dataclass(frozen=True)
class ConvolutionView(View):
    """A convolution as two: the first over the axes in `first`, to few channels, the second over all others.

    The matrix is indexed by (output channel, taps of the second) and (input channel, taps of the first). With all axes
    in the first convolution the second one mixes channels only, and the other way round.

    For a convolution the rows of inputs are windows, and gradients are spread to where each tap read. For a
    transposed convolution the inputs are spread to where each tap writes, and gradients are windows.

    Attributes:
        first: axes of the kernel, ascending.
    """

    first: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """See `View`."""
        wide = [axis for axis in range(self.axes) if self.kernel[axis] > 1]
        inside = [axis for axis in wide if axis in self.first]
        if not wide:
            return "linear"
        return "channel" if inside == wide else "spatial" if inside else "input"

    @property
    def axes(self) -> int:
        """How many dimensions the kernel has."""
        return len(self.kernel)

    @property
    def second(self) -> tuple[int, ...]:
        """Axes of the second convolution."""
        return tuple(axis for axis in range(self.axes) if axis not in self.first)

    @property
    def transposed(self) -> bool:
        """Whether the layer is a transposed convolution."""
        return isinstance(self.layer, TRANSPOSED)

    @property
    def _convolution(self) -> Any:
        """The layer, whose attributes depend on its kind."""
        return self.layer

    @property
    def kernel(self) -> tuple[int, ...]:
        """Taps along each axis."""
        kernel: tuple[int, ...] = self._convolution.kernel_size
        return kernel

    def matrix(self) -> Tensor:
        """See `View`."""
        weight: Tensor = self._convolution.weight.detach().double()
        weight = weight.reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], *self.kernel)
        given, made = (1, 2) if self.transposed else (2, 1)
        order = (0, made, *(3 + a for a in self.second), given, *(3 + a for a in self.first))
        return weight.permute(order).reshape(self.groups, self.rows, self.columns)

    def inputs(self, arguments: tuple[Any, ...]) -> Tensor:
        """See `View`."""
        x = self._batched(arguments[0].detach())
        if self.transposed:
            sizes = self._sizes(x, arguments[1] if len(arguments) > 1 else None)
            for axis in self.first:
                before = -self._convolution.padding[axis]
                x = placed(scattered(x, 2 + axis, *self._taps(axis)), 2 + axis, before, sizes[axis])
            return self._rows(x)
        mode = self._convolution.padding_mode
        pads = per_axis(self._convolution._reversed_padding_repeated_twice)
        for axis, (before, after) in enumerate(pads):
            if before or after:
                size = before + x.shape[2 + axis] + after
                x = placed(x, 2 + axis, before, size, "constant" if mode == "zeros" else str(mode))
        for axis in self.second:
            taps, step, spacing = self._taps(axis)
            count = (x.shape[2 + axis] - spacing * (taps - 1) - 1) // step + 1
            x = _narrowed(x, 2 + axis, count, taps, step, spacing)
        for axis in self.first:
            x = windows(x, 2 + axis, *self._taps(axis))
        return self._rows(x)

    def outputs(self, gradient: Tensor) -> Tensor:
        """See `View`."""
        g = self._batched(gradient)
        for axis in self.second:
            taps, step, spacing = self._taps(axis)
            count = g.shape[2 + axis]
            if self.transposed:
                padding, extra = self._convolution.padding[axis], self._convolution.output_padding[axis]
                last = count + 2 * padding - spacing * (taps - 1) - 1
                # As many windows as there were inputs. What an output size adds is shorter than a step.
                count = (last - (extra if extra >= step else 0)) // step + 1
                g = placed(g, 2 + axis, padding, step * (count - 1) + spacing * (taps - 1) + 1)
                g = windows(g, 2 + axis, taps, step, spacing)
            else:
                g = scattered(g, 2 + axis, taps, step, spacing)
                g = _narrowed(g, 2 + axis, count, taps, step, spacing)
        return self._rows(g)

    def forms(self) -> Mapping[str, Form]:
        """See `View`."""
        one_tap = self.name == "linear" and self.groups == 1 and not self.transposed
        return {"pair": _Pair(self), "pifa": _Pifa(self)} if one_tap else {"pair": _Pair(self)}

    def joints(self, views: Sequence[View]) -> Sequence[Joint]:
        """See `View`."""
        if self.name != "channel":
            return ()
        return [Tucker(self, v) for v in views if isinstance(v, ConvolutionView) and v.name == "input"]

    def alike(self) -> Any:
        """See `View`."""
        layer = self._convolution
        geometry = (self.kernel, layer.stride, layer.padding, layer.dilation, layer.padding_mode)
        return (*super().alike(), type(layer), self.first, *geometry, getattr(layer, "output_padding", None))

    def factors(self, a: Tensor, b: Tensor) -> tuple[nn.Module, nn.Module]:
        """The two convolutions, from `a [groups, rows, rank]` and `b [groups, rank, columns]`."""
        rank = b.shape[1]
        taps = [self.kernel[axis] for axis in self.second]
        second = a.reshape(self.groups, -1, *taps, rank).movedim(-1, 2)
        taps = [self.kernel[axis] for axis in self.first]
        first = b.reshape(self.groups, rank, -1, *taps)
        return (
            convolution(self.layer, first, self.first),
            convolution(self.layer, second, self.second, bias_of(self.layer)),
        )

    def _taps(self, axis: int) -> tuple[int, int, int]:
        """Of the kernel along an axis: how many taps, the stride and the dilation."""
        return self.kernel[axis], self._convolution.stride[axis], self._convolution.dilation[axis]

    def _batched(self, x: Tensor) -> Tensor:
        return x if x.dim() == self.axes + 2 else x[None]

    def _sizes(self, x: Tensor, output_size: Sequence[int] | None) -> list[int]:
        """The sizes of a transposed convolution's result."""
        if output_size is not None:
            return list(output_size)[-self.axes :]
        sizes = []
        for axis in range(self.axes):
            taps, step, spacing = self._taps(axis)
            padding, extra = self._convolution.padding[axis], self._convolution.output_padding[axis]
            size = step * (x.shape[2 + axis] - 1) + spacing * (taps - 1) + 1
            sizes.append(size - 2 * padding + extra)
        return sizes

    def _rows(self, x: Tensor) -> Tensor:
        """`[samples, channels, *positions, *taps]` as `[samples, positions, groups, channels x taps]`."""
        x = x.unflatten(1, (self.groups, -1))
        end = 3 + self.axes
        x = x.permute(0, *range(3, end), 1, 2, *range(end, x.dim()))
        return x.reshape(x.shape[0], math.prod(x.shape[1 : end - 2]), self.groups, -1)


def _narrowed(x: Tensor, axis: int, count: int, taps: int, step: int, spacing: int) -> Tensor:
    """Positions along an axis that a convolution reads."""
    found = kept(count, taps, step, spacing)
    if found is None:
        return x.narrow(axis, 0, step * (count - 1) + spacing * (taps - 1) + 1)
    return x.index_select(axis, found.to(x.device))


@dataclass(frozen=True)
class _Pair(Form):
    view: ConvolutionView

    def numbers(self, rank: int) -> int:
        return self.view.groups * rank * (self.view.rows + self.view.columns)

    def build(self, a: Tensor, b: Tensor) -> nn.Module:
        return standing_in(ConvolutionPair(*self.view.factors(a, b)), self.view.layer)


@dataclass(frozen=True)
class _Pifa(Form):
    view: ConvolutionView

    def numbers(self, rank: int) -> int:
        return rank * (self.view.rows + self.view.columns - rank)

    def index_bytes(self, rank: int) -> int:
        return 4 * self.view.rows

    def build(self, a: Tensor, b: Tensor) -> nn.Module:
        layer, every = self.view.layer, tuple(range(self.view.axes))
        parts = PifaLinear.from_factors(a[0], b[0])
        taps = [1] * self.view.axes
        pivot = convolution(layer, parts.pivot.detach().reshape(1, *parts.pivot.shape, *taps), every)
        rest = parts.interpolation.detach()
        others = convolution(layer, rest.reshape(1, *rest.shape, *taps), ()) if len(rest) else None
        return standing_in(PifaConvolution(pivot, others, parts.index, bias_of(layer)), layer)


@dataclass(frozen=True)
class Tucker(Joint):
    """Input channels mixed to few, a convolution between few channels, and these mixed to all output channels."""

    outer: ConvolutionView
    inner: ConvolutionView
    name = "tucker"

    def numbers(self, outer_rank: int, inner_rank: int) -> int:
        """See `Joint`."""
        groups, taps = self.outer.groups, math.prod(self.outer.kernel)
        between = inner_rank * outer_rank * taps
        return groups * (inner_rank * self.inner.columns + between + outer_rank * self.outer.rows)

    def build(self, outer: tuple[Tensor, Tensor], inner: tuple[Tensor, Tensor]) -> nn.Module:
        """See `Joint`."""
        (a, x), (spread, b) = outer, inner
        layer, groups = self.outer.layer, self.outer.groups
        taps = [self.outer.kernel[axis] for axis in self.inner.second]
        # Every axis is gone over once: by the core, but for those that the inner view's first convolution goes over.
        spread = spread.reshape(groups, self.outer.rows, -1)
        core = (x @ spread).reshape(groups, x.shape[1], *taps, -1).movedim(-1, 2)
        first = b.reshape(groups, b.shape[1], -1, *[1] * len(self.inner.first))
        return standing_in(
            ConvolutionPair(
                convolution(layer, first, self.inner.first),
                convolution(layer, core, self.inner.second),
                convolution(layer, a, (), bias_of(layer)),
            ),
            layer,
        )


def read(path: str, layer: nn.Module) -> list[ConvolutionView] | str | None:
    """See `layers.READERS`."""
    kind = next((k for k in (*PLAIN, *TRANSPOSED) if isinstance(layer, k)), None)
    if kind is None:
        return None
    if not computes_as(layer, kind):
        return may_differ(layer, kind)
    assert isinstance(layer, nn.modules.conv._ConvNd)
    groups, given, made = layer.groups, layer.in_channels // layer.groups, layer.out_channels // layer.groups
    if given == 1 and layer.groups > 1 and made == 1:
        return "each of its groups has one channel, which is of rank one already (a depthwise convolution)"
    kernel = layer.kernel_size
    wide = [axis for axis, size in enumerate(kernel) if size > 1]
    # Axes of one tap go where there are fewest positions: a stride first, a transposed one last.
    narrow = () if isinstance(layer, TRANSPOSED) else tuple(a for a, size in enumerate(kernel) if size == 1)
    cuts: list[Sequence[int]] = [wide]
    if wide:
        cuts.append(())
    if len(wide) > 1:
        # Height, then width; of three axes the last two, then the first: space, then time.
        cuts.append(wide[:1] if len(wide) == 2 else wide[1:])
    views = []
    for cut in cuts:
        first = tuple(sorted((*narrow, *cut)))
        taps = math.prod(kernel[axis] for axis in first)
        rows, columns = made * math.prod(kernel) // taps, given * taps
        views.append(ConvolutionView(path, layer, groups, rows, columns, first))
    least = min(map(_side, views))
    return [view for view in views if _side(view) <= max(LARGEST, least)]


def _side(view: View) -> int:
    return max(view.rows, view.columns)
