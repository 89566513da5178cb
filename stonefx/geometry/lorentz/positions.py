"""Points brought to the hyperboloid, or from it to a ball."""

from __future__ import annotations

from torch import Tensor

from ..function import Function

_PROJECT = Function("project", "lorentz_project")
_TO_POINCARE = Function("to_poincare", "lorentz_to_poincare", lambda b: {"max_radius": b.radius})
_TO_KLEIN = Function("to_klein", "lorentz_to_klein", lambda b: {"max_radius": b.radius})


def project(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Put rows on the hyperboloid: the space components stay, the time becomes `sqrt(1/c + ||x||^2)`.

    Args:
        x: any rows, `[*batch, 1 + dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> project(torch.tensor([9.0, 0.75]))
    tensor([1.2500, 0.7500])
    """
    return _PROJECT(x, c)


def to_poincare(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point of the Poincaré ball: `x / (1 + sqrt(c) x0)`.

    Args:
        x: points, `[*batch, 1 + dim]`; the result is `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> to_poincare(torch.tensor([1.25, 0.75]))
    tensor([0.3333])
    """
    return _TO_POINCARE(x, c)


def to_klein(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point of the Klein ball: `x / (sqrt(c) x0)`.

    Args:
        x: points, `[*batch, 1 + dim]`; the result is `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> to_klein(torch.tensor([1.25, 0.75]))
    tensor([0.6000])
    """
    return _TO_KLEIN(x, c)
