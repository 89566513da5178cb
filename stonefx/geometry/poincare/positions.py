"""Where points of the Poincaré ball lie: kept inside, or brought to another model."""

from __future__ import annotations

from torch import Tensor

from ..function import Function

_PROJECT = Function("project", "project", lambda b: {"eps": b.margin})
_TO_LORENTZ = Function("to_lorentz", "poincare_to_lorentz", lambda b: {"min_gap": b.gap})
_TO_KLEIN = Function("to_klein", "poincare_to_klein", lambda b: {"max_radius": b.radius})


def project(x: Tensor, c: float | Tensor = 1.0, eps: float | None = None) -> Tensor:
    """Shorten rows that are longer than `(1 - eps) / sqrt(c)` to that.

    Args:
        x: any rows, `[*batch, dim]`.
        eps: the margin, in [0, 1); by default 4e-3 for float32 and float16, 1e-5 for float64, 2^-6 for bfloat16.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices, or an `eps` outside [0, 1).

    >>> import torch
    >>> project(torch.tensor([3.0, 4.0]))
    tensor([0.5976, 0.7968])
    """
    if eps is None:
        return _PROJECT(x, c)
    if eps >= 1:  # the operator refuses what is below 0
        raise RuntimeError(
            f"project: eps must be in [0, 1), got {eps}; rows are shortened to (1 - eps) / sqrt(c), so leave it out or "
            "give a small margin such as 1e-3"
        )
    return _PROJECT(x, c, eps=eps)


def to_lorentz(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point of the hyperboloid, time first: `(1 + c ||x||^2, 2 sqrt(c) x) / (sqrt(c) (1 - c ||x||^2))`.

    Args:
        x: points, `[*batch, dim]`; the result is `[*batch, dim + 1]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> to_lorentz(torch.tensor([0.5, 0.0]))
    tensor([1.6667, 1.3333, 0.0000])
    """
    return _TO_LORENTZ(x, c)


def to_klein(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point of the Klein ball: `2 x / (1 + c ||x||^2)`.

    Args:
        x: points, `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> to_klein(torch.tensor([0.5, 0.0]))
    tensor([0.8000, 0.0000])
    """
    return _TO_KLEIN(x, c)
