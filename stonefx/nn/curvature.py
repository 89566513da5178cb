"""Which curvatures a layer takes, and how a learned one is kept among them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stonefx.ops import checks

from .arguments import number


def interval(dtype: torch.dtype) -> tuple[float, float]:
    """The least and the largest curvature of a layer in `dtype`.

    Within `[2^-48, 2^48]` distances, which go with `c^(-1/2)`, their derivatives, which go with `c^(-3/2)`, and the
    `c^2` of Möbius addition are float32 numbers with room for sums; `[2^-256, 2^256]` in float64. float16 itself holds
    fewer, from its smallest normal number to its largest; what it holds is computed in float32 or wider.

    Args:
        dtype: float32, float64, bfloat16 or float16.

    Raises:
        KeyError: another dtype.

    >>> interval(torch.float16)
    (6.103515625e-05, 65504.0)
    """
    if dtype not in checks.FLOATING:
        raise KeyError(dtype)
    reach = 2.0 ** (256 if dtype == torch.float64 else 48)
    numbers = torch.finfo(dtype)
    return max(numbers.tiny, 1 / reach), min(numbers.max, reach)


def check(layer: str, c: object, dtype: torch.dtype) -> float:
    """The curvature given to a constructor, as a float.

    Args:
        layer: its name, for the messages.
        c: what was given; a tensor of one element stands for its value.
        dtype: of the parameters.

    Raises:
        TypeError: `c` is not a number, or the layers do not compute in `dtype`.
        ValueError: `c` is a tensor that wants a gradient, is not positive and finite, or is outside `interval(dtype)`.

    >>> check("PoincareLinear", 0.5, torch.float32)
    0.5
    """
    if isinstance(c, Tensor) and c.requires_grad:
        raise ValueError(
            f"{layer}: the curvature is a tensor that requires a gradient, and the layer would copy its value; give "
            "a number and learn_curvature=True, and train the layer's log_curvature"
        )
    value = number(layer, "the curvature", c)
    if not 0 < value < math.inf:
        raise ValueError(
            f"{layer}: the curvature must be positive and finite, got {c}; the space has curvature -c"
        )
    if dtype not in checks.FLOATING:
        raise TypeError(
            f"{layer}: dtype must be float32, float64, bfloat16 or float16, got {checks.show(dtype)}; "
            "leave it out for torch's default dtype"
        )
    least, largest = interval(dtype)
    if not least <= value <= largest:
        raise ValueError(
            f"{layer}: the curvature must be from {least:.3g} to {largest:.3g} in {checks.show(dtype)}, got {c}; make "
            "the layer in a wider dtype, or multiply the points by sqrt(c) and use curvature 1"
        )
    return value


def held_exp(log: Tensor) -> Tensor:
    """`exp(log)`, held in `interval` of the dtype; where it is held, no gradient passes, as in torch.clamp.

    A half type computes in float32: the gradient of `c` goes with `c^(-3/2)`, beyond float16 for a small `c`, while
    that of `log c` is a number of it.

    Args:
        log: 0-dim, the logarithm of the curvature.

    >>> held_exp(torch.tensor(-200.0)) > 0
    tensor(True)
    """
    wide = log.float() if log.dtype in (torch.bfloat16, torch.float16) else log
    return wide.clamp(*_LOGARITHMS[log.dtype]).exp()


_LOGARITHMS = {
    dtype: (math.log(interval(dtype)[0]), math.log(interval(dtype)[1])) for dtype in checks.FLOATING
}
