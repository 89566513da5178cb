"""Layers that compute several maps in one call, as equal ones that call a layer for each: those can be made smaller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from . import others, streaming
from .blocks import obstacle
from .data import Batch
from .layers import replace
from .recurrent import KINDS
from .standing import answering, traced
from .structure import example
from .views import computes_as


class Opened(nn.Module):
    """What stands in for a layer that was opened: it remembers how it is called, for `plain`."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["ways"] = []

    def noted(self, way: dict[str, Any]) -> None:
        """Remember arguments that choose what forward does."""
        if not torch.compiler.is_compiling() and way not in self.__dict__["ways"]:
            self.__dict__["ways"].append(way)

    def plain(self) -> fx.GraphModule:
        """The same map in torch alone, for the way in which it was called so far.

        Raises:
            TypeError: it was called in several ways, or with packed sequences.
        """
        ways = self.__dict__["ways"]
        if len(ways) > 1 or any(way.get("packed") for way in ways):
            raise TypeError(
                "it is called in several ways, or with packed sequences, and a layer of torch alone knows one way; "
                "save the model where stonefx is installed: torch.save(model, path), or leave it out with layers="
            )
        way = dict(ways[0]) if ways else {}
        self.__dict__["fixed"] = way
        try:
            return traced(self, {name: value for name, value in way.items() if name in self.chooses})
        finally:
            del self.__dict__["fixed"]

    chooses: tuple[str, ...] = ()
    """Arguments of forward that are constants in the plain layer."""


