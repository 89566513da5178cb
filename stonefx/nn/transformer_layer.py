"""A block of a transformer over points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from stonefx.geometry.models import ModelName

from .arguments import size
from .attention import HyperbolicAttention
from .hyperboloid import HyperboloidLayer
from .lorentz_linear import LorentzLinear
from .space_layers import HyperbolicActivation, HyperbolicLayerNorm, HyperbolicResidual


class HyperbolicTransformerLayer(HyperboloidLayer):
    """Attention and two linear layers, each behind a layer norm and beside the identity.

    `x <- residual(x, attention(norm(x)))`, `x <- residual(x, linear(activation(linear(norm(x)))))`, with
    `HyperbolicAttention`, `HyperbolicLayerNorm`, `HyperbolicResidual`, `HyperbolicActivation` and `LorentzLinear` of
    one curvature. Points of a ball go to the hyperboloid once, and back once.

    Args:
        dim: of the space, a multiple of `num_heads`.
        num_heads: of the attention.
        feed_forward: dimensions between the two linear layers; four times `dim` by default.
        c: curvature.
        activation: between the two linear layers.
        bias, dropout, score: of the attention; `bias` of the linear layers and norms too.
        model: of points in and out, "lorentz", "poincare" or "klein".
        learn_curvature: whether `c` is learned.
        device, dtype: of the parameters.

    Shapes: points `[*batch, n, 1 + dim]` (`[*batch, n, dim]` in the balls) to points of the same shape.

    Raises:
        TypeError, ValueError, RuntimeError: as the layers it is made of.

    >>> from stonefx import ops
    >>> HyperbolicTransformerLayer(8, num_heads=2)(ops.add_time(torch.zeros(3, 5, 8))).shape
    torch.Size([3, 5, 9])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        feed_forward: int | None = None,
        c: float = 1.0,
        activation: Callable[[Tensor], Tensor] = nn.functional.gelu,
        bias: bool = True,
        dropout: float = 0.0,
        score: Literal["squared", "distance"] = "squared",
        model: ModelName = "lorentz",
        learn_curvature: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, c, model, learn_curvature, device, dtype)
        wide = 4 * self.dim if feed_forward is None else feed_forward
        wide = size("HyperbolicTransformerLayer", "feed_forward", wide)
        self.attention_norm = HyperbolicLayerNorm(self.dim, c, bias=bias, device=device, dtype=dtype)
        self.attention = HyperbolicAttention(
            self.dim, num_heads, c, bias, dropout, score, device=device, dtype=dtype
        )
        self.attention_residual = HyperbolicResidual(self.dim, c, device=device, dtype=dtype)
        self.feed_forward_norm = HyperbolicLayerNorm(self.dim, c, bias=bias, device=device, dtype=dtype)
        self.widen = LorentzLinear(self.dim, wide, c, bias, device=device, dtype=dtype)
        self.activation = HyperbolicActivation(wide, activation, c, device=device, dtype=dtype)
        self.narrow = LorentzLinear(wide, self.dim, c, bias, device=device, dtype=dtype)
        self.feed_forward_residual = HyperbolicResidual(self.dim, c, device=device, dtype=dtype)
        self.share_curvature(*self._layers(), self.attention.out)
        self.reset_parameters()

    def _layers(self) -> list[HyperboloidLayer | LorentzLinear]:
        return [module for module in self.children() if isinstance(module, HyperboloidLayer | LorentzLinear)]

    def reset_parameters(self) -> None:
        """As of the layers it is made of."""
        super().reset_parameters()
        for layer in self._layers():
            layer.reset_parameters()

    def forward(self, x: Tensor, *, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map points; `mask` and `is_causal` are those of `HyperbolicAttention`."""
        return self.run(x, mask=mask, is_causal=is_causal)

    def map_hyperboloid(
        self, x: Tensor, c: Tensor, mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """See the class."""
        x = self.attention_residual(x, self.attention(self.attention_norm(x), mask=mask, is_causal=is_causal))
        return self.feed_forward_residual(
            x, self.narrow(self.activation(self.widen(self.feed_forward_norm(x))))
        )
