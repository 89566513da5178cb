"""What the distance matrices share: checks, shapes, gradients and the formula over pairs of the Poincaré ball.

    z = sqrt(c ||x - y||^2 / (alpha beta)),  alpha = max(1 - c||x||^2, min_alpha),  beta likewise
    d = 2 / sqrt(c) * min(asinh(z), artanh(atanh_limit))

which is `2 / sqrt(c) * artanh(sqrt(c) ||-x + y||)` with Möbius addition, without its cancellation. Its denominator is
`d = alpha beta + c ||x - y||^2`; where guards make it `w = max(d, min_denominator) + denominator_offset`, the norm is
`sqrt(c ||x - y||^2 d) / w`. The distance has a cusp at coincident points: its gradient there is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import batching, checks
from ..library import NO_LIMIT, Function, Operator
from ..sharding import Dimensions


@dataclass(frozen=True)
class Sides:
    """Points of the ball on either side of the pairs, with `alpha = 1 - c||x||^2` of each and whether it varies."""

    x: Tensor
    y: Tensor
    c: Tensor
    alpha: Tensor
    beta: Tensor


class Guards(NamedTuple):
    """What libraries do to the terms of a distance; the defaults are none."""

    atanh_limit: float = NO_LIMIT
    min_denominator: float = 0.0
    denominator_offset: float = 0.0


class Pairs(NamedTuple):
    """Of all pairs, `[*batch, n, m]`: `c ||x - y||^2`, `alpha beta`, the denominator and what guards add to it."""

    apart: Tensor
    gaps: Tensor
    denominator: Tensor
    extra: Tensor

    @property
    def odds(self) -> Tensor:
        """`z^2 = u^2 / (1 - u^2)` at `u = sqrt(c) ||-x + y||`."""
        return self.apart / (self.gaps + self.extra * (2 + self.extra / self.denominator))


def pairs(sides: Sides, squares: Tensor, guards: Guards) -> Pairs:
    """The terms of the pairs, given `||x - y||^2`."""
    apart, gaps = sides.c * squares, sides.alpha * sides.beta.mT
    d = gaps + apart
    clamped = d.clamp_min(guards.min_denominator) if guards.min_denominator else d
    return Pairs(apart, gaps, d, clamped - d + guards.denominator_offset)


def squared_differences(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """`x - y` of all pairs, `[*batch, n, m, dim]`, and its squared norms, `[*batch, n, m]`."""
    difference = x.unsqueeze(-2) - y.unsqueeze(-3)
    return difference, difference.square().sum(-1)


def squares_of_products(x: Tensor, y: Tensor, product: Tensor) -> Tensor:
    """`||x - y||^2` of all pairs as `||x||^2 + ||y||^2 - 2 <x, y>`, at least 0, `[*batch, n, m]`.

    Its error is that of the terms, a few roundings of `||x||^2 + ||y||^2`, however near the points are.
    """
    norms = x.square().sum(-1, keepdim=True) + y.square().sum(-1, keepdim=True).mT
    return (norms - 2 * product).clamp_min(0)


def alphas(x: Tensor, c: Tensor, min_alpha: float) -> Tensor:
    """`max(1 - c||x||^2, min_alpha)` of each point, `[*batch, n, 1]`."""
    alpha = 1 - c * x.square().sum(-1, keepdim=True)
    return alpha.clamp_min(min_alpha) if min_alpha else alpha


NO_GUARDS = Guards()


def ball_distances(sides: Sides, guards: Guards = NO_GUARDS, squares: Tensor | None = None) -> Tensor:
    """Distances of all pairs of points of the ball, `[*batch, n, m]`; differentiable, with gradient 0 at distance 0.

    `squares` are the squared distances of the pairs, where they are known.
    """
    if squares is None:
        _, squares = squared_differences(sides.x, sides.y)
    q = pairs(sides, squares, guards).odds
    apart = squares != 0
    half = torch.where(apart, torch.asinh(torch.where(apart, q, 1.0).sqrt()), 0.0)
    if guards.atanh_limit < 1:
        # The odds are negative where one of the points is beyond the boundary.
        half = torch.where(q < 0, math.inf, half).clamp_max(math.atanh(guards.atanh_limit))
    return 2 / sides.c.sqrt() * half


def widen(x: Tensor, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The operands in the dtype that the references compute in, `c` to broadcast against `[*batch, n, m]`."""
    dtype = batching.compute_dtype(x)
    return x.to(dtype), y.to(dtype), c.to(device=x.device, dtype=dtype)


def ball_sides(x: Tensor, y: Tensor, c: Tensor, min_alpha: float) -> Sides:
    """Points of the ball in the dtype that the references compute in."""
    u, v, k = widen(x, y, c)
    return Sides(u, v, k, alphas(u, k, min_alpha), alphas(v, k, min_alpha))


def check_operands(name: str, x: Tensor, y: Tensor, c: Tensor, **guards: float) -> tuple[int, ...]:
    """The common batch; RuntimeError for points, a curvature or guards that do not fit."""
    checks.points(name, "x", x)
    checks.points(name, "y", y)
    checks.same_dtype(name, "x and y", x, y)
    checks.same_device(name, "x and y", x, y)
    batch = checks.pair_batch(name, x, y)
    checks.curvature(name, c, (*batch, 1), x.device)
    checks.options(name, **guards)
    return batch


