"""`stone::butterfly`: a product of sparse rotation stages, a linear map of `N log N` operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import batching, checks
from ..calling import Caller
from ..library import Operator, declare
from ..sharding import Dimensions

_NAME = "butterfly"


def pairs(x: Tensor, stage: int) -> tuple[Tensor, Tensor]:
    """The entries that a stage pairs, `[*batch, dim / (2 stride), stride]` each."""
    dim = x.shape[-1]
    stride = 1 << (stage % (dim.bit_length() - 1))
    low, high = x.reshape(*x.shape[:-1], dim // (2 * stride), 2, stride).unbind(-2)
    return low, high


def coefficients(weight: Tensor, stage: int) -> tuple[Tensor, Tensor]:
    """`a` and `b` of the blocks of a stage, `[dim / (2 stride), stride]` each, as `pairs` lays them out."""
    half = weight.shape[1]
    stride = 1 << (stage % half.bit_length())
    a, b = weight[stage].reshape(half // stride, stride, 2).unbind(-1)
    return a, b


def apply_stage(x: Tensor, weight: Tensor, stage: int) -> Tensor:
    """One stage in plain torch."""
    (low, high), (a, b) = pairs(x, stage), coefficients(weight, stage)
    return torch.stack((a * low + b * high, a * high - b * low), -2).reshape(x.shape)


def reference(x: Tensor, weight: Tensor) -> Tensor:
    """All stages in plain torch, differentiable, in the dtype of `x` (half types compute in float32)."""
    dtype = batching.compute_dtype(x)
    y, weight = x.to(dtype), weight.to(dtype)
    for stage in range(weight.shape[0]):
        y = apply_stage(y, weight, stage)
    return y.to(x.dtype, copy=True)


def backward_reference(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients for `x` and `weight`."""
    dtype = batching.compute_dtype(x)
    g, w = grad.to(dtype), weight.to(dtype)
    inputs = [x.to(dtype)]
    for stage in range(w.shape[0] - 1):
        inputs.append(apply_stage(inputs[-1], w, stage))
    of_stages: list[Tensor] = []
    for stage in reversed(range(w.shape[0])):
        (low, high), (a, b), (g_low, g_high) = (
            pairs(inputs[stage], stage),
            coefficients(w, stage),
            pairs(g, stage),
        )
        of_a, of_b = g_low * low + g_high * high, g_low * high - g_high * low
        of_stages.insert(0, torch.stack((of_a, of_b), -1).reshape(-1, *w.shape[1:]).sum(0))
        g = torch.stack((a * g_low - b * g_high, a * g_high + b * g_low), -2).reshape(g.shape)
    grad_weight = torch.stack(of_stages) if of_stages else torch.zeros_like(w)
    return g.to(x.dtype, copy=True), grad_weight.to(weight.dtype)


def check(operator: str, x: Tensor, weight: Tensor) -> None:
    """Raise RuntimeError unless `weight` is a butterfly for the rows of `x`."""
    checks.rows(operator, "x", x)
    checks.same_dtype(operator, "x and weight", x, weight)
    checks.same_device(operator, "x and weight", x, weight)
    dim = x.shape[-1]
    if dim < 2 or dim & (dim - 1) != 0:
        raise RuntimeError(
            f"stone::{operator}: the last dimension of x must be a power of two, 2 or more, got "
            f"{checks.shape(x)}; pad it, for instance with torch.nn.functional.pad"
        )
    if weight.dim() != 3 or weight.shape[1] != dim // 2 or weight.shape[2] != 2:
        raise RuntimeError(
            f"stone::{operator}: weight must be [stages, dim / 2, 2] = [stages, {dim // 2}, 2] for x of shape "
            f"{checks.shape(x)}, got {checks.shape(weight)}; its last dimension holds (a, b) of each block"
        )


def _fake(x: Tensor, weight: Tensor) -> Tensor:
    check(_NAME, x, weight)
    return x.new_empty(x.shape)


def _backward_fake(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    check(_NAME, x, weight)
    checks.gradient("butterfly_backward", "grad and x", grad, x, x.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _vmap(op: Any, info: Any, in_dims: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, int]:
    if in_dims[1] is None:
        return op(x.movedim(in_dims[0], 0), weight), 0
    x, weight = (batching.spread(t, d, info.batch_size) for t, d in zip((x, weight), in_dims, strict=True))
    # Mapped weights are different maps: one call for each.
    return torch.stack([op(*each) for each in zip(x, weight, strict=True)]), 0


def _backward_vmap(
    op: Any, info: Any, in_dims: Any, grad: Tensor, x: Tensor, weight: Tensor
) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
    # Every mapped entry has a weight gradient of its own.
    operands = (
        batching.spread(t, d, info.batch_size) for t, d in zip((grad, x, weight), in_dims, strict=True)
    )
    grads = [op(*each) for each in zip(*operands, strict=True)]
    return tuple(torch.stack(each) for each in zip(*grads, strict=True)), (0, 0)


OPERATOR = Operator(
    name=_NAME,
    arguments="Tensor x, Tensor weight",
    backward_arguments="Tensor grad, Tensor x, Tensor weight",
    backward_results="(Tensor, Tensor)",
    reference=reference,
    backward_reference=backward_reference,
    fake=_fake,
    backward_fake=_backward_fake,
    vmap=_vmap,
    backward_vmap=_backward_vmap,
    dimensions=Dimensions(operands=("*d", "sh2"), result="*d"),
)
declare(OPERATOR)
_CALL = Caller(_NAME)


def butterfly(x: Tensor, weight: Tensor) -> Tensor:
    """Apply the stages of a butterfly, each a block-diagonal matrix of 2 x 2 blocks `[[a, b], [-b, a]]`.

    Stage `l` pairs the entries `stride = 2**(l % log2(dim))` apart: `y[i] = a x[i] + b x[i + stride]` and
    `y[i + stride] = a x[i + stride] - b x[i]`, for `i = 2 stride p + q` with block `p stride + q` of the weight
    (Dao et al. 2019, "Learning Fast Algorithms for Linear Transforms Using Butterfly Factorizations", with
    rotations as blocks). `log2(dim)` stages mix every entry with every other in `dim log2(dim)` operations; with
    `a^2 + b^2 = 1` the map is a rotation. Half types compute in float32 and round once.

    Args:
        x: `[*batch, dim]`, float32, float64, bfloat16 or float16; `dim` is a power of two, 2 or more.
        weight: `[stages, dim / 2, 2]`, the dtype of `x`: `(a, b)` of each block. Any number of stages.

    Returns:
        `[*batch, dim]`, in the dtype of `x`.

    Raises:
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> quarter_turn = torch.tensor([[[0.0, 1.0]]])
    >>> butterfly(torch.tensor([3.0, 4.0]), quarter_turn)
    tensor([ 4., -3.])
    """
    return _CALL(x, weight)
