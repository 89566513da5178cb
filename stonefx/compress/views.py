"""How a layer is read as a matrix: the one interface between layers and the search for their ranks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class View(ABC):
    """One way to read a layer as products of rows with a matrix, `y = W x`, in `groups` independent parts.

    A layer has one view or more: a convolution may be cut between its channels, its input or its two sides. All that
    the search knows of a layer it asks of its views, so that a new kind of layer is a new subclass and nothing else.

    Attributes:
        path: of the layer in the model.
        layer: the layer, in the model that is being compressed.
        groups: how many independent matrices there are.
        rows, columns: of each matrix.
    """

    path: str
    layer: nn.Module
    groups: int
    rows: int
    columns: int

    indexed: ClassVar[bool] = False
    """The layer is given integers that pick columns (an embedding): `inputs` returns `[samples, positions]` of them."""

    @property
    def name(self) -> str:
        """Where the layer is cut; part of the form's name in reports where it is not "linear"."""
        return "linear"

    @abstractmethod
    def matrix(self) -> Tensor:
        """The matrices, `[groups, rows, columns]`, float64."""

    @abstractmethod
    def inputs(self, arguments: tuple[Any, ...]) -> Tensor:
        """What the matrices are applied to, from the layer's arguments: `[samples, positions, groups, columns]`."""

    @abstractmethod
    def outputs(self, gradient: Tensor) -> Tensor:
        """A gradient at what `observed` returns as one at the products: `[samples, positions, groups, rows]`."""

    def observed(self, arguments: tuple[Any, ...], result: Any) -> tuple[Tensor, Any]:
        """The tensor whose gradient `outputs` is given, and the layer's result that follows from it.

        It is the result itself, or its first tensor, unless the products are deep inside the layer.
        """
        return (result[0] if isinstance(result, tuple) else result), result

    @abstractmethod
    def forms(self) -> Mapping[str, Form]:
        """The forms that this view can be stored in, by the name in `forms=` ("pair", "pifa")."""

    def joints(self, views: Sequence[View]) -> Sequence[Joint]:
        """Forms that cut the layer at this view and at another one of all its `views`."""
        return ()

    def left_out(self) -> Mapping[str, str]:
        """Names of the layer's other matrices, with the reason why they stay as they are."""
        return {}

    def alike(self) -> Any:
        """Views that return equal values here have equal `inputs` for the same arguments, and share statistics."""
        return (type(self), self.groups, self.columns)

    @property
    def full_rank(self) -> int:
        """The rank from which on nothing is lost."""
        return min(self.rows, self.columns)


class Form(ABC):
    """How the best map of a rank is stored."""

    @abstractmethod
    def numbers(self, rank: int) -> int:
        """How many weights are stored, biases not counted."""

    def index_bytes(self, rank: int) -> int:
        """Bytes of what is stored beside the weights, such as row numbers."""
        return 0

    @abstractmethod
    def build(self, a: Tensor, b: Tensor) -> nn.Module:
        """The layer's replacement from factors `a [groups, rows, rank]` and `b [groups, rank, columns]`, float64.

        It takes the layer's arguments, keeps its bias, its dtype and its device, and is not trained further unless
        asked.
        """


class Joint(ABC):
    """A form that cuts a layer at two of its views, each at a rank of its own.

    What is lost is about the sum of what each cut loses.

    Attributes:
        name: the form's name in reports.
        outer: the view whose products are projected, `x -> a x`.
        inner: the view whose factors are used as they are.
    """

    name: str
    outer: View
    inner: View

    @abstractmethod
    def numbers(self, outer_rank: int, inner_rank: int) -> int:
        """How many weights are stored, biases not counted."""

    @abstractmethod
    def build(self, outer: tuple[Tensor, Tensor], inner: tuple[Tensor, Tensor]) -> nn.Module:
        """The layer's replacement.

        Args:
            outer: `a [groups, rows, rank]` and `x [groups, rank, rows]`, where `a x W` is the outer view's best map.
            inner: factors of the inner view, as in `Form.build`.
        """


def computes_as(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer is of `kind`, or of a subclass that changes nothing about what is computed.

    >>> computes_as(nn.modules.linear.NonDynamicallyQuantizableLinear(2, 3), nn.Linear)
    True
    """
    names = ("forward", "_conv_forward", "__call__", "__getattr__", "_call_impl")
    return isinstance(layer, kind) and all(
        getattr(type(layer), name, None) is getattr(kind, name, None) for name in names
    )


def may_differ(layer: nn.Module, kind: type[nn.Module]) -> str:
    """Why a subclass of `kind` with a forward of its own is left alone."""
    return f"{type(layer).__name__} has a forward of its own, and may compute something else than nn.{kind.__name__}"


def layer_weights(layer: nn.Module) -> int:
    """How many weights a layer stores, biases not counted.

    >>> layer_weights(nn.Linear(3, 5))
    15
    """
    return sum(
        p.numel() for name, p in layer.named_parameters() if not name.rpartition(".")[2].startswith("bias")
    )


def positions(x: Tensor) -> Tensor:
    """`[samples, *positions, features]` as `[samples, positions, 1, features]`; one row a sample has one position.

    >>> import torch
    >>> positions(torch.ones(2, 3, 4, 5)).shape, positions(torch.ones(2, 5)).shape
    (torch.Size([2, 12, 1, 5]), torch.Size([2, 1, 1, 5]))
    """
    if x.dim() == 1:
        x = x[None]
    # Of no rows at all, as an expert may be given, the number of positions cannot be inferred.
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), 1, x.shape[-1])
