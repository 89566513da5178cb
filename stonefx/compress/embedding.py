"""Embeddings as matrices whose columns are picked by indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .standing import deferred, standing_in
from .views import Form, View, computes_as, may_differ


@dataclass(frozen=True)
class EmbeddingView(View):
    """A table of vectors, one a column: `y = W e_i`."""

    indexed: ClassVar[bool] = True

    def matrix(self) -> Tensor:
        """See `View`."""
        weight: Tensor = self.layer.weight  # type: ignore[assignment]
        return weight.detach().double().t()[None]

    def inputs(self, arguments: tuple[Any, ...]) -> Tensor:
        """See `View`."""
        indices: Tensor = arguments[0]
        shared = indices.dim() == 0 or _consecutive(indices)
        return indices.reshape(1 if shared else len(indices), -1).long()

    def outputs(self, gradient: Tensor) -> Tensor:
        """See `View`."""
        samples = gradient.shape[0] if gradient.dim() > 1 else 1
        return gradient.reshape(samples, -1, 1, gradient.shape[-1])

    def observed(self, arguments: tuple[Any, ...], result: Any) -> tuple[Tensor, Any]:
        """The vectors; positions that all samples share, `arange(length)`, as those of one sample."""
        if not _consecutive(arguments[0]):
            return result, result
        rows = result[None]
        return rows, rows[0]

    def forms(self) -> Mapping[str, Form]:
        """See `View`."""
        return {"pair": _Pair(self)}


def _consecutive(indices: Tensor) -> bool:
    if indices.dim() != 1 or len(indices) < 2:
        return False
    return bool((indices.diff() == 1).all())


class EmbeddingPair(nn.Sequential):
    """A narrow embedding and a linear layer that widens it."""

    @property
    def weight(self) -> Tensor:
        """The table that these stand for; see `DeferredWeight`."""
        table, wider = self
        shape = (table.num_embeddings, wider.out_features)
        return deferred(shape, wider.weight, lambda: table.weight @ wider.weight.t(), self)  # type: ignore[arg-type, operator]


@dataclass(frozen=True)
class _Pair(Form):
    view: EmbeddingView

    def numbers(self, rank: int) -> int:
        return rank * (self.view.rows + self.view.columns)

    def build(self, a: Tensor, b: Tensor) -> nn.Module:
        layer = self.view.layer
        assert isinstance(layer, nn.Embedding)
        table = nn.Embedding(
            layer.num_embeddings,
            b.shape[1],
            padding_idx=layer.padding_idx,
            scale_grad_by_freq=layer.scale_grad_by_freq,
            sparse=layer.sparse,
            _weight=b[0].t().contiguous(),
        )
        wider = nn.Linear(b.shape[1], self.view.rows, bias=False, dtype=a.dtype)
        with torch.no_grad():
            wider.weight.copy_(a[0])
        return standing_in(EmbeddingPair(table, wider), layer)


def read(path: str, layer: nn.Module) -> list[EmbeddingView] | str | None:
    """See `layers.READERS`."""
    if isinstance(layer, nn.EmbeddingBag):
        return "an EmbeddingBag sums rows of its table by offsets, which two layers in its place would not"
    if not isinstance(layer, nn.Embedding):
        return None
    if not computes_as(layer, nn.Embedding):
        return may_differ(layer, nn.Embedding)
    if layer.max_norm is not None:
        return f"its rows are rescaled to max_norm={layer.max_norm:g} when they are looked up"
    return [EmbeddingView(path, layer, 1, layer.embedding_dim, layer.num_embeddings)]
