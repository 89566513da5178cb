"""`stone::poincare_linear_epilogue`: from `m = W x` to `project(exp0(log0-factor(x) m) (+) b)`, row by row.

The Möbius product `W (*) x = expmap0(W logmap0(x))` is a multiple of `m` (Ganea et al. 2018, section 3.2), and so the
result is `p m + q b` with numbers `p` and `q` made of inner products: `m` and `x` are read once each.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import batching, checks
from ..calling import Caller
from ..library import NO_LIMIT, Operator, declare
from ..rows import radial
from ..rows.expmap0 import slope as tanh_slope
from ..rows.logmap0 import slope as atanh_slope
from ..rows.mobius_add import backward_reference as mobius_add_backward
from ..rows.mobius_add import reference as mobius_add_reference
from ..sharding import Dimensions

_NAME = "poincare_linear_epilogue"
GUARDS = (
    f"float min_norm=0, float atanh_limit={NO_LIMIT:.0e}, float tanh_limit={NO_LIMIT:.0e}, "
    f"float matvec_limit={NO_LIMIT:.0e}, float min_denominator=0, float denominator_offset=0, "
    f"float project_limit={NO_LIMIT:.0e}"
)
_ARGUMENTS = "Tensor x, Tensor product, Tensor? bias, Tensor c, *, " + GUARDS


def _maps(
    min_norm: float, atanh_limit: float, tanh_limit: float, matvec_limit: float
) -> tuple[radial.Guards, radial.Guards]:
    """The guards of log0 and exp0; `min(tanh(w), limit)` is `tanh(min(w, artanh(limit)))`."""
    radius = math.atanh(matvec_limit) if matvec_limit < 1 else NO_LIMIT
    log = radial.Guards(min_norm=min_norm, limit=atanh_limit)
    return log, radial.Guards(min_norm=min_norm, limit=min(tanh_limit, radius))


def _shrink(z: Tensor, c: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Where the projection acts on a row, and what it multiplies the row by."""
    squares = (z * z).sum(-1, keepdim=True)
    beyond = c.sqrt() * squares.detach().sqrt() > limit
    # Numbers that `where` does not choose must not overflow: their gradient would be 0 * inf.
    length = torch.where(beyond, (c * torch.where(beyond, squares, 1.0)).sqrt(), 1.0)
    return beyond, torch.where(beyond, min(limit, 1e30) / length, 1.0)


def reference(
    x: Tensor,
    product: Tensor,
    bias: Tensor | None,
    c: Tensor,
    *,
    min_norm: float = 0.0,
    atanh_limit: float = NO_LIMIT,
    tanh_limit: float = NO_LIMIT,
    matvec_limit: float = NO_LIMIT,
    min_denominator: float = 0.0,
    denominator_offset: float = 0.0,
    project_limit: float = NO_LIMIT,
) -> Tensor:
    """The rows in plain torch, differentiable, in the dtype of `x` (half types compute in float32)."""
    dtype = batching.compute_dtype(x)
    curvature = c.to(device=x.device, dtype=dtype)
    log, exp = _maps(min_norm, atanh_limit, tanh_limit, matvec_limit)
    tangent = radial.factor(torch.atanh, x, c, log) * product.to(dtype)
    z = radial.evaluate(torch.tanh, tangent, c, exp)
    if bias is not None:
        added = {"min_denominator": min_denominator, "denominator_offset": denominator_offset}
        z = mobius_add_reference(z, bias.to(dtype), curvature, **added)
    return (_shrink(z, curvature, project_limit)[1] * z).to(x.dtype)


