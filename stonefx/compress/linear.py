"""`nn.Linear`, and layers that are one under another name, as matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ..nn import LowRankLinear, PifaLinear
from .views import Form, View, positions


@dataclass(frozen=True)
class LinearView(View):
    """A linear layer: `y = W x` over all positions."""

    name: ClassVar[str] = "linear"

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
        return {"pair": _Pair(self), "pifa": _Pifa(self)}


@dataclass(frozen=True)
class _Pair(Form):
    view: LinearView

    def numbers(self, rank: int) -> int:
        return rank * (self.view.rows + self.view.columns)

    def build(self, a: Tensor, b: Tensor) -> nn.Module:
        return _like(self.view.layer.weight, LowRankLinear.from_factors(a[0], b[0], _bias(self.view.layer)))


@dataclass(frozen=True)
class _Pifa(Form):
    view: LinearView

    def numbers(self, rank: int) -> int:
        return rank * (self.view.rows + self.view.columns - rank)

    def index_bytes(self, rank: int) -> int:
        return 4 * self.view.rows

    def build(self, a: Tensor, b: Tensor) -> nn.Module:
        return _like(self.view.layer.weight, PifaLinear.from_factors(a[0], b[0], _bias(self.view.layer)))


def _bias(layer: nn.Module) -> Tensor | None:
    bias = layer.bias
    return bias.detach().double() if isinstance(bias, Tensor) else None


def _like(weight: Any, module: nn.Module) -> nn.Module:
    """The module with the dtype and device of the layer's weight, and as little trained as it."""
    return module.to(weight.device, weight.dtype).requires_grad_(weight.requires_grad)


def read(path: str, layer: nn.Module) -> list[LinearView] | str | None:
    """See `layers.READERS`."""
    if type(layer) is nn.Linear:
        return [LinearView(path, layer, 1, layer.out_features, layer.in_features)]
    if type(layer).__name__ == "Conv1D" and type(layer).__module__ == "transformers.pytorch_utils":
        columns, rows = layer.weight.shape  # type: ignore[misc]
        return [LinearView(path, layer, 1, int(rows), int(columns))]
    if isinstance(layer, nn.Linear):
        return f"a {type(layer).__name__} may compute something else than a linear layer"
    return None
