"""`stone::poincare_mlr` and `stone::hnnpp_mlr`: multinomial logistic regression in the Poincaré ball.

Both are one product with the normals and `stone::poincare_hyperplanes`: the Möbius sum of every point with every
hyperplane cancels from the formula, so no `[*batch, classes, dim]` temporary is made.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import batching, checks
from ..curvature import operand
from ..library import LIBRARY, TAGS, implement_composite
from .poincare_hyperplanes import poincare_hyperplanes


def wide(*tensors: Tensor) -> list[Tensor]:
    """Tensors in the dtype that the operators compute in."""
    return [t.to(batching.compute_dtype(t)) for t in tensors]


def scores(x: Tensor, normals: Tensor, offset: Tensor, scale: Tensor, c: Tensor, min_alpha: float) -> Tensor:
    """`scale asinh(...)` of points and planes; `normals` are `[dim, planes]`.

    Half types multiply in float32, as the epilogue computes.
    """
    rows = x.to(normals.dtype)
    return poincare_hyperplanes(rows @ normals, rows, offset, scale, c, min_alpha=min_alpha).to(x.dtype)


def check(name: str, x: Tensor, c: Tensor, **parameters: Tensor) -> None:
    """Points, parameters like them, and one curvature.

    Raises:
        RuntimeError: they are something else; the message says what.
    """
    checks.rows(name, "x", x)
    for label, parameter in parameters.items():
        checks.same_dtype(name, f"x and {label}", x, parameter)
        checks.same_device(name, f"x and {label}", x, parameter)
    checks.curvature(name, c, (), x.device)


def _mlr(x: Tensor, p: Tensor, a: Tensor, c: Tensor, *, min_alpha: float = 0.0) -> Tensor:
    name = "poincare_mlr"
    check(name, x, c, p=p, a=a)
    if p.dim() != 2 or p.shape != a.shape or p.shape[1] != x.shape[-1]:
        raise RuntimeError(
            f"stone::{name}: expected x [*batch, dim], p [classes, dim] and a [classes, dim], got "
            f"{checks.shape(x)}, {checks.shape(p)} and {checks.shape(a)}; p has a point and a a normal a class"
        )
    planes = planes_through(x, p, a, c)
    scale = 2 * planes.length / (planes.alpha * planes.root)
    return scores(x, planes.normals, planes.offset, scale, c, min_alpha)


class Planes(NamedTuple):
    """Hyperplanes through points of the ball, as `poincare_hyperplanes` has them, in the dtype that it computes in."""

    normals: Tensor
    offset: Tensor
    length: Tensor
    alpha: Tensor
    root: Tensor


def planes_through(x: Tensor, p: Tensor, a: Tensor, c: Tensor, min_length: float | None = None) -> Planes:
    """Hyperplanes through `p` with normals `a`, whose lengths are at least `min_length`, by default the least float."""
    point, normal = wide(p, a)
    k = c.to(device=x.device, dtype=point.dtype).reshape(())
    alpha = 1 - k * point.square().sum(-1)
    least = torch.finfo(normal.dtype).tiny if min_length is None else min_length
    length = normal.norm(dim=-1).clamp_min(least) if least else normal.norm(dim=-1)
    inner = (point * normal).sum(-1)
    common = 2 * k.sqrt() / (length * alpha)
    normals = common[:, None] * (alpha[:, None] * normal + (2 * k * inner)[:, None] * point)
    return Planes(normals.t(), common * inner, length, alpha, k.sqrt())


def distances_to_planes(x: Tensor, p: Tensor, a: Tensor, c: Tensor, *, min_alpha: float = 0.0) -> Tensor:
    """Signed distances of points of the ball to hyperplanes through `p` with normals `a`, as one matrix product.

    `asinh(2 sqrt(c) <-p + x, a> / (||a|| (1 - c||-p + x||^2))) / sqrt(c)` with Möbius addition: the logits of
    `poincare_mlr` over `lambda_p ||a||`.

    Args:
        x: points, `[*batch, dim]`.
        p, a: a point of the ball and a normal for each hyperplane, `[planes, dim]`, the dtype of `x`.
        c: curvature, a floating tensor with one element; it is not inspected.
        min_alpha: the least `1 - c||x||^2`; 0 is no guard.

    >>> normal = torch.tensor([[3.0, 0.0]])
    >>> distances_to_planes(torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2), normal, torch.tensor(1.0))
    tensor([[1.0986]])
    """
    planes = planes_through(x, p, a, c)
    scale = planes.root.reciprocal().expand(p.shape[0])
    return scores(x, planes.normals, planes.offset, scale, c.reshape(()), min_alpha)


def _hnnpp(x: Tensor, z: Tensor, r: Tensor, c: Tensor, *, min_alpha: float = 0.0) -> Tensor:
    name = "hnnpp_mlr"
    check(name, x, c, z=z, r=r)
    if z.dim() != 2 or r.dim() != 1 or z.shape[0] != x.shape[-1] or z.shape[1] != r.shape[0]:
        raise RuntimeError(
            f"stone::{name}: expected x [*batch, dim], z [dim, classes] and r [classes], got "
            f"{checks.shape(x)}, {checks.shape(z)} and {checks.shape(r)}; z is the transpose of nn.Linear.weight"
        )
    normal, shift = wide(z, r)
    root = c.to(device=x.device, dtype=normal.dtype).reshape(()).sqrt()
    length = normal.norm(dim=0).clamp_min(torch.finfo(normal.dtype).tiny)
    normals, offset = planes_at(normal / length, 2 * root * shift, root)
    return scores(x, normals, offset, 2 * length / root, c, min_alpha)


def planes_at(units: Tensor, angle: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Hyperplanes `angle / (2 sqrt(c))` from the origin with unit normals `[dim, planes]`, as normals and offset."""
    return units * (2 * root * angle.cosh()), angle.sinh()