def operator(
    name: str,
    guards: tuple[str, ...],
    arguments: str,
    reference: Function,
    gradients: Function,
    check_points: Callable[[Tensor], None] | None = None,
) -> Operator:
    """Assemble the operator of one model.

    Args:
        name: such as `poincare_cdist`.
        guards: the keyword arguments that must not be negative.
        arguments: the schema between the parentheses.
        reference: `(x, y, c, **options) -> distances`, differentiable.
        gradients: `(grad, x, y, c, **options)` to gradients of `x` and `y` as if neither broadcast, and of one
            curvature a matrix.
        check_points: raises for points that are none of the model.
    """

    def check(x: Tensor, y: Tensor, c: Tensor, options: dict[str, Any]) -> tuple[int, ...]:
        batch = check_operands(
            name, x, y, c, **{guard: options[guard] for guard in guards if guard in options}
        )
        if check_points is not None:
            check_points(x)
        return batch

    def fake(x: Tensor, y: Tensor, c: Tensor, **options: Any) -> Tensor:
        return x.new_empty((*check(x, y, c, options), x.shape[-2], y.shape[-2]))

    def backward_fake(grad: Tensor, x: Tensor, y: Tensor, c: Tensor, **options: Any) -> tuple[Tensor, ...]:
        batch = check(x, y, c, options)
        checks.gradient(f"{name}_backward", "grad and x", grad, x, (*batch, x.shape[-2], y.shape[-2]))
        grad_c = x.new_empty((*batch, 1, 1), dtype=batching.compute_dtype(x))
        return x.new_empty((*batch, *x.shape[-2:])), x.new_empty((*batch, *y.shape[-2:])), grad_c

    def vmap(
        op: Any, info: Any, in_dims: Any, x: Tensor, y: Tensor, c: Tensor, **options: Any
    ) -> tuple[Tensor, int]:
        return op(*_batched(in_dims, x, y, c), **options), 0

    def backward_vmap(
        op: Any, info: Any, in_dims: Any, grad: Tensor, x: Tensor, y: Tensor, c: Tensor, **options: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        grad = batching.spread(grad, in_dims[0], info.batch_size)
        x, y, c = _batched(in_dims[1:], x, y, c)
        x = x.expand(*grad.shape[:-2], *x.shape[-2:])
        return op(grad, x, y, c, **options), (0, 0, 0)

    return Operator(
        name=name,
        arguments=arguments,
        backward_arguments="Tensor grad, " + arguments,
        backward_results="(Tensor, Tensor, Tensor)",
        reference=reference,
        backward_reference=gradients,
        fake=fake,
        backward_fake=backward_fake,
        vmap=vmap,
        backward_vmap=backward_vmap,
        dimensions=Dimensions(operands=("*nd", "*md", "*11"), result="*nm", free="nm"),
    )


def _batched(in_dims: Any, x: Tensor, y: Tensor, c: Tensor) -> list[Tensor]:
    """Align the operands; where only `c` is mapped, `x` takes its mapped dimension too."""
    x_dim, y_dim, c_dim = in_dims[:3]
    if x_dim is None and y_dim is None and c_dim is not None:
        x, x_dim = x.expand(c.shape[c_dim], *x.shape), 0
    return batching.align((x, y, c), (x_dim, y_dim, c_dim))


def ball_gradients(
    grad: Tensor, sides: Sides, moves: tuple[Tensor, Tensor], guards: Guards = NO_GUARDS
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `ball_distances` for the points and for `c` at fixed points, given the gradient of the result.

    With `r = z sqrt(1 + z^2)`, `d` the denominator and `w = d + e` it after its guards, the half distance changes with
    `log ||x - y||^2` by half of `r (d alpha beta + e (d + c ||x - y||^2)) / (d w)`, with `-log(alpha beta)` by half of
    `r alpha beta (d - e) / (d w)`; where the denominator is clamped, so that `w` is a constant, by halves of
    `r (d + c ||x - y||^2) / d` and `-r alpha beta / d`.

    `moves` tells for each point, `[*batch, n, 1]` and `[*batch, m, 1]`, whether its alpha is `1 - c||x||^2`.
    """
    x, y, c, alpha, beta = sides.x, sides.y, sides.c, sides.alpha, sides.beta
    difference, squares = squared_differences(x, y)
    apart = squares != 0
    terms = pairs(sides, squares, guards)
    q, d, gaps = terms.odds, terms.denominator, terms.gaps
    z = torch.where(apart, q, 1.0).sqrt()
    half = torch.where(apart, torch.asinh(z), 0.0)
    limit = guards.atanh_limit
    half = torch.where(q < 0, math.inf, half) if limit < 1 else half
    within = half <= math.atanh(limit) if limit < 1 else torch.ones_like(apart)
    clamped = d < guards.min_denominator
    r = torch.where(apart & within, z * torch.sqrt(1 + q), 0.0) / d
    free = r / (d + terms.extra)
    of_squares = torch.where(
        clamped, r * (d + terms.apart), free * (d * gaps + terms.extra * (d + terms.apart))
    )
    of_gaps = torch.where(clamped, -r * gaps, free * gaps * (d - terms.extra))
    weight = torch.where(apart, 2 * grad * of_squares / (c.sqrt() * torch.where(apart, squares, 1.0)), 0.0)
    along = 2 * c.sqrt() * grad * of_gaps
    along_x, along_y = (move.to(x.dtype) for move in moves)
    grad_x = (weight.unsqueeze(-1) * difference).sum(-2) + (along * along_x / alpha).sum(-1, keepdim=True) * x
    grad_y = (along * (along_y / beta).mT).sum(-2).unsqueeze(-1) * y
    grad_y = grad_y - (weight.unsqueeze(-1) * difference).sum(-3)
    excess_x = along_x * c * x.square().sum(-1, keepdim=True) / alpha
    excess_y = along_y * c * y.square().sum(-1, keepdim=True) / beta
    capped = half.clamp_max(math.atanh(limit)) if limit < 1 else half
    of_c = grad * (of_gaps * (excess_x + excess_y.mT) + of_squares - capped) / (c * c.sqrt())
    return grad_x, grad_y, of_c.sum((-2, -1), keepdim=True)
