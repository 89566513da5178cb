"""Attention between points, by their distances; what is attended to is a midpoint."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from stonefx import ops
from stonefx.geometry import lorentz
from stonefx.geometry.models import ModelName
from stonefx.ops import checks

from .arguments import number, size
from .hyperboloid import HyperboloidLayer
from .lorentz_linear import LorentzLinear


class HyperbolicAttention(HyperboloidLayer):
    """Attention with several heads: weights from the distances of queries and keys, values by their centroid.

    On the hyperboloid queries, keys and values are linear maps of all coordinates, whose parts are the space parts of
    a point for each head. The weights are `softmax(-e(q, k) / scale)` with `e` the squared Lorentzian distance
    `-2/c - 2 <q, k>` (Chen et al. 2022, "Fully Hyperbolic Neural Networks") or the distance (Shimizu et al. 2021,
    "Hyperbolic Neural Networks++"), and a scale that each head learns. The centroids of the heads are put together and
    mapped once more. Points of a ball go to the hyperboloid and back, where the centroid is their gyromidpoint.

    No number for each query, key and coordinate is held: distances and centroids are those of `stonefx.geometry`.

    Args:
        dim: of the space, a multiple of `num_heads`.
        num_heads: how many heads.
        c: curvature.
        bias: whether the four linear maps add one.
        dropout: the share of weights set to 0 in training.
        score: "squared" or "distance".
        model: of points in and out, "lorentz", "poincare" or "klein".
        learn_curvature: whether `c` is learned.
        device, dtype: of the parameters.

    Shapes: queries `[*batch, n, 1 + dim]`, keys and values `[*batch, m, 1 + dim]` (`dim` in the balls) to points
    `[*batch, n, 1 + dim]`.

    Raises:
        TypeError: a size or a number is none, or the points are not tensors.
        ValueError: `dim` is no multiple of `num_heads`, there is no such score, `dropout` is not in [0, 1), or as the
            other layers.
        RuntimeError: points or a mask of another dtype, size or device.

    >>> layer = HyperbolicAttention(8, num_heads=2)
    >>> layer
    HyperbolicAttention(
      8, c=1, num_heads=2
      (out): LorentzLinear(in_features=8, out_features=8, c=1, bias=True)
    )
    >>> layer(ops.add_time(torch.zeros(3, 5, 8))).shape
    torch.Size([3, 5, 9])
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    log_scale: nn.Parameter

    def __init__(
        self,
        dim: int,
        num_heads: int,
        c: float = 1.0,
        bias: bool = True,
        dropout: float = 0.0,
        score: Literal["squared", "distance"] = "squared",
        model: ModelName = "lorentz",
        learn_curvature: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, c, model, learn_curvature, device, dtype)
        self.num_heads = size("HyperbolicAttention", "num_heads", num_heads)
        if self.num_heads == 0 or self.dim % self.num_heads:
            raise ValueError(
                f"HyperbolicAttention: dim must be a multiple of num_heads, got {dim} and {num_heads}; each head has "
                "dim / num_heads dimensions"
            )
        if score not in ("squared", "distance"):
            raise ValueError(f"HyperbolicAttention: expected score 'squared' or 'distance', got {score!r}")
        self.score, self.dropout = score, number("HyperbolicAttention", "dropout", dropout)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"HyperbolicAttention: dropout must be from 0 to below 1, got {dropout}")
        rows = 3 * self.dim
        self.weight = nn.Parameter(torch.empty(rows, 1 + self.dim, device=device, dtype=dtype))
        self.register_bias(rows, bias, device, dtype)
        self.log_scale = nn.Parameter(torch.empty(self.num_heads, device=device, dtype=dtype))
        self.out = LorentzLinear(self.dim, self.dim, c, bias, device=device, dtype=dtype)
        self.share_curvature(self.out)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights as `nn.MultiheadAttention` does, with the scale `sqrt(dim / num_heads)`; no biases."""
        super().reset_parameters()
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        nn.init.constant_(self.log_scale, 0.5 * math.log(max(self.dim, 1) / self.num_heads))
        self.out.reset_parameters()

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Attend.

        Args:
            query: points.
            key: points; the queries where there are none.
            value: points, as many as keys; the keys where there are none.
            mask: broadcasting to `[*batch, num_heads, n, m]`; bool, True where a query may look at a key, as in
                `torch.nn.functional.scaled_dot_product_attention`, or floating, added to the scores. A query that may
                look at nothing attends to the origin.
            is_causal: query `i` may look at keys up to `i` alone.
        """
        key = query if key is None else key
        return self.run(query, key, key if value is None else value, mask=mask, is_causal=is_causal)

    def map_hyperboloid(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        c: Tensor,
        mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """See the class."""
        queries, keys, values = self._heads(query, key, value, c)
        weights = self._weights(lorentz.cdist(queries, keys, c), c, mask, is_causal)
        middle = lorentz.centroid(values.unsqueeze(-3), weights, c)
        space = middle[..., 1:].transpose(-3, -2).flatten(-2)
        return self.out(ops.add_time(space, c))

    def _heads(self, query: Tensor, key: Tensor, value: Tensor, c: Tensor) -> list[Tensor]:
        """Queries, keys and values, `[*batch, num_heads, n, 1 + dim / num_heads]`."""
        if query is key is value:
            parts = functional.linear(query, self.weight, self.bias).chunk(3, -1)
        else:
            biases = (None,) * 3 if self.bias is None else self.bias.chunk(3)
            maps = zip((query, key, value), self.weight.chunk(3), biases, strict=True)
            parts = tuple(functional.linear(x, weight, bias) for x, weight, bias in maps)
        split = (self.num_heads, self.dim // self.num_heads)
        return [ops.add_time(part.unflatten(-1, split).transpose(-3, -2), c) for part in parts]

    def _weights(self, distance: Tensor, c: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        """The shares of the keys of each query, `[*batch, num_heads, n, m]`; of half types in float32."""
        distance = distance.float() if distance.dtype.itemsize < 4 else distance
        allowed = self._allowed(distance, mask, is_causal)
        # A query that may look at nothing looks at everything first, so that no NaN is made whose gradient would stay.
        seen = None if allowed is None else allowed | ~allowed.any(-1, keepdim=True)
        if distance.shape[-1] == 0:
            return distance
        nearest = (
            (distance if seen is None else distance.masked_fill(~seen, math.inf)).detach().amin(-1, True)
        )
        scores = -self._excess(distance, nearest, c) / self.log_scale.exp()[:, None, None]
        if mask is not None and mask.dtype != torch.bool:
            scores = scores + mask.masked_fill(mask == -math.inf, 0.0)
        if seen is not None:
            scores = scores.masked_fill(~seen, -math.inf)
        weights = scores.softmax(-1)
        weights = weights if allowed is None else weights.masked_fill(~allowed, 0.0)
        return functional.dropout(weights, self.dropout, self.training)

    def _excess(self, distance: Tensor, nearest: Tensor, c: Tensor) -> Tensor:
        """By how much a key is farther than the nearest, which changes no share: so nothing far out overflows.

        The squared Lorentzian distance is `4/c sinh^2(sqrt(c) d / 2)`, and
        `sinh^2 a - sinh^2 b = sinh(a - b) sinh(a + b)`.
        """
        if self.score == "distance":
            return distance - nearest
        root = c.sqrt().to(distance.dtype)
        apart, together = (0.5 * root * d for d in (distance - nearest, distance + nearest))
        largest = 0.5 * math.log(torch.finfo(distance.dtype).max) - 1
        product = apart.clamp_max(largest).sinh() * together.clamp_max(largest).sinh()
        return product * (4 / c).to(distance.dtype)

    def _allowed(self, distance: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor | None:
        allowed = None
        if mask is not None:
            if mask.dtype != torch.bool and not mask.dtype.is_floating_point:
                raise RuntimeError(
                    f"HyperbolicAttention: mask must be bool (True where a query may look) or floating, got "
                    f"{checks.show(mask.dtype)}; convert it with mask.bool()"
                )
            if not checks.broadcasts_to(mask.shape, distance.shape):
                raise RuntimeError(
                    f"HyperbolicAttention: mask must broadcast to [*batch, num_heads, n, m] = {list(distance.shape)}, "
                    f"got {checks.shape(mask)}; a mask for each batch needs a dimension for the heads: "
                    "mask.unsqueeze(-3)"
                )
            allowed = mask if mask.dtype == torch.bool else mask > -math.inf
        if is_causal:
            causal = torch.ones(distance.shape[-2:], dtype=torch.bool, device=distance.device).tril()
            allowed = causal if allowed is None else allowed & causal
        return allowed

    def extra_repr(self) -> str:
        """What `print` shows."""
        score = "" if self.score == "squared" else f", score={self.score!r}"
        dropout = f", dropout={self.dropout:g}" if self.dropout else ""
        return f"{super().extra_repr()}, num_heads={self.num_heads}{score}{dropout}"
