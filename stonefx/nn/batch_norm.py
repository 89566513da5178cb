"""Batch normalisation of points: by their centroid and their distances from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stonefx.geometry import lorentz
from stonefx.geometry.models import ModelName

from .arguments import number
from .hyperboloid import HyperboloidLayer


class HyperbolicBatchNorm(HyperboloidLayer):
    """Move a batch to a learned centroid and scale it to a learned variance.

    `y = expmap_b(PT_{0 -> b}(weight / sqrt(v + eps) * PT_{m -> 0}(logmap_m(x))))`: `m` is the centroid of the batch,
    `v` the mean of the squared distances from it, `b = expmap0(bias)`. With the centroid (the gyromidpoint of the
    ball) in the place of a Fréchet mean it is that of van Spengler et al. 2023 and of Bdeir et al. 2024. In evaluation
    `m` and `v` are the running ones, whose centroid and mean with each batch's are taken in training.

    Args:
        dim: of the space.
        c: curvature.
        eps: added to the variance.
        momentum: the share of a new batch in the running centroid and variance.
        model: of points in and out, "lorentz", "poincare" or "klein".
        learn_curvature: whether `c` is learned.
        device, dtype: of the parameters.

    Shapes: points `[*batch, 1 + dim]` (`[*batch, dim]` in the balls) to points of the same shape; all points are one
    batch.

    Raises:
        TypeError, ValueError, RuntimeError: as the other layers.
        ValueError: a batch without points, in training.

    >>> layer = HyperbolicBatchNorm(2)
    >>> points = lorentz.expmap0(torch.tensor([[0.0, 3.0, 1.0], [0.0, 1.0, 1.0]]))
    >>> float(lorentz.centroid(layer(points))[0])
    1.0
    """

    weight: nn.Parameter
    bias: nn.Parameter
    running_space: Tensor
    running_variance: Tensor

    def __init__(
        self,
        dim: int,
        c: float = 1.0,
        eps: float = 1e-5,
        momentum: float = 0.1,
        model: ModelName = "lorentz",
        learn_curvature: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, c, model, learn_curvature, device, dtype)
        self.eps = number("HyperbolicBatchNorm", "eps", eps)
        self.momentum = number("HyperbolicBatchNorm", "momentum", momentum)
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"HyperbolicBatchNorm: momentum must be from 0 to 1, got {momentum}")
        self.weight = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(self.dim, device=device, dtype=dtype))
        # The space part alone, which is a point of the hyperboloid of any curvature.
        self.register_buffer("running_space", torch.empty(self.dim, device=device, dtype=dtype))
        self.register_buffer("running_variance", torch.empty((), device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A weight of 1, a bias of 0; the running centroid is the origin, the running variance 1."""
        super().reset_parameters()
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        self.running_space.zero_()
        self.running_variance.fill_(1)

    def map_hyperboloid(self, x: Tensor, c: Tensor) -> Tensor:
        """See the class."""
        origin = _point(torch.zeros_like(self.running_space), c)
        if self.training:
            rows = x.reshape(-1, x.shape[-1])
            if not len(rows):
                raise ValueError(
                    "HyperbolicBatchNorm: expected points to take a centroid of, got a batch without any; skip it, or "
                    "call eval() first"
                )
            centre = lorentz.centroid(rows, None, c)
            distance = lorentz.dist(centre, rows, c)
            # In float16 a small variance has a gradient beyond its largest number.
            variance = (distance.float() if distance.dtype.itemsize < 4 else distance).square().mean()
            self._follow(centre.detach(), variance.detach(), c.detach())
        else:
            centre, variance = _point(self.running_space, c), self.running_variance
        scale = (self.weight * (variance + self.eps).rsqrt()).to(x.dtype)
        velocity = scale * lorentz.parallel_transport(centre, origin, lorentz.logmap(centre, x, c), c)
        goal = lorentz.expmap0(torch.cat([self.bias.new_zeros(1), self.bias]), c)
        return lorentz.expmap(goal, lorentz.parallel_transport(origin, goal, velocity, c), c)

    @torch.no_grad()
    def _follow(self, centre: Tensor, variance: Tensor, c: Tensor) -> None:
        before = _point(self.running_space, c)
        shares = centre.new_tensor([1 - self.momentum, self.momentum])
        self.running_space.copy_(lorentz.centroid(torch.stack([before, centre]), shares, c)[1:])
        self.running_variance.lerp_(variance.to(self.running_variance.dtype), self.momentum)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{super().extra_repr()}, eps={self.eps:g}, momentum={self.momentum:g}"


def _point(space: Tensor, c: Tensor) -> Tensor:
    return lorentz.project(torch.cat([space.new_zeros(1), space]), c)
