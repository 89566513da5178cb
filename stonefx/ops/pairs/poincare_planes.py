"""`stone::poincare_planes` and `stone::hnnpp_planes`: what libraries take asinh of in class scores, and that asinh.

Both give the signed distances of points to hyperplanes times `sqrt(c)`, with the guards that libraries have; scores and
distances are multiples of them. No `[*batch, planes, dim]` temporary is made, forward or backward.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import checks
from ..curvature import operand
from ..library import LIBRARY, NO_LIMIT, TAGS, below_autocast, implement_composite
from .poincare_mlr import check, planes_at, planes_through, scores, wide

_PLANES = "poincare_planes"
_HNNPP = "hnnpp_planes"


def _through(
    x: Tensor,
    p: Tensor,
    a: Tensor,
    c: Tensor,
    *,
    min_denominator: float = 0.0,
    denominator_offset: float = 0.0,
    min_gap: float = 0.0,
    min_square: float = 0.0,
    min_length: float = 0.0,
    quotient_offset: float = 0.0,
    min_result: float = -NO_LIMIT,
    unsigned: bool = False,
) -> Tensor:
    check(_PLANES, x, c, p=p, a=a)
    if p.dim() != 2 or p.shape != a.shape or p.shape[1] != x.shape[-1]:
        raise RuntimeError(
            f"stone::{_PLANES}: expected x [*batch, dim], p [planes, dim] and a [planes, dim], got "
            f"{checks.shape(x)}, {checks.shape(p)} and {checks.shape(a)}; p has a point and a a normal for each plane"
        )
    guards = {
        "min_denominator": min_denominator,
        "denominator_offset": denominator_offset,
        "min_gap": min_gap,
        "min_square": min_square,
        "quotient_offset": quotient_offset,
    }
    checks.options(_PLANES, **guards, min_length=min_length)
    with below_autocast(x.device.type):
        if not any(guards.values()):
            planes = planes_through(x, p, a, c, min_length)
            one = torch.ones_like(planes.offset)
            result = scores(x, planes.normals, planes.offset, one, c.reshape(()), 0.0)
        else:
            points, through, normals = wide(x, p, a)
            arguments = _arguments(points, through, normals, c, min_length=min_length, **guards)
            result = torch.asinh(arguments).to(x.dtype)
        result = result.abs() if unsigned else result
        return _at_least(result, min_result)


def _arguments(
    x: Tensor,
    p: Tensor,
    a: Tensor,
    c: Tensor,
    *,
    min_denominator: float,
    denominator_offset: float,
    min_gap: float,
    min_square: float,
    min_length: float,
    quotient_offset: float,
) -> Tensor:
    """What asinh is taken of, where guards act on single pairs.

    With `d = 1 - 2c<x, p> + c^2 ||x||^2 ||p||^2`, `w = d + e` its guarded value and `n` the numerator of the Möbius
    sum, `<-p + x, a> = <n, a> / w`, and `1 - c||-p + x||^2` is `((1 - c||x||^2) (1 - c||p||^2) d + e (2d + e)) / w^2`:
    nothing cancels there as it does in `1 - c||n||^2 / w^2`.
    """
    k = c.to(device=x.device, dtype=x.dtype).reshape(())
    of_x, of_p = k * x.square().sum(-1, keepdim=True), k * p.square().sum(-1)
    products = 2 * k * (x @ p.mT)
    numerators = (1 - of_p) * (x @ a.mT) - (p * a).sum(-1) * (1 + of_x - products)
    d = 1 + of_x * of_p - products
    extra = (min_denominator - d).clamp_min(0) + denominator_offset if min_denominator else denominator_offset
    w = d + extra
    gaps = ((1 - of_x) * (1 - of_p) * d + extra * (2 * d + extra)) / w.square()
    if min_square:
        gaps = gaps.minimum(1 - k * min_square)
    if min_gap:
        gaps = gaps.clamp_min(min_gap)
    length = a.norm(dim=-1)
    quotients = gaps * (length.clamp_min(min_length) if min_length else length)
    if quotient_offset:
        quotients = quotients + torch.where(quotients < 0, -quotient_offset, quotient_offset)
    return 2 * k.sqrt() * numerators / (w * quotients)


def _shifted(
    x: Tensor,
    z: Tensor,
    c: Tensor,
    shift: Tensor,
    *,
    min_alpha: float = 0.0,
    min_length: float = 0.0,
    min_result: float = -NO_LIMIT,
    unit: bool = False,
) -> Tensor:
    check(_HNNPP, x, c, z=z)
    fits = z.dim() == 2 and z.shape[1] == x.shape[-1]
    if not fits or shift.numel() not in (1, z.shape[0]) or not shift.is_floating_point():
        raise RuntimeError(
            f"stone::{_HNNPP}: expected x [*batch, dim], z [planes, dim] and shift [planes], got {checks.shape(x)}, "
            f"{checks.shape(z)} and {checks.shape(shift)}; z has a normal and shift a number for each plane"
        )
    checks.options(_HNNPP, min_alpha=min_alpha, min_length=min_length)
    with below_autocast(x.device.type):
        (normal,) = wide(z)
        angle = shift.reshape(-1).to(device=x.device, dtype=normal.dtype)
        root = c.to(device=x.device, dtype=normal.dtype).reshape(()).sqrt()
        if not unit:
            length = normal.norm(dim=-1, keepdim=True)
            normal = normal / (length.clamp_min(min_length) if min_length else length)
        normals, offset = planes_at(normal.mT, angle, root)
        one = torch.ones_like(normal[:, 0])
        result = scores(x, normals, offset.expand(z.shape[0]), one, c.reshape(()), min_alpha)
        return _at_least(result, min_result)


def _at_least(result: Tensor, least: float) -> Tensor:
    return result.clamp_min(least) if least > -NO_LIMIT else result


for _name, _schema, _function in (
    (
        _PLANES,
        "Tensor x, Tensor p, Tensor a, Tensor c, *, float min_denominator=0, float denominator_offset=0, "
        "float min_gap=0, float min_square=0, float min_length=0, float quotient_offset=0, "
        f"float min_result={-NO_LIMIT:.0e}, bool unsigned=False",
        _through,
    ),
    (
        _HNNPP,
        "Tensor x, Tensor z, Tensor c, Tensor shift, *, float min_alpha=0, float min_length=0, "
        f"float min_result={-NO_LIMIT:.0e}, bool unit=False",
        _shifted,
    ),
):
    LIBRARY.define(f"{_name}({_schema}) -> Tensor", tags=TAGS[:1])
    implement_composite(_name, _function)


def poincare_planes(
    x: Tensor, p: Tensor, a: Tensor, c: float | Tensor = 1.0, **guards: float | bool
) -> Tensor:
    """Signed distances, times `sqrt(c)`, of points of the Poincaré ball to hyperplanes through `p` with normals `a`.

    `asinh(2 sqrt(c) <w, a> / (||a|| (1 - c||w||^2)))` with `w = -p + x` by Möbius addition (Ganea et al. 2018), as
    matrix products.

    Args:
        x: points, `[*batch, dim]`, float32, float64, bfloat16 or float16.
        p, a: a point of the ball and a normal for each hyperplane, `[planes, dim]`, the dtype of `x`.
        c: curvature, a positive float, or a floating tensor with one element; a tensor is not inspected.
        guards: `min_denominator` and `denominator_offset` of the sum, `min_gap` the least `1 - c||w||^2`, `min_square`
            the least `||w||^2` in it, `min_length` the least `||a||`, `quotient_offset` added to the size of what is
            divided by, `min_result` the least result, `unsigned` for distances without a sign; none by default.

    Returns:
        `[*batch, planes]`, in the dtype of `x`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> poincare_planes(torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2), torch.tensor([[3.0, 0.0]]))
    tensor([[1.0986]])
    """
    return torch.ops.stone.poincare_planes.default(x, p, a, operand(_PLANES, x, c), **guards)


def hnnpp_planes(x: Tensor, z: Tensor, c: float | Tensor, shift: Tensor, **guards: float | bool) -> Tensor:
    """Signed distances, times `sqrt(c)`, of points of the Poincaré ball to hyperplanes with normals `z`.

    `asinh((2 sqrt(c) <x, z> / ||z|| cosh(shift) - (1 + c||x||^2) sinh(shift)) / (1 - c||x||^2))`: the hyperplanes are
    `shift / (2 sqrt(c))` from the origin (Shimizu et al. 2021, Hyperbolic Neural Networks++, equation 6).

    Args:
        x: points, `[*batch, dim]`, float32, float64, bfloat16 or float16.
        z: normals, `[planes, dim]`, the dtype of `x`.
        c: curvature, a positive float, or a floating tensor with one element; a tensor is not inspected.
        shift: `[planes]`, or one number for all.
        guards: `min_alpha` the least `1 - c||x||^2`, `min_length` the least `||z||`, `min_result` the least result,
            `unit` where `z` is not divided by its length; none by default.

    Returns:
        `[*batch, planes]`, in the dtype of `x`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> hnnpp_planes(torch.tensor([[0.5, 0.0]]), torch.tensor([[3.0, 0.0]]), 1.0, torch.zeros(1))
    tensor([[1.0986]])
    """
    return torch.ops.stone.hnnpp_planes.default(x, z, operand(_HNNPP, x, c), shift, **guards)