for _name, _schema, _function in (
    ("poincare_mlr", "Tensor x, Tensor p, Tensor a, Tensor c, *, float min_alpha=0", _mlr),
    ("hnnpp_mlr", "Tensor x, Tensor z, Tensor r, Tensor c, *, float min_alpha=0", _hnnpp),
):
    LIBRARY.define(f"{_name}({_schema}) -> Tensor", tags=TAGS[:1])
    implement_composite(_name, _function)


def poincare_mlr(
    x: Tensor, p: Tensor, a: Tensor, c: float | Tensor = 1.0, *, min_alpha: float = 0.0
) -> Tensor:
    """Logits of points of the Poincaré ball for classes given by hyperplanes through `p` with normals `a`.

    `lambda_p ||a|| / sqrt(c) * asinh(2 sqrt(c) <-p + x, a> / (||a|| (1 - c||-p + x||^2)))` with Möbius addition and
    `lambda_p = 2 / (1 - c||p||^2)` (Ganea et al. 2018, equation 25), as one matrix product.

    Args:
        x: points, `[*batch, dim]`, float32, float64, bfloat16 or float16.
        p: a point of the ball for each class, `[classes, dim]`, the dtype of `x`.
        a: a normal for each class, `[classes, dim]`, the dtype of `x`.
        c: curvature, a positive float, or a floating tensor with one element; a tensor is not inspected.
        min_alpha: the least `1 - c||x||^2`; 0 is no guard.

    Returns:
        `[*batch, classes]`, in the dtype of `x`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> poincare_mlr(torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([[2.1972]])
    """
    return torch.ops.stone.poincare_mlr.default(x, p, a, operand("poincare_mlr", x, c), min_alpha=min_alpha)


def hnnpp_mlr(x: Tensor, z: Tensor, r: Tensor, c: float | Tensor = 1.0, *, min_alpha: float = 0.0) -> Tensor:
    """Logits of points of the Poincaré ball for hyperplanes with normals `z` at signed distances `r` of the origin.

    `2 ||z|| / sqrt(c) * asinh((2 sqrt(c) <x, z / ||z||> cosh(2 sqrt(c) r) - (1 + c||x||^2) sinh(2 sqrt(c) r)) /
    (1 - c||x||^2))` (Shimizu et al. 2021, Hyperbolic Neural Networks++, equation 6).

    Args:
        x: points, `[*batch, dim]`, float32, float64, bfloat16 or float16.
        z: normals, `[dim, classes]`, the dtype of `x`.
        r: distances, `[classes]`, the dtype of `x`.
        c: curvature, a positive float, or a floating tensor with one element; a tensor is not inspected.
        min_alpha: the least `1 - c||x||^2`; 0 is no guard.

    Returns:
        `[*batch, classes]`, in the dtype of `x`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> hnnpp_mlr(torch.tensor([[0.5, 0.0]]), torch.tensor([[1.0], [0.0]]), torch.zeros(1))
    tensor([[2.1972]])
    """
    return torch.ops.stone.hnnpp_mlr.default(x, z, r, operand("hnnpp_mlr", x, c), min_alpha=min_alpha)
