"""`nn.Linear`, and layers that are one under another name, as matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..nn import LowRankLinear, PifaLinear
from .standing import WeightOfMap, standing_in
from .views import Form, View, computes_as, may_differ, positions


@dataclass(frozen=True)
class LinearView(View):
    """A linear layer: `y = W x` over all positions."""

    @property
    def _weight(self) -> Tensor:
        # transformers' Conv1D holds its weight as [in, out].
        weight: Tensor = self.layer.weight  # type: ignore[assignment]
        return weight if isinstance(self.layer, nn.Linear) else weight.t()

    def matrix(self) -> Tensor:
        """See `View`."""
        return self._weight.detach().double()[None]

    def inputs(self, arguments: tuple[Any, ...]) -> Tensor:
        """See `View`."""
        return positions(arguments[0].detach())

    def outputs(self, gradient: Tensor) -> Tensor:
        """See `View`."""
        return positions(gradient)

    def forms(self) -> Mapping[str, Form]:
        """See `View`."""
        return {"pair": _PairForm(self), "pifa": _PifaForm(self)}


@dataclass(frozen=True)
class _PairForm(Form):
    view: LinearView

    def numbers(self, rank: int) -> int:
        return rank * (self.view.rows + self.view.columns)

    def build(self, a: Tensor, b: Tensor) -> nn.Module:
        return standing_in(_LowRank.from_factors(a[0], b[0], bias_of(self.view.layer)), self.view.layer)


@dataclass(frozen=True)
class _PifaForm(Form):
    view: LinearView

    def numbers(self, rank: int) -> int:
        return rank * (self.view.rows + self.view.columns - rank)

    def index_bytes(self, rank: int) -> int:
        return 4 * self.view.rows

    def build(self, a: Tensor, b: Tensor) -> nn.Module:
        return standing_in(_Pifa.from_factors(a[0], b[0], bias_of(self.view.layer)), self.view.layer)


class _LowRank(WeightOfMap, LowRankLinear):
    """`LowRankLinear` for code that reads the `weight` of the layer that it replaces."""


class _Pifa(WeightOfMap, PifaLinear):
    """`PifaLinear` for code that reads the `weight` of the layer that it replaces."""


def bias_of(layer: nn.Module) -> Tensor | None:
    """A layer's bias in float64."""
    bias = layer.bias
    return bias.detach().double() if isinstance(bias, Tensor) else None


EQUAL = {("transformers.models.falcon.modeling_falcon", "FalconLinear")}
"""Subclasses of `nn.Linear` that compute the same in other words."""


def read(path: str, layer: nn.Module) -> list[LinearView] | str | None:
    """See `layers.READERS`."""
    kind = type(layer)
    if computes_as(layer, nn.Linear) or (kind.__module__, kind.__name__) in EQUAL:
        rows, columns = _shape(layer)
        return [LinearView(path, layer, 1, rows, columns)]
    if kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils":
        columns, rows = _shape(layer)
        return [LinearView(path, layer, 1, rows, columns)]
    if isinstance(layer, nn.Linear):
        return may_differ(layer, nn.Linear)
    return None


def _shape(layer: Any) -> tuple[int, int]:
    rows, columns = layer.weight.shape
    return int(rows), int(columns)
