"""The wrapped normal distribution: normal tangent vectors at the origin, carried to a point."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from stonefx.ops.curvature import positive

from . import lorentz
from .models import ModelName, model_named


class WrappedNormal(Distribution):
    """A normal distribution on hyperbolic space (Nagano et al. 2019).

    `v ~ N(0, diag(scale^2))` in the tangent space of the origin is transported to `loc` and followed:
    `x = expmap_loc(PT_{0 -> loc}(v))`. The density is one of the volume of the space,
    `log p(x) = log N(v; 0, scale) - (dim - 1) log(sinh(r) / r)` with `r = sqrt(c) ||v||`. Both are differentiable.

    Args:
        loc: points, `[*batch, 1 + dim]` (`[*batch, dim]` in the balls), the centroid of the distribution.
        scale: standard deviations of the coordinates of `v`, a positive number or a tensor broadcasting to
            `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.
        model: of the points, "lorentz", "poincare" or "klein".
        validate_args: as of `torch.distributions.Distribution`.

    Raises:
        TypeError: `loc` is not a tensor.
        ValueError: a scale or curvature that is not positive, or there is no such model.
        RuntimeError: shapes or dtypes that do not fit.

    >>> normal = WrappedNormal(torch.zeros(2, 3), 0.5, model="poincare")
    >>> normal
    WrappedNormal(loc: [2, 3], scale: [2, 3], model: poincare)
    >>> normal.sample((4,)).shape, normal.log_prob(torch.zeros(3)).shape
    (torch.Size([4, 2, 3]), torch.Size([2]))
    """

    arg_constraints: dict[str, constraints.Constraint] = {  # noqa: RUF012  (of the base class)
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        scale: float | Tensor,
        c: float | Tensor = 1.0,
        model: ModelName = "poincare",
        validate_args: bool | None = None,
    ) -> None:
        kind = model_named("WrappedNormal", model)
        if not isinstance(loc, Tensor) or loc.dim() == 0:
            given = "a tensor without a dimension" if isinstance(loc, Tensor) else type(loc).__name__
            raise TypeError(
                f"WrappedNormal: loc must be a tensor of points [*batch, coordinates], got {given}"
            )
        self.model, self.c = model, positive("WrappedNormal", loc, c)
        self.dim = loc.shape[-1] - kind.times
        scale = torch.as_tensor(scale, dtype=loc.dtype, device=loc.device)
        try:
            batch = torch.broadcast_shapes(loc.shape[:-1], scale.shape[:-1], self.c.shape[:-1])
            self.scale = scale.expand(*batch, self.dim)
        except RuntimeError as error:
            raise RuntimeError(
                f"WrappedNormal: scale must broadcast to [*batch, dim] = {[*loc.shape[:-1], self.dim]}, got "
                f"{list(scale.shape)} with loc {list(loc.shape)}"
            ) from error
        self.loc = loc.expand(*batch, loc.shape[-1])
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The centroid, about which the distribution is symmetric: `loc`."""
        return self.loc

    def expand(self, batch_shape: Any, _instance: WrappedNormal | None = None) -> WrappedNormal:
        """As of `torch.distributions.Distribution`."""
        batch = torch.Size(batch_shape)
        made: WrappedNormal = self._get_checked_instance(WrappedNormal, _instance)
        made.model, made.c, made.dim = self.model, self.c, self.dim
        made.loc = self.loc.expand(*batch, self.loc.shape[-1])
        made.scale = self.scale.expand(*batch, self.dim)
        Distribution.__init__(made, batch, self.event_shape, validate_args=False)
        made._validate_args = self._validate_args
        return made

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Points `[*sample_shape, *batch, coordinates]`, with gradients of `loc`, `scale` and `c`."""
        kind = model_named("WrappedNormal", self.model)
        shape = (*sample_shape, *self.batch_shape, self.dim)
        v = self.scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        loc = kind.to_lorentz(self.loc, self.c).expand(*shape[:-1], -1)
        tangent = torch.cat([torch.zeros_like(v[..., :1]), v], -1)
        carried = lorentz.parallel_transport(_origin(loc, self.c), loc, tangent, self.c)
        return kind.from_lorentz(lorentz.expmap(loc, carried, self.c), self.c)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density at points `[*sample_shape, *batch, coordinates]`, without the last dimension."""
        if self._validate_args:
            self._validate_sample(value)
        kind = model_named("WrappedNormal", self.model)
        loc, x = torch.broadcast_tensors(kind.to_lorentz(self.loc, self.c), kind.to_lorentz(value, self.c))
        velocity = lorentz.logmap(loc, x, self.c)
        v = lorentz.parallel_transport(loc, _origin(loc, self.c), velocity, self.c)[..., 1:]
        normal = -0.5 * (v / self.scale).square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
        r = self.c.to(v.dtype).sqrt() * torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        return normal.sum(-1) - (self.dim - 1) * log_sinh_ratio(r).squeeze(-1)

    def __repr__(self) -> str:
        return f"WrappedNormal(loc: {list(self.loc.shape)}, scale: {list(self.scale.shape)}, model: {self.model})"


def log_sinh_ratio(r: Tensor) -> Tensor:
    """`log(sinh(r) / r)` for `r >= 0`, to rounding: a series at 0, and no overflow far out.

    >>> log_sinh_ratio(torch.tensor([0.0, 1.0, 100.0]))
    tensor([ 0.0000,  0.1614, 94.7017])
    """
    near = r < 0.03
    squared = torch.where(near, r, 0.0).square()
    series = squared * (1 / 6 - squared * (1 / 180 - squared * (1 / 2835 - squared / 37800)))
    far = torch.where(near, 1.0, r)
    return torch.where(near, series, far + torch.log1p(-torch.exp(-2 * far)) - (2 * far).log())


def _origin(like: Tensor, c: Tensor) -> Tensor:
    return lorentz.project(torch.zeros_like(like), c)
