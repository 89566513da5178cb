"""Layers that work on the space part of a point of the hyperboloid and let the time follow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from stonefx import ops
from stonefx.geometry import lorentz
from stonefx.geometry.models import ModelName

from .arguments import number
from .hyperboloid import HyperboloidLayer


class HyperbolicLayerNorm(HyperboloidLayer):
    """Layer normalisation of the space part: `s -> (s - mean s) / sqrt(var s + eps) * weight + bias`.

    The time follows, `t = sqrt(||s||^2 + 1/c)`: the layer of Hypformer (Yang et al. 2024), whose results lie in a
    bounded part of the space.

    Args:
        dim: of the space.
        c: curvature.
        eps: added to the variance.
        bias: whether to add one.
        model: of points in and out, "lorentz", "poincare" or "klein".
        learn_curvature: whether `c` is learned.
        device, dtype: of the parameters.

    Shapes: points `[*batch, 1 + dim]` (`[*batch, dim]` in the balls) to points of the same shape.

    Raises:
        TypeError, ValueError, RuntimeError: as the other layers.

    >>> HyperbolicLayerNorm(8)(ops.add_time(torch.ones(3, 8))).shape
    torch.Size([3, 9])
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        c: float = 1.0,
        eps: float = 1e-5,
        bias: bool = True,
        model: ModelName = "lorentz",
        learn_curvature: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, c, model, learn_curvature, device, dtype)
        self.eps = number("HyperbolicLayerNorm", "eps", eps)
        self.weight = nn.Parameter(torch.empty(self.dim, device=device, dtype=dtype))
        self.register_bias(self.dim, bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A weight of 1 and a bias of 0, as of `nn.LayerNorm`."""
        super().reset_parameters()
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def map_hyperboloid(self, x: Tensor, c: Tensor) -> Tensor:
        """See the class."""
        return ops.add_time(
            functional.layer_norm(x[..., 1:], (self.dim,), self.weight, self.bias, self.eps), c
        )


class HyperbolicActivation(HyperboloidLayer):
    """A function of the space part; the time follows: `(t, s) -> (sqrt(||f(s)||^2 + 1/c), f(s))`.

    As of Hypformer (Yang et al. 2024) and of fully hyperbolic convolutional networks (Bdeir et al. 2024).

    Args:
        dim: of the space.
        function: of a tensor `[*batch, dim]`, such as `torch.relu` or an `nn.Module`; the shape stays.
        c: curvature.
        model: of points in and out, "lorentz", "poincare" or "klein".
        learn_curvature: whether `c` is learned.
        device, dtype: of the curvature.

    Shapes: points `[*batch, 1 + dim]` (`[*batch, dim]` in the balls) to points of the same shape.

    Raises:
        TypeError, ValueError, RuntimeError: as the other layers.

    >>> HyperbolicActivation(2)(torch.tensor([3.0, 2.0, -2.0]))
    tensor([2.2361, 2.0000, 0.0000])
    """

    def __init__(
        self,
        dim: int,
        function: Callable[[Tensor], Tensor] = torch.relu,
        c: float = 1.0,
        model: ModelName = "lorentz",
        learn_curvature: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, c, model, learn_curvature, device, dtype)
        if not callable(function):
            raise TypeError(
                f"HyperbolicActivation: function must be callable, got {type(function).__name__}; give torch.relu or "
                "an nn.Module"
            )
        self.function = function
        self.reset_parameters()

    def map_hyperboloid(self, x: Tensor, c: Tensor) -> Tensor:
        """See the class."""
        return ops.add_time(self.function(x[..., 1:]), c)


class HyperbolicResidual(HyperboloidLayer):
    """The sum of two points: their centroid with weights 1 and `weight`, as in LResNet (He et al. 2025).

    Args:
        dim: of the space.
        c: curvature.
        weight: of the second point, at first; it is learned, and held at 0 or more.
        model: of points in and out, "lorentz", "poincare" or "klein".
        learn_curvature: whether `c` is learned.
        device, dtype: of the parameters.

    Shapes: two points `[*batch, 1 + dim]` (`[*batch, dim]` in the balls) to one.

    Raises:
        TypeError, ValueError, RuntimeError: as the other layers.

    >>> HyperbolicResidual(1)(torch.tensor([1.25, 0.75]), torch.tensor([1.25, -0.75]))
    tensor([1., 0.], grad_fn=<ToCopyBackward0>)
    """

    weight: nn.Parameter

    def __init__(
        self,
        dim: int,
        c: float = 1.0,
        weight: float = 1.0,
        model: ModelName = "lorentz",
        learn_curvature: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, c, model, learn_curvature, device, dtype)
        self.initial_weight = number("HyperbolicResidual", "weight", weight)
        if self.initial_weight < 0:
            raise ValueError(f"HyperbolicResidual: weight must be 0 or more, got {weight}")
        self.weight = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight given to the constructor."""
        super().reset_parameters()
        nn.init.constant_(self.weight, self.initial_weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """See the class."""
        return self.run(x, y)

    def map_hyperboloid(self, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        """See the class."""
        x, y = torch.broadcast_tensors(x, y)
        weights = torch.cat([torch.ones_like(self.weight), self.weight.clamp_min(0)])
        return lorentz.centroid(torch.stack([x, y], -2), weights, c)
