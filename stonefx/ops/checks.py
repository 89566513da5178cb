"""What the operators demand of their arguments; csrc/launch/checks.h says the same in the same words."""

from __future__ import annotations

from collections.abc import Sequence

import torch

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def show(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def shape(tensor: torch.Tensor) -> str:
    """`[8, 64]` for a tensor of that shape."""
    return "[" + ", ".join(str(size) for size in tensor.shape) + "]"


def floating(operator: str, label: str, x: torch.Tensor) -> None:
    """Raise RuntimeError unless `x` has one of the four floating dtypes that the kernels take."""
    if x.dtype not in FLOATING:
        raise RuntimeError(
            f"stone::{operator}: {label} must be float32, float64, bfloat16 or float16, got {show(x.dtype)}; "
            f"convert it, for instance with {label}.float()"
        )


def rows(operator: str, label: str, x: torch.Tensor) -> None:
    """Raise RuntimeError unless `x` is `[*batch, dim]` and floating."""
    floating(operator, label, x)
    if x.dim() == 0:
        raise RuntimeError(
            f"stone::{operator}: {label} must be [*batch, dim] with at least one dimension, got a 0-dim "
            f"tensor; use {label}.unsqueeze(-1)"
        )


def same_dtype(operator: str, labels: str, x: torch.Tensor, y: torch.Tensor) -> None:
    """Raise RuntimeError unless `x` and `y` have one dtype."""
    if x.dtype != y.dtype:
        raise RuntimeError(
            f"stone::{operator}: {labels} must have one dtype, got {show(x.dtype)} and {show(y.dtype)}; "
            "convert one of them with .to()"
        )


def same_device(operator: str, labels: str, x: torch.Tensor, y: torch.Tensor) -> None:
    """Raise RuntimeError unless `x` and `y` are on one device."""
    if x.device != y.device:
        raise RuntimeError(
            f"stone::{operator}: {labels} must be on one device, got {x.device} and {y.device}; "
            "move one of them with .to()"
        )


def broadcasts_to(given: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape broadcasts to the one wanted."""
    pairs = zip(reversed(given), reversed(wanted), strict=False)
    return len(given) <= len(wanted) and all(size == 1 or size == extent for size, extent in pairs)


def curvature(
    operator: str,
    c: torch.Tensor,
    batch: Sequence[int],
    device: torch.device,
    label: str = "c",
    rows: str = "x",
) -> None:
    """Raise RuntimeError unless `c` is floating and 0-dim, or broadcasts to `[*batch, 1]`.

    A 0-dim `c` on the CPU goes with rows on any device, as 0-dim tensors do in torch. `label` names another number
    of the row that is given as a curvature is.
    """
    floating(operator, label, c)
    if c.dim() > 0 and not broadcasts_to(c.shape, (*batch, 1)):
        expected = "[" + ", ".join(str(size) for size in (*batch, 1)) + "]"
        raise RuntimeError(
            f"stone::{operator}: {label} must be 0-dim or broadcast to [*batch, 1] = {expected}, got {shape(c)}; "
            f"{'a curvature' if label == 'c' else 'one'} for each row needs a last dimension of 1: "
            f"{label}.unsqueeze(-1)"
        )
    if c.device != device and not (c.dim() == 0 and c.device.type == "cpu"):
        raise RuntimeError(
            f"stone::{operator}: {rows} and {label} must be on one device, got {device} and {c.device}; "
            "move one of them with .to()"
        )


def broadcast_batch(
    operator: str,
    x: torch.Tensor,
    y: torch.Tensor,
    labels: str = "x and y",
    before: Sequence[int] | None = None,
    one_width: bool = True,
) -> tuple[int, ...]:
    """The batch shape that `x` and `y`, both `[*batch, dim]`, broadcast to; RuntimeError if there is none.

    `before` is the batch of the operands that come before `y`, where that is not `x` alone; `one_width` asks for
    one last dimension.
    """
    fits = not one_width or x.shape[-1] == y.shape[-1]
    batch: list[int] = []
    left, right = tuple(x.shape[:-1] if before is None else before), tuple(y.shape[:-1])
    longer, shorter = (left, right) if len(left) >= len(right) else (right, left)
    padding = len(longer) - len(shorter)
    for index, extent in enumerate(longer):
        other = shorter[index - padding] if index >= padding else 1
        fits = fits and (extent == other or extent == 1 or other == 1)
        batch.append(other if extent == 1 else extent)
    if not fits:
        raise RuntimeError(
            f"stone::{operator}: {labels} must have {'one last dimension and ' if one_width else ''}batch dimensions "
            f"that broadcast, got {shape(x)} and {shape(y)}; reshape or unsqueeze one of them"
        )
    return tuple(batch)


def points(operator: str, label: str, x: torch.Tensor) -> None:
    """Raise RuntimeError unless `x` is `[*batch, points, dim]` and floating."""
    floating(operator, label, x)
    if x.dim() < 2:
        raise RuntimeError(
            f"stone::{operator}: {label} must be [*batch, points, dim] with at least two dimensions, "
            f"got {shape(x)}; use {label}.unsqueeze(0)"
        )


def pair_batch(operator: str, x: torch.Tensor, y: torch.Tensor) -> tuple[int, ...]:
    """The batch shape that `x` `[*batch, n, dim]` and `y` `[*batch, m, dim]` broadcast to; RuntimeError if none."""
    fits = x.shape[-1] == y.shape[-1]
    longer, shorter = (x.shape[:-2], y.shape[:-2]) if x.dim() >= y.dim() else (y.shape[:-2], x.shape[:-2])
    padding = len(longer) - len(shorter)
    batch: list[int] = []
    for index, extent in enumerate(longer):
        other = shorter[index - padding] if index >= padding else 1
        fits = fits and (extent == other or extent == 1 or other == 1)
        batch.append(other if extent == 1 else extent)
    if not fits:
        raise RuntimeError(
            f"stone::{operator}: x [*batch, n, dim] and y [*batch, m, dim] must have one last dimension and "
            f"batch dimensions that broadcast, got {shape(x)} and {shape(y)}; reshape or unsqueeze one of them"
        )
    return tuple(batch)


def gradient(operator: str, labels: str, grad: torch.Tensor, x: torch.Tensor, size: Sequence[int]) -> None:
    """Raise RuntimeError unless `grad` has the shape `size` of the result, and the dtype and device of `x`."""
    same_dtype(operator, labels, grad, x)
    same_device(operator, labels, grad, x)
    if tuple(grad.shape) != tuple(size):
        expected = "[" + ", ".join(str(extent) for extent in size) + "]"
        raise RuntimeError(
            f"stone::{operator}: grad must have the shape of the result, {expected}, got {shape(grad)}; expand it"
        )


def options(operator: str, **values: float) -> None:
    """Raise RuntimeError for a guard that is negative or NaN."""
    for label, value in values.items():
        if not value >= 0:
            raise RuntimeError(
                f"stone::{operator}: {label} must be at least 0, got {value:g}; leave it out for none"
            )
