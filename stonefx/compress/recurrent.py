"""The input weights of recurrent layers and cells as matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from .standing import standing_in, traced
from .views import Form, View, computes_as, layer_weights, may_differ, positions

KINDS = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)
ARGUMENTS = ("hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "nonlinearity")


@dataclass(frozen=True)
class InputView(View):
    """What a recurrent layer multiplies its input with: all gates of both directions, one below the other.

    Of stacked layers it is the first one; the inputs of the others come from inside.
    """

    @property
    def name(self) -> str:
        """See `View`."""
        return "input"

    def matrix(self) -> Tensor:
        """See `View`."""
        return self._stacked().double()[None]

    def inputs(self, arguments: tuple[Any, ...]) -> Tensor:
        """See `View`."""
        x = arguments[0]
        return self._rows(x.data if isinstance(x, PackedSequence) else x, isinstance(x, PackedSequence))

    def outputs(self, gradient: Tensor) -> Tensor:
        """See `View`."""
        # Products of packed sequences have two dimensions, and so have those of one sequence without a batch.
        return self._rows(gradient, gradient.dim() == 2 and not isinstance(self.layer, nn.RNNCellBase))

    def observed(self, arguments: tuple[Any, ...], result: Any) -> tuple[Tensor, Any]:
        """The products, and what the layer makes of them: with identities as input weights it is given products."""
        x, *state = arguments
        packed = isinstance(x, PackedSequence)
        products = functional.linear(x.data if packed else x, self._stacked())
        if not products.requires_grad and torch.is_grad_enabled():
            products.requires_grad_()
        given = x._replace(data=products) if packed else products
        like = getattr(self.layer, weight_names(self.layer)[0])
        identity = torch.eye(self.rows, dtype=like.dtype, device=like.device)
        return products, narrowed(self.layer, identity)(given, *state)

    def forms(self) -> Mapping[str, Form]:
        """See `View`."""
        return {"pair": _Pair(self)}

    def alike(self) -> Any:
        """See `View`."""
        return (
            *super().alike(),
            isinstance(self.layer, nn.RNNCellBase),
            getattr(self.layer, "batch_first", 0),
        )

    def left_out(self) -> Mapping[str, str]:
        """See `View`."""
        reasons = {}
        for name, parameter in self.layer.named_parameters(recurse=False):
            if parameter.dim() > 1 and name not in weight_names(self.layer):
                reasons[name] = (
                    "input weights of a layer that is stacked on another one; as layers of their own they could change"
                    if "_ih" in name
                    else "it is multiplied with the state once a step, inside one call for all steps"
                )
        return reasons

    def _stacked(self) -> Tensor:
        return torch.cat([getattr(self.layer, name).detach() for name in weight_names(self.layer)])

    def _rows(self, x: Tensor, one_sample: bool) -> Tensor:
        x = x.detach()
        if isinstance(self.layer, nn.RNNCellBase):
            return positions(x)
        if one_sample or x.dim() == 2:
            # Which rows of a packed sequence belong together is not asked: probes of samples are independent.
            return x[None, :, None]
        return positions(x if self.layer.batch_first else x.transpose(0, 1))


class RecurrentPair(nn.Module):
    """A linear layer to few features in front of a recurrent layer that reads these.

    Args:
        projection: to the features.
        recurrent: what is given them, a layer or a cell.
    """

    def __init__(self, projection: nn.Linear, recurrent: nn.Module) -> None:
        super().__init__()
        self.projection = projection
        self.recurrent = recurrent

    def forward(self, input: Any, hx: Any = None) -> Any:
        """What the layer gives for `input`, a tensor or packed sequence, from the state `hx` on."""
        if isinstance(input, PackedSequence):
            if not torch.compiler.is_compiling():
                self.__dict__["packed"] = True
            return self.recurrent(input._replace(data=self.projection(input.data)), hx)
        return self.recurrent(self.projection(input), hx)

    def plain(self) -> nn.Module:
        """The same layers in torch alone; they take tensors.

        Raises:
            TypeError: it was given packed sequences.
        """
        if vars(self).get("packed"):
            raise TypeError(
                "it is given packed sequences, which no layers of torch in a row take; save the model where stonefx is "
                "installed: torch.save(model, path), or leave it out with layers="
            )
        made = traced(self)
        recurrent: Any = made.recurrent
        if isinstance(recurrent, nn.RNNBase):
            made.__dict__["flatten_parameters"] = recurrent.flatten_parameters
        return made

    def flatten_parameters(self) -> None:
        """As of the recurrent layer."""
        self.recurrent.flatten_parameters()  # type: ignore[operator]


@dataclass(frozen=True)
class _Pair(Form):
    view: InputView

    def numbers(self, rank: int) -> int:
        view = self.view
        return rank * (view.rows + view.columns) + layer_weights(view.layer) - view.rows * view.columns

    def build(self, a: Tensor, b: Tensor) -> nn.Module:
        projection = nn.Linear(b.shape[2], b.shape[1], bias=False, dtype=b.dtype)
        with torch.no_grad():
            projection.weight.copy_(b[0])
        return standing_in(RecurrentPair(projection, narrowed(self.view.layer, a[0])), self.view.layer)


def weight_names(layer: nn.Module) -> list[str]:
    """Names of the weights of the first layer's input, a direction each."""
    return [n for n, _ in layer.named_parameters(recurse=False) if n in _FIRST]


_FIRST = ("weight_ih", "weight_ih_l0", "weight_ih_l0_reverse")


def narrowed(layer: nn.Module, weight: Tensor) -> nn.Module:
    """A recurrent layer like `layer` with other input weights, `[rows of all directions, features]`."""
    kind = next(k for k in KINDS if isinstance(layer, k))
    arguments = {name: getattr(layer, name) for name in ARGUMENTS if hasattr(layer, name)}
    if isinstance(layer, nn.LSTM):
        arguments["proj_size"] = layer.proj_size
    made = kind(weight.shape[1], **arguments, device=weight.device, dtype=weight.dtype)
    parts = dict(zip(weight_names(layer), weight.chunk(len(weight_names(layer))), strict=True))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(parts[name] if name in parts else getattr(layer, name))
    return made.train(layer.training).requires_grad_(False)


def read(path: str, layer: nn.Module) -> list[InputView] | str | None:
    """See `layers.READERS`."""
    kind = next((k for k in KINDS if isinstance(layer, k)), None)
    if kind is None:
        return None
    if not computes_as(layer, kind):
        return may_differ(layer, kind)
    names = weight_names(layer)
    rows, columns = getattr(layer, names[0]).shape
    return [InputView(path, layer, 1, len(names) * int(rows), int(columns))]
