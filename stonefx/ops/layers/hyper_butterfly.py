"""`stone::hyper_butterfly`: a butterfly in the tangent space at the origin of the Poincaré ball, in one kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import batching, checks
from ..calling import Caller
from ..curvature import operand
from ..library import NO_LIMIT, Operator, declare
from ..rows import radial
from ..rows.expmap0 import slope as tanh_slope
from ..rows.logmap0 import slope as atanh_slope
from ..sharding import Dimensions
from .butterfly import backward_reference as butterfly_backward
from .butterfly import check as check_butterfly
from .butterfly import reference as butterfly_reference

_NAME = "hyper_butterfly"
_ARGUMENTS = (
    "Tensor x, Tensor weight, Tensor c, *, float log_min_norm=0, float log_norm_offset=0, "
    f"float log_min_scaled=0, float atanh_limit={NO_LIMIT:.0e}, float exp_min_norm=0, float exp_norm_offset=0, "
    f"float exp_min_scaled=0, float tanh_limit={NO_LIMIT:.0e}"
)


def _guards(
    *,
    log_min_norm: float = 0.0,
    log_norm_offset: float = 0.0,
    log_min_scaled: float = 0.0,
    atanh_limit: float = NO_LIMIT,
    exp_min_norm: float = 0.0,
    exp_norm_offset: float = 0.0,
    exp_min_scaled: float = 0.0,
    tanh_limit: float = NO_LIMIT,
) -> tuple[radial.Guards, radial.Guards]:
    log = radial.Guards(
        min_norm=log_min_norm, norm_offset=log_norm_offset, min_scaled=log_min_scaled, limit=atanh_limit
    )
    exp = radial.Guards(
        min_norm=exp_min_norm, norm_offset=exp_norm_offset, min_scaled=exp_min_scaled, limit=tanh_limit
    )
    return log, exp


def reference(x: Tensor, weight: Tensor, c: Tensor, **options: float) -> Tensor:
    """The three maps in plain torch, differentiable, in the dtype of `x` (half types compute in float32)."""
    dtype = batching.compute_dtype(x)
    log, exp = _guards(**options)
    tangent = radial.evaluate(torch.atanh, x.to(dtype), c, log)
    image = butterfly_reference(tangent, weight.to(dtype))
    return radial.evaluate(torch.tanh, image, c, exp).to(x.dtype)


def backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, c: Tensor, **options: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for `x`, `weight` and the curvature of each row."""
    dtype = batching.compute_dtype(x)
    log, exp = _guards(**options)
    row, w = x.to(dtype), weight.to(dtype)
    tangent = radial.evaluate(torch.atanh, row, c, log)
    image = butterfly_reference(tangent, w)
    grad_image, exp_c = radial.gradients(torch.tanh, tanh_slope, grad.to(dtype), image, c, exp)
    grad_tangent, grad_weight = butterfly_backward(grad_image, tangent, w)
    grad_x, log_c = radial.gradients(torch.atanh, atanh_slope, grad_tangent, row, c, log)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype), exp_c + log_c


def _check(x: Tensor, weight: Tensor, c: Tensor, options: dict[str, float]) -> None:
    check_butterfly(_NAME, x, weight)
    checks.curvature(_NAME, c, x.shape[:-1], x.device)
    checks.options(_NAME, **options)


def _fake(x: Tensor, weight: Tensor, c: Tensor, **options: float) -> Tensor:
    _check(x, weight, c, options)
    return x.new_empty(x.shape)


def _backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, c: Tensor, **options: float
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, weight, c, options)
    checks.gradient("hyper_butterfly_backward", "grad and x", grad, x, x.shape)
    of_c = x.new_empty((*x.shape[:-1], 1), dtype=batching.compute_dtype(x))
    return x.new_empty(x.shape), weight.new_empty(weight.shape), of_c


def _vmap(
    op: Any, info: Any, in_dims: Any, x: Tensor, weight: Tensor, c: Tensor, **options: float
) -> tuple[Tensor, int]:
    if in_dims[1] is None:
        x = batching.spread(x, in_dims[0], info.batch_size)
        c = c if in_dims[2] is None else batching.pad(c.movedim(in_dims[2], 0), x.dim() - 1)
        return op(x, weight, c, **options), 0
    operands = batching.each(info, in_dims, x, weight, c)
    return torch.stack([op(*mapped, **options) for mapped in operands]), 0


def _backward_vmap(
    op: Any, info: Any, in_dims: Any, *operands: Tensor, **options: float
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    # Every mapped entry has a weight gradient of its own.
    grads = [op(*mapped, **options) for mapped in batching.each(info, in_dims, *operands)]
    return tuple(torch.stack(mapped) for mapped in zip(*grads, strict=True)), (0, 0, 0)


OPERATOR = Operator(
    name=_NAME,
    arguments=_ARGUMENTS,
    backward_arguments="Tensor grad, " + _ARGUMENTS,
    backward_results="(Tensor, Tensor, Tensor)",
    reference=reference,
    backward_reference=backward_reference,
    fake=_fake,
    backward_fake=_backward_fake,
    vmap=_vmap,
    backward_vmap=_backward_vmap,
    dimensions=Dimensions(operands=("*d", "sh2", "*1"), result="*d"),
)
declare(OPERATOR)
_CALL = Caller(_NAME)


def hyper_butterfly(x: Tensor, weight: Tensor, c: float | Tensor = 1.0, **guards: float) -> Tensor:
    """Apply a butterfly to points of the Poincaré ball: `expmap0(butterfly(logmap0(x), weight))`.

    A Möbius matrix product (Ganea et al. 2018, section 3.2) with a butterfly as matrix: `x` is read once and the
    result written once. See `butterfly`, `expmap0` and `logmap0` for the three maps.

    Args:
        x: points, `[*batch, dim]`, float32, float64, bfloat16 or float16; `dim` is a power of two, 2 or more.
        weight: `[stages, dim / 2, 2]`, the dtype of `x`: `(a, b)` of each block.
        c: curvature, a positive float, or a floating tensor that is 0-dim or broadcasts to `[*batch, 1]`.
        guards: `log_min_norm`, `log_norm_offset`, `log_min_scaled`, `atanh_limit` as those of `logmap0`, and
            `exp_min_norm`, `exp_norm_offset`, `exp_min_scaled`, `tanh_limit` as those of `expmap0`; none by default.
            `tanh_limit = artanh(r)` is a projection of the result to `sqrt(c) ||y|| <= r`.

    Returns:
        Points, `[*batch, dim]`, in the dtype of `x`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> quarter_turn = torch.tensor([[[0.0, 1.0]]])
    >>> hyper_butterfly(torch.tensor([0.3, 0.4]), quarter_turn)
    tensor([ 0.4000, -0.3000])
    """
    curvature = operand(_NAME, x, c)
    return _CALL(x, weight, curvature, **guards)
