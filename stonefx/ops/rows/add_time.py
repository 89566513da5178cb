"""`stone::add_time`: the point of the hyperboloid over the space part of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import batching, checks
from ..calling import Caller
from ..curvature import operand
from ..library import Operator, declare
from ..sharding import Dimensions

_NAME = "add_time"


def reference(space: Tensor, c: Tensor) -> Tensor:
    """The point in plain torch, differentiable, in the dtype of `space` (half types compute in float32)."""
    dtype = batching.compute_dtype(space)
    s, k = space.to(dtype), c.to(device=space.device, dtype=dtype)
    time = ((s * s).sum(-1, keepdim=True) + 1 / k).sqrt()
    return torch.cat((time, s), -1).to(space.dtype)


def backward_reference(grad: Tensor, space: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients for `space`, and for the curvature of each row."""
    dtype = batching.compute_dtype(space)
    g, s, k = grad.to(dtype), space.to(dtype), c.to(device=space.device, dtype=dtype)
    along = g[..., :1] / ((s * s).sum(-1, keepdim=True) + 1 / k).sqrt()
    return (g[..., 1:] + along * s).to(space.dtype), -0.5 * along / k.square()


def _check(space: Tensor, c: Tensor) -> None:
    checks.rows(_NAME, "space", space)
    checks.curvature(_NAME, c, space.shape[:-1], space.device)


def _fake(space: Tensor, c: Tensor) -> Tensor:
    _check(space, c)
    return space.new_empty((*space.shape[:-1], space.shape[-1] + 1))


def _backward_fake(grad: Tensor, space: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    _check(space, c)
    full = (*space.shape[:-1], space.shape[-1] + 1)
    checks.gradient("add_time_backward", "grad and space", grad, space, full)
    of_c = space.new_empty((*space.shape[:-1], 1), dtype=batching.compute_dtype(space))
    return space.new_empty(space.shape), of_c


def _batched(info: Any, in_dims: Any, space: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    space = batching.spread(space, in_dims[0], info.batch_size)
    return space, c if in_dims[1] is None else batching.pad(c.movedim(in_dims[1], 0), space.dim() - 1)


def _vmap(op: Any, info: Any, in_dims: Any, space: Tensor, c: Tensor) -> tuple[Tensor, int]:
    return op(*_batched(info, in_dims, space, c)), 0


def _backward_vmap(
    op: Any, info: Any, in_dims: Any, grad: Tensor, space: Tensor, c: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    grad = batching.spread(grad, in_dims[0], info.batch_size)
    return op(grad, *_batched(info, in_dims[1:], space, c)), (0, 0)


OPERATOR = Operator(
    name=_NAME,
    arguments="Tensor space, Tensor c",
    backward_arguments="Tensor grad, Tensor space, Tensor c",
    backward_results="(Tensor, Tensor)",
    reference=reference,
    backward_reference=backward_reference,
    fake=_fake,
    backward_fake=_backward_fake,
    vmap=_vmap,
    backward_vmap=_backward_vmap,
    dimensions=Dimensions(operands=("*d", "*1"), result="*t"),
)
declare(OPERATOR)
CALL = Caller(_NAME)


def add_time(space: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Put the time coordinate `sqrt(||space||^2 + 1/c)` in front: a point of `-t^2 + ||space||^2 = -1/c`.

    Every space part is that of exactly one point, so that any network may work on it (Chen et al. 2022, "Fully
    Hyperbolic Neural Networks", and Bdeir et al. 2024, "Fully Hyperbolic Convolutional Neural Networks").

    Args:
        space: `[*batch, dim]`, float32, float64, bfloat16 or float16.
        c: curvature, a positive float, or a floating tensor that is 0-dim or broadcasts to `[*batch, 1]`.

    Returns:
        Points of the hyperboloid, `[*batch, 1 + dim]`, in the dtype of `space`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: a wrong dtype, shape or device.

    >>> import torch
    >>> add_time(torch.tensor([2.0, 2.0]))
    tensor([3., 2., 2.])
    """
    curvature = operand(_NAME, space, c)
    return CALL(space, curvature)