class Attention(Opened):
    """`nn.MultiheadAttention` with a layer for each of its four maps."""

    # By these torch's own encoder layers see that this is none of theirs.
    in_proj_weight = None
    in_proj_bias = None
    _qkv_same_embed_dim = False
    chooses = ("key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal")

    def __init__(self, layer: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = layer.embed_dim, layer.num_heads, layer.head_dim
        self.kdim, self.vdim = layer.kdim, layer.vdim
        self.batch_first, self.dropout, self.add_zero_attn = (
            layer.batch_first,
            layer.dropout,
            layer.add_zero_attn,
        )
        weights: Any = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
        if layer.in_proj_weight is not None:
            weights = layer.in_proj_weight.chunk(3)
        biases: Any = (None,) * 3 if layer.in_proj_bias is None else layer.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.out_proj = _linear(layer.out_proj.weight, layer.out_proj.bias)
        self.bias_k, self.bias_v = layer.bias_k, layer.bias_v
        self.train(layer.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See `nn.MultiheadAttention`."""
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        way = self.__dict__.get("fixed")
        if way is None:
            masks = {"key_padding_mask": key_padding_mask, "attn_mask": attn_mask}
            way = {
                **{name: None for name, mask in masks.items() if mask is None},
                "need_weights": need_weights,
                "average_attn_weights": average_attn_weights,
                "is_causal": is_causal,
                "batched": query.dim() == 3,
                "several": attn_mask is not None and attn_mask.dim() == 3,
                "booleans": [mask is not None and mask.dtype == torch.bool for mask in masks.values()],
            }
            self.noted(way)
        batched = way.get("batched", True)
        swapped = batched and not self.batch_first
        if not batched:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif swapped:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        q, k, v = (
            y.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for y in (self.q_proj(query), self.k_proj(key), self.v_proj(value))
        )
        mask = self._mask(q, key_padding_mask, attn_mask, way)
        for extra in self._extra(k, v):
            k, v = torch.cat([k, extra[0]], 2), torch.cat([v, extra[1]], 2)
            mask = None if mask is None else functional.pad(mask, (0, 1))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.transpose(2, 3)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = functional.dropout(weights, dropout) if dropout else weights
            y = weights @ v
        else:
            y = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return y.squeeze(0), None if weights is None else weights.squeeze(0)
        return (y.transpose(0, 1) if swapped else y), weights

    def _extra(self, k: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Positions that all samples attend to beside those given."""
        found = []
        if self.bias_k is not None:
            assert self.bias_v is not None
            shape = (1, self.num_heads, 1, self.head_dim)
            size = (k.shape[0], -1, -1, -1)
            found.append((self.bias_k.view(shape).expand(size), self.bias_v.view(shape).expand(size)))
        if self.add_zero_attn:
            found.append((torch.zeros_like(k[:, :, :1]), torch.zeros_like(v[:, :, :1])))
        return found

    def _mask(
        self, q: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None, way: dict[str, Any]
    ) -> Tensor | None:
        """What is added to the scores `[samples, heads, queries, keys]`."""
        booleans = way.get("booleans", [True, True])
        mask = None if attn_mask is None else _additive(attn_mask, q, booleans[1])
        if mask is not None and way.get("several"):
            # One for each head of each sample.
            mask = mask.unflatten(0, (q.shape[0], self.num_heads))
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, q, booleans[0])[:, None, None, :]
            mask = padding if mask is None else mask + padding
        return mask


class RecurrentStack(Opened):
    """Recurrent layers that are stacked, one layer for each."""

    chooses = ("hx",)
    dropout: float

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        answering(self, layer)
        self.directions = 2 if layer.bidirectional else 1
        self.of_two = isinstance(layer, nn.LSTM)
        self.layers = nn.ModuleList(_single(layer, number) for number in range(layer.num_layers))
        self.train(layer.training)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """What the layers give for `input`, a tensor or packed sequence, from the state `hx` on."""
        if "fixed" not in self.__dict__:
            packed = isinstance(input, PackedSequence)
            self.noted({"packed": packed, **({"hx": None} if hx is None else {})})
        y, states = input, []
        for number, layer in enumerate(self.layers):
            own = slice(number * self.directions, (number + 1) * self.directions)
            part = None if hx is None else (hx[0][own], hx[1][own]) if self.of_two else hx[own]
            y, state = layer(y, part)
            states.append(state)
            if self.training and self.dropout and number + 1 < len(self.layers):
                y = _dropped(y, self.dropout)
        if self.of_two:
            return y, (torch.cat([s[0] for s in states]), torch.cat([s[1] for s in states]))
        return y, torch.cat(states)

    def flatten_parameters(self) -> None:
        """As of each of the layers."""
        for layer in self.layers:
            layer.flatten_parameters()  # type: ignore[operator]

    def plain(self) -> fx.GraphModule:
        """See `Opened`."""
        made = super().plain()
        first = next(module for module in made.modules() if isinstance(module, nn.RNNBase))
        # It is called for speed alone, and each layer calls it when it is moved.
        made.__dict__["flatten_parameters"] = first.flatten_parameters
        return made


def open_up(
    model: nn.Module, chosen: str | Iterable[str] | None, batch: Batch | None = None
) -> tuple[dict[str, nn.Module], list[str]]:
    """Put equal layers of several in the places of those in `model` that compute several maps in one call.

    Args:
        model: in eval.
        chosen: patterns of the layers that may change.
        batch: a call of the model; where its code reads weights of such a layer beside calling it, the layer stays.

    Returns:
        What stood there before, by path, and a note on each that stays for that reason.
    """
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    made = _made(model, chosen, paths)
    closed = {path: model.get_submodule(path) for path in made}
    shared = {path: paths[id(module)] for path, module in closed.items()}

    def put(modules: Mapping[str, nn.Module]) -> None:
        for path, module in modules.items():
            replace(model, path, module, shared)

    put(made)
    call = example(model, batch) if made and batch is not None else None
    if call is None or obstacle(model, {}, call, {}) is None:
        return closed, []
    put(closed)
    notes = []
    for path, opened in made.items():
        put({path: opened})
        if (reason := obstacle(model, {}, call, {})) is not None:
            put({path: closed.pop(path)})
            notes.append(f"{path} was not split into layers, which the model's code does not take: {reason}")
    return closed, notes


def _made(
    model: nn.Module, chosen: str | Iterable[str] | None, paths: Mapping[int, Sequence[str]]
) -> dict[str, Opened]:
    """What may stand in the places of layers that compute several maps, by path."""
    weights = streaming.weights_of(model)
    patterns = None if chosen is None else [chosen] if isinstance(chosen, str) else list(chosen)
    held: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            held[id(parameter)] = held.get(id(parameter), 0) + 1
    made: dict[str, Opened] = {}
    for path, module in model.named_modules():
        opened = _opened(module)
        if opened is None or not path or any(held[id(p)] > 1 for p in module.parameters()):
            continue
        inside = [f"{name}.{own}" for name in paths[id(module)] for own, _ in opened.named_children()]
        names = [*paths[id(module)], *inside]
        if patterns is not None and not any(fnmatchcase(name, p) for name in names for p in patterns):
            continue
        if weights is not None:
            weights.offload(opened)
        made[path] = opened
    return made


def patterns(chosen: str | Iterable[str] | None, opened: Iterable[str]) -> list[str] | None:
    """`chosen`, where a layer that was opened stands for all in it."""
    if chosen is None:
        return None
    given = [chosen] if isinstance(chosen, str) else list(chosen)
    return given + [f"{path}.*" for path in opened if any(fnmatchcase(path, p) for p in given)]


def _opened(module: nn.Module) -> Opened | None:
    if type(module) is nn.MultiheadAttention and others.why_not(module.out_proj) is None:
        return Attention(module) if others.why_not(module) is None else None
    kind = next((k for k in KINDS if isinstance(module, k)), None)
    if kind is None or not isinstance(module, nn.RNNBase) or module.num_layers < 2:
        return None
    if not computes_as(module, kind) or others.why_not(module) is not None:
        return None
    return RecurrentStack(module)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    rows, columns = weight.shape
    made = nn.Linear(columns, rows, bias is not None, "meta")
    made.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return made


def _single(layer: nn.RNNBase, number: int) -> nn.RNNBase:
    """One of the layers of a stack."""
    width = (
        layer.input_size
        if number == 0
        else (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
    )
    facts: dict[str, Any] = {"bias": layer.bias, "batch_first": layer.batch_first}
    facts["bidirectional"] = layer.bidirectional
    if isinstance(layer, nn.LSTM):
        facts["proj_size"] = layer.proj_size
    elif isinstance(layer, nn.RNN):
        facts["nonlinearity"] = layer.nonlinearity
    kind: Any = next(k for k in KINDS if isinstance(layer, k))
    made: nn.RNNBase = kind(width, layer.hidden_size, **facts, device="meta")
    for name, _ in list(made.named_parameters()):
        setattr(made, name, getattr(layer, name.replace("_l0", f"_l{number}")))
    return made


def _additive(mask: Tensor, like: Tensor, boolean: bool) -> Tensor:
    """A mask that is added: what is True in one of booleans is left out."""
    if not boolean:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)


def _dropped(y: Any, share: float) -> Any:
    if isinstance(y, PackedSequence):
        return y._replace(data=functional.dropout(y.data, share))
    return functional.dropout(y, share)
