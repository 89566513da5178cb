"""What the layers demand of their arguments and of the points they are given."""

from __future__ import annotations

import operator
from numbers import Real

from torch import Tensor

from stonefx.ops import checks


def number(layer: str, label: str, value: object) -> float:
    """A number given to a constructor, as a float.

    Args:
        layer, label: its name and that of the argument, for the message.
        value: a real number, or a tensor of one element.

    Raises:
        TypeError: anything else; a bool too, which is most likely an argument in the wrong place.

    >>> number("LorentzLinear", "scale", 10)
    10.0
    """
    if isinstance(value, Tensor) and value.numel() == 1 and not (value.is_complex() or value.is_meta):
        value = value.item()
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"{layer}: {label} must be a number, got {_described(value)}; give a float, such as 1.0")


def size(layer: str, label: str, value: object) -> int:
    """A size given to a constructor, as an int.

    Args:
        layer, label: its name and that of the argument, for the message.
        value: an integer of Python or numpy.

    Raises:
        TypeError: anything else.
        ValueError: it is negative.

    >>> size("PoincareLinear", "in_features", 8)
    8
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        whole = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{layer}: {label} must be an integer, got {_described(value)}; convert it with int()"
        ) from None
    if whole < 0:
        raise ValueError(f"{layer}: {label} must be 0 or more, got {whole}")
    return whole


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {checks.shape(value)} of dtype {checks.show(value.dtype)}"
    return f"{value!r} ({type(value).__name__})"


def points(layer: str, x: Tensor, width: int, weight: Tensor, converts: bool = False) -> None:
    """Accept points `[*batch, width]` of the dtype and on the device of `weight`.

    Args:
        layer: its name, for the message.
        x: the points.
        width: how many coordinates a point has.
        weight: of the layer.
        converts: whether the layer converts floating points to its dtype, as it does under autocast.

    Raises:
        TypeError: `x` is not a tensor.
        RuntimeError: another shape, dtype or device.

    >>> import torch
    >>> points("PoincareLinear", torch.zeros(2, 8), 8, torch.zeros(4, 8))
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{layer}: expected a tensor of points [*batch, {width}], got {type(x).__name__}; use torch.tensor"
        )
    fits = x.dtype == weight.dtype or (converts and x.dtype in checks.FLOATING)
    if fits and x.dim() > 0 and x.shape[-1] == width and x.device == weight.device:
        return
    dtype = checks.show(weight.dtype)
    if x.dim() == 0 or x.shape[-1] != width:
        remedy = f"the last dimension holds the {width} coordinates of a point"
    elif x.dtype not in checks.FLOATING:
        remedy = f"convert the points with x.to(torch.{dtype})"
    elif not fits:
        remedy = f"convert the points with x.to(torch.{dtype}) or the layer with layer.to(torch.{checks.show(x.dtype)})"
    else:
        remedy = f"move the points with x.to({str(weight.device)!r})"
    raise RuntimeError(
        f"{layer}: expected points [*batch, {width}] of dtype {dtype} on {weight.device}, got {checks.shape(x)} of "
        f"dtype {checks.show(x.dtype)} on {x.device}; {remedy}"
    )
