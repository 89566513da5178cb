"""Layers that compute on the hyperboloid, for points of any of its models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stonefx.geometry.models import MODELS, ModelName, model_named

from .arguments import size
from .hyperbolic import HyperbolicLayer


class HyperboloidLayer(HyperbolicLayer):
    """A layer that is defined on the hyperboloid and takes points of any model.

    Args:
        dim: of the space.
        c: curvature.
        model: of points in and out: "lorentz" (`[*batch, 1 + dim]`, time first), "poincare" or "klein"
            (`[*batch, dim]`).
        learn_curvature: whether `c` is learned.
        device, dtype: of the parameters.

    Raises:
        TypeError: `dim` or the curvature is not a number.
        ValueError: as `HyperbolicLayer`, or there is no such model.
    """

    map_hyperboloid: Callable[
        ..., Tensor
    ]  # the layer itself, on points of the hyperboloid, with their curvature last

    def __init__(
        self,
        dim: int,
        c: float,
        model: ModelName,
        learn_curvature: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(c, learn_curvature, device, dtype)
        layer = type(self).__name__
        self.dim, self.model = size(layer, "dim", dim), model
        self.coordinates = self.dim + model_named(layer, model).times

    def enter(self, x: Tensor, c: Tensor) -> Tensor:
        """Points of the layer's model as points of the hyperboloid, `[*batch, 1 + dim]`."""
        return MODELS[self.model].to_lorentz(x, c)

    def leave(self, x: Tensor, c: Tensor) -> Tensor:
        """And back."""
        return MODELS[self.model].from_lorentz(x, c)

    def map_points(self, *points: Tensor, **options: Any) -> Tensor:
        """The layer on points of its model; what is given twice enters once."""
        c = self.curvature
        entered = {id(x): self.enter(x, c) for x in dict.fromkeys(points)}
        return self.leave(self.map_hyperboloid(*(entered[id(x)] for x in points), c, **options), c)

    def share_curvature(self, *layers: HyperbolicLayer) -> None:
        """Let layers inside of this one have its curvature, so that all their points are of one space."""
        for layer in layers:
            layer.log_curvature, layer.fixed_curvature = self.log_curvature, self.fixed_curvature
            layer.learn_curvature = self.learn_curvature

    def extra_repr(self) -> str:
        """What `print` shows."""
        model = "" if self.model == "lorentz" else f", model={self.model!r}"
        return f"{self.dim}, c={self._shown_curvature()}{model}"
