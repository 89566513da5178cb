"""What expmap0 and logmap0 share: `profile(u) / u * x`, with `u` the guarded, scaled norm of the row.

    n = max(sqrt(||x||^2 + square_offset), min_norm) + norm_offset
    u = max(sqrt(c) * n, min_scaled)
    y = profile(min(u, limit)) / u * x

Libraries that guard the norm in the argument of the profile and that in the denominator each in its own way have
`separate`: then the argument is such a norm with the guards `argument_*`, the denominator `u` has the others, and `y`
at the origin is what the quotient is there.

Gradients are those that autograd gives on this spelling: a clamp passes none outside its range, and the norm
has subgradient 0 at 0. With no guard the map is smooth at the origin: its derivative there is the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from .. import batching, checks
from ..library import NO_LIMIT, Operator
from ..sharding import Dimensions

Profile = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Guards:
    """The numbers that keep a spelling of the map finite; the defaults are no guard at all."""

    square_offset: float = 0.0
    min_norm: float = 0.0
    norm_offset: float = 0.0
    min_scaled: float = 0.0
    limit: float = NO_LIMIT
    nan_at_zero: bool = False
    separate: bool = False
    argument_square_offset: float = 0.0
    argument_min_norm: float = 0.0
    argument_norm_offset: float = 0.0
    argument_min_scaled: float = 0.0

    @property
    def argument(self) -> Guards:
        """The guards of the argument of the profile."""
        if not self.separate:
            return self
        return Guards(
            square_offset=self.argument_square_offset,
            min_norm=self.argument_min_norm,
            norm_offset=self.argument_norm_offset,
            min_scaled=self.argument_min_scaled,
        )


_FLAGS = ("nan_at_zero", "separate")


def arguments(operand: str, limit: str) -> str:
    """The schema of a radial map of `operand`, its limit named `limit`."""
    return (
        f"Tensor {operand}, Tensor c, *, float square_offset=0, float min_norm=0, float norm_offset=0, "
        f"float min_scaled=0, float {limit}={NO_LIMIT:.0e}, bool nan_at_zero=False, bool separate=False, "
        "float argument_square_offset=0, float argument_min_norm=0, float argument_norm_offset=0, "
        "float argument_min_scaled=0"
    )


def evaluate(profile: Profile, x: Tensor, c: Tensor, guards: Guards) -> Tensor:
    """The map, in plain torch; differentiable everywhere but where a guard switches."""
    return (factor(profile, x, c, guards) * x.to(batching.compute_dtype(x))).to(x.dtype)


def factor(profile: Profile, x: Tensor, c: Tensor, guards: Guards) -> Tensor:
    """The number `[*batch, 1]` that each row is multiplied by."""
    dtype = batching.compute_dtype(x)
    curvature = c.to(device=x.device, dtype=dtype)
    _, _, _, u = _norms(x.to(dtype), curvature, guards)
    if guards.separate:
        argument = _norms(x.to(dtype), curvature, guards.argument)[-1]
        return profile(_below(argument, guards.limit)) / u
    at_origin = _at_origin(u, curvature)
    safe = torch.where(at_origin, 1.0, u)
    return torch.where(at_origin, _origin(guards), profile(_below(safe, guards.limit)) / safe)


def gradients(
    profile: Profile, slope: Profile, grad: Tensor, x: Tensor, c: Tensor, guards: Guards
) -> tuple[Tensor, Tensor]:
    """Gradient of the map for `x`, and for the curvature of each row: `[*batch, dim]` and `[*batch, 1]`."""
    dtype = batching.compute_dtype(x)
    g, row = grad.to(dtype), x.to(dtype)
    scale, along, of_curvature = derivatives(profile, slope, x, c, guards)
    inner = (g * row).sum(-1, keepdim=True)
    return (scale * g + along * inner * row).to(x.dtype), of_curvature * inner


def derivatives(
    profile: Profile, slope: Profile, x: Tensor, c: Tensor, guards: Guards
) -> tuple[Tensor, Tensor, Tensor]:
    """The factor, its gradient for `x` as a multiple of `x`, and its derivative by `c`: `[*batch, 1]` each."""
    dtype = batching.compute_dtype(x)
    row, curvature = x.to(dtype), c.to(device=x.device, dtype=dtype)
    if guards.separate:
        return _separate_derivatives(profile, slope, row, curvature, guards)
    root, n0, n, u = _norms(row, curvature, guards)
    at_origin = _at_origin(u, curvature)
    safe = torch.where(at_origin, 1.0, u)
    within = safe <= guards.limit
    value = profile(_below(safe, guards.limit)) / safe
    # d(value)/du, passed on only where neither minimum holds
    derivative = (torch.where(within, slope(_below(safe, guards.limit)), 0.0) - value) / safe
    derivative = torch.where(at_origin | (root * n < guards.min_scaled), 0.0, derivative)
    value = torch.where(at_origin, _origin(guards), value)
    passes = (n0 >= guards.min_norm) & (n0 > 0)
    toward_row = torch.where(passes, derivative * root / torch.where(passes, n0, 1.0), 0.0)
    return value, toward_row, derivative * n / (2 * torch.where(at_origin, 1.0, root))


def _separate_derivatives(
    profile: Profile, slope: Profile, row: Tensor, c: Tensor, guards: Guards
) -> tuple[Tensor, Tensor, Tensor]:
    u, along_u, curvature_u = _norm_slopes(row, c, guards)
    w, along_w, curvature_w = _norm_slopes(row, c, guards.argument)
    value = profile(_below(w, guards.limit)) / u
    rate = torch.where(w <= guards.limit, slope(_below(w, guards.limit)), 0.0)
    return value, (rate * along_w - value * along_u) / u, (rate * curvature_w - value * curvature_u) / u


def _norm_slopes(row: Tensor, c: Tensor, guards: Guards) -> tuple[Tensor, Tensor, Tensor]:
    """A guarded norm, its gradient for the row as a multiple of the row, and its derivative by `c`."""
    root, n0, n, u = _norms(row, c, guards)
    free = root * n >= guards.min_scaled
    passes = (n0 >= guards.min_norm) & (n0 > 0) & free
    along = torch.where(passes, root / torch.where(passes, n0, 1.0), 0.0)
    return u, along, torch.where(free, n / (2 * root), 0.0)


def _norms(row: Tensor, c: Tensor, guards: Guards) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n0 = torch.linalg.vector_norm(row, dim=-1, keepdim=True)
    if guards.square_offset:
        n0 = ((row * row).sum(-1, keepdim=True) + guards.square_offset).sqrt()
    n = (n0.clamp_min(guards.min_norm) if guards.min_norm else n0) + guards.norm_offset
    root = c.sqrt().expand_as(n)
    u = root * n
    return root, n0, n, u.clamp_min(guards.min_scaled) if guards.min_scaled else u


def _at_origin(u: Tensor, c: Tensor) -> Tensor:
    return (u == 0) & (c > 0)


def _origin(guards: Guards) -> float:
    return float("nan") if guards.nan_at_zero else 1.0


def _below(u: Tensor, limit: float) -> Tensor:
    return u.clamp_max(limit) if limit < NO_LIMIT else u


def operator(name: str, operand: str, limit_name: str, profile: Profile, slope: Profile) -> Operator:
    """Assemble the operator of one radial map.

    Args:
        name: `expmap0` or `logmap0`.
        operand: name of the mapped rows in the schema.
        limit_name: name of the guard that bounds the argument of the profile.
        profile: `tanh` or `artanh`.
        slope: its derivative.
    """

    def read(options: dict[str, Any]) -> Guards:
        limit = options.get(limit_name, NO_LIMIT)
        checks.options(name, **{k: v for k, v in options.items() if k not in _FLAGS})
        known = {f.name for f in fields(Guards)} - {"limit"}
        return Guards(limit=min(limit, NO_LIMIT), **{k: v for k, v in options.items() if k in known})

    def check(x: Tensor, c: Tensor, options: dict[str, Any]) -> None:
        checks.rows(name, operand, x)
        checks.curvature(name, c, x.shape[:-1], x.device)
        read(options)

    def fake(x: Tensor, c: Tensor, **options: Any) -> Tensor:
        check(x, c, options)
        return x.new_empty(x.shape)

    def backward_fake(grad: Tensor, x: Tensor, c: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        check(x, c, options)
        checks.gradient(f"{name}_backward", f"grad and {operand}", grad, x, x.shape)
        return x.new_empty(x.shape), x.new_empty((*x.shape[:-1], 1), dtype=batching.compute_dtype(x))

    def reference(x: Tensor, c: Tensor, **options: Any) -> Tensor:
        return evaluate(profile, x, c, read(options))

    def backward_reference(grad: Tensor, x: Tensor, c: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        return gradients(profile, slope, grad, x, c, read(options))

    def vmap(op: Any, info: Any, in_dims: Any, x: Tensor, c: Tensor, **options: Any) -> tuple[Tensor, int]:
        x, c = _batched(info, in_dims, x, c)
        return op(x, c, **options), 0

    def backward_vmap(
        op: Any, info: Any, in_dims: Any, grad: Tensor, x: Tensor, c: Tensor, **options: Any
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        grad = batching.spread(grad, in_dims[0], info.batch_size)
        x, c = _batched(info, in_dims[1:3], x, c)
        return op(grad, x, c, **options), (0, 0)

    shared = arguments(operand, limit_name)
    return Operator(
        name=name,
        arguments=shared,
        backward_arguments="Tensor grad, " + shared,
        backward_results="(Tensor, Tensor)",
        reference=reference,
        backward_reference=backward_reference,
        fake=fake,
        backward_fake=backward_fake,
        vmap=vmap,
        backward_vmap=backward_vmap,
        dimensions=Dimensions(operands=("*d", "*1"), result="*d"),
    )


def _batched(info: Any, in_dims: Any, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    x = batching.spread(x, in_dims[0], info.batch_size)
    return x, c if in_dims[1] is None else batching.pad(c.movedim(in_dims[1], 0), x.dim() - 1)