def backward_reference(
    grad: Tensor,
    x: Tensor,
    product: Tensor,
    bias: Tensor | None,
    c: Tensor,
    *,
    min_norm: float = 0.0,
    atanh_limit: float = NO_LIMIT,
    tanh_limit: float = NO_LIMIT,
    matvec_limit: float = NO_LIMIT,
    min_denominator: float = 0.0,
    denominator_offset: float = 0.0,
    project_limit: float = NO_LIMIT,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients for `x` (through its norm alone), the product, the bias and the curvature of each row."""
    dtype = batching.compute_dtype(x)
    curvature = c.to(device=x.device, dtype=dtype)
    log, exp = _maps(min_norm, atanh_limit, tanh_limit, matvec_limit)
    added = {"min_denominator": min_denominator, "denominator_offset": denominator_offset}
    m, g = product.to(dtype), grad.to(dtype)
    scale, along, log_c = radial.derivatives(torch.atanh, atanh_slope, x, c, log)
    tangent = scale * m
    p = radial.evaluate(torch.tanh, tangent, c, exp)
    z = p if bias is None else mobius_add_reference(p, bias.to(dtype), curvature, **added)
    beyond, shrink = _shrink(z, curvature, project_limit)
    gz = (g * z).sum(-1, keepdim=True)
    squares = torch.where(beyond, (z * z).sum(-1, keepdim=True), 1.0)
    grad_c = torch.where(beyond, -shrink * gz / (2 * curvature), 0.0)
    g = torch.where(beyond, shrink * (g - gz / squares * z), g)
    grad_bias = x.new_empty(0)
    if bias is not None:
        g, of_bias, sum_c = mobius_add_backward(g, p, bias.to(dtype), curvature, **added)
        grad_bias = of_bias.reshape(-1, bias.shape[0]).sum(0).to(bias.dtype)
        grad_c = grad_c + sum_c
    g, exp_c = radial.gradients(torch.tanh, tanh_slope, g, tangent, c, exp)
    of_scale = (g * m).sum(-1, keepdim=True)
    grad_c = grad_c + exp_c + log_c * of_scale
    return (along * of_scale * x.to(dtype)).to(x.dtype), (scale * g).to(x.dtype), grad_bias, grad_c


def _check(x: Tensor, product: Tensor, bias: Tensor | None, c: Tensor, options: dict[str, float]) -> None:
    checks.rows(_NAME, "x", x)
    checks.same_dtype(_NAME, "x and product", x, product)
    checks.same_device(_NAME, "x and product", x, product)
    fits = product.dim() == x.dim() and product.shape[:-1] == x.shape[:-1]
    if bias is not None:
        checks.same_dtype(_NAME, "x and bias", x, bias)
        checks.same_device(_NAME, "x and bias", x, bias)
        fits = fits and bias.dim() == 1 and bias.shape[0] == product.shape[-1]
    if not fits:
        raise RuntimeError(
            f"stone::{_NAME}: expected x [*batch, in], product [*batch, out] and bias [out], got {checks.shape(x)}, "
            f"{checks.shape(product)} and {'none' if bias is None else checks.shape(bias)}; product is "
            "torch.nn.functional.linear(x, weight)"
        )
    checks.curvature(_NAME, c, x.shape[:-1], x.device)
    checks.options(_NAME, **options)


def _fake(x: Tensor, product: Tensor, bias: Tensor | None, c: Tensor, **options: float) -> Tensor:
    _check(x, product, bias, c, options)
    return product.new_empty(product.shape)


def _backward_fake(
    grad: Tensor, x: Tensor, product: Tensor, bias: Tensor | None, c: Tensor, **options: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check(x, product, bias, c, options)
    checks.gradient(f"{_NAME}_backward", "grad and x", grad, x, product.shape)
    of_bias = x.new_empty(0 if bias is None else product.shape[-1])
    of_c = x.new_empty((*x.shape[:-1], 1), dtype=batching.compute_dtype(x))
    return x.new_empty(x.shape), product.new_empty(product.shape), of_bias, of_c


def _vmap(
    op: Any,
    info: Any,
    in_dims: Any,
    x: Tensor,
    product: Tensor,
    bias: Tensor | None,
    c: Tensor,
    **options: float,
) -> tuple[Tensor, int]:
    if bias is None or in_dims[2] is None:
        x, product = (
            batching.spread(t, d, info.batch_size) for t, d in zip((x, product), in_dims[:2], strict=True)
        )
        c = c if in_dims[3] is None else batching.pad(c.movedim(in_dims[3], 0), x.dim() - 1)
        return op(x, product, bias, c, **options), 0
    mapped = batching.each(info, in_dims, x, product, bias, c)
    return torch.stack([op(*operands, **options) for operands in mapped]), 0


def _backward_vmap(
    op: Any,
    info: Any,
    in_dims: Any,
    grad: Tensor,
    x: Tensor,
    product: Tensor,
    bias: Tensor | None,
    c: Tensor,
    **options: float,
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    # Every mapped entry has a bias gradient of its own.
    of_bias = [] if bias is None else [bias]
    dims = [d for d, t in zip(in_dims, (grad, x, product, bias, c), strict=True) if t is not None]
    grads = []
    for g, row, m, *rest in batching.each(info, dims, grad, x, product, *of_bias, c):
        grads.append(op(g, row, m, rest[0] if of_bias else None, rest[-1], **options))
    return tuple(torch.stack(operands) for operands in zip(*grads, strict=True)), (0, 0, 0, 0)


OPERATOR = Operator(
    name=_NAME,
    arguments=_ARGUMENTS,
    backward_arguments="Tensor grad, " + _ARGUMENTS,
    backward_results="(Tensor, Tensor, Tensor, Tensor)",
    reference=reference,
    backward_reference=backward_reference,
    fake=_fake,
    backward_fake=_backward_fake,
    vmap=_vmap,
    backward_vmap=_backward_vmap,
    dimensions=Dimensions(operands=("*i", "*o", "o", "*1"), result="*o"),
)
declare(OPERATOR)
CALL = Caller(_NAME)
