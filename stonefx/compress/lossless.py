"""Layers in a row that are one linear map become one layer, exactly, before anything is made smaller with a loss."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from .data import Batch
from .layers import replace
from .structure import Structure, among, example, read, tensors, value

aten = torch.ops.aten

_DROPOUTS = {
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
}
_COPIES = {aten.alias.default, aten.clone.default, aten.contiguous.default, aten.detach.default}
_SHAPED = {aten.view.default, aten.reshape.default, aten._unsafe_view.default}
_LEADING = {aten.flatten.using_ints, aten.unsqueeze.default, aten.squeeze.dim}


@dataclass
class Lossless:
    """What exact merging did.

    Attributes:
        ratio: parameters of the whole model after over before.
        bytes_before: of each layer that changed, by path.
        into: path of the layer that each layer which is gone was merged into.
        structure: of the model, where it did not change.
        notes: what was undone, and why.
    """

    ratio: float = 1.0
    bytes_before: dict[str, int] = field(default_factory=dict)
    into: dict[str, str] = field(default_factory=dict)
    structure: Structure | None = None
    notes: list[str] = field(default_factory=list)


def merge(model: nn.Module, batch: Batch | None, chosen: str | Iterable[str] | None = None) -> Lossless:
    """Merge in `model`, which is in eval, what is one linear map, among the layers that `chosen` names.

    Results were compared with the unmerged model's in float64 on an example call: what does not agree to rounding
    is undone.
    """
    done = Lossless()
    call = example(model, batch)
    if call is None:
        done.notes.append("without data no example call is known, and nothing was merged exactly")
        return done
    structure = read(model, call)
    done.notes += structure.notes
    steps = plan(structure, among(model, chosen))
    steps = _agreeing(model, steps, call, done.notes) if steps else []
    if not steps:
        done.structure = structure
        return done
    before = _parameters(model)
    for step in steps:
        for path in step.paths:
            layer = model.get_submodule(path)
            if not isinstance(layer, nn.Identity):
                done.bytes_before.setdefault(path, _bytes(layer))
        step.apply(model)
        done.into.update({path: step.place for path in step.paths if path != step.place})
    for path in done.into:
        # A batch norm may go into a layer that then goes into another one.
        while done.into[path] in done.into:
            done.into[path] = done.into[done.into[path]]
    done.ratio = _parameters(model) / max(before, 1)
    return done


def plan(structure: Structure, chosen: set[str]) -> list[Step]:
    """What can be merged: batch norms first, then rows of layers where one stores less."""
    norms: list[Step] = []
    folded: set[fx.Node] = set()
    for node, path in structure.calls.items():
        if not isinstance(structure.layer(node), (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            continue
        if node.args[5] is not False or not isinstance(node.args[0], fx.Node):
            continue
        found = _before(structure, node.args[0], set())
        if found is None or not _same_axis(structure, *found):
            continue
        if structure.calls[found[0]] in chosen:
            norms.append(Fold((structure.calls[found[0]], path), structure.calls[found[0]]))
            folded.add(node)
    rows: list[Step] = []
    for chain in _chains(structure, chosen, folded):
        rows += _segments(structure, chain, {norm.place for norm in norms})
    return [*norms, *rows]


# Steps -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step(ABC):
    """One merge.

    Attributes:
        paths: of all layers that change, in the order in which they are called.
        place: which of them is left; the others become `nn.Identity`.
    """

    paths: tuple[str, ...]
    place: str
    what: ClassVar[str]

    @abstractmethod
    def merged(self, layers: Sequence[Any]) -> nn.Module:
        """The one layer, from the layers at `paths`."""

    def apply(self, model: nn.Module) -> None:
        """Put the one layer into the model."""
        new = self.merged([model.get_submodule(path) for path in self.paths])
        for path in self.paths:
            replace(model, path, new if path == self.place else nn.Identity(), {})


class Fold(Step):
    """A batch norm in eval into the layer before it."""

    what = "a batch norm folded into"

    def merged(self, layers: Sequence[Any]) -> nn.Module:
        """See `Step`."""
        layer, norm = layers
        mean, variance = norm.running_mean.double(), norm.running_var.double()
        scale = (variance + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.detach().double()
        weight, bias = _values(layer)
        shift = (0.0 if bias is None else bias) - mean
        shift = shift * scale
        if norm.bias is not None:
            shift = shift + norm.bias.detach().double()
        return like(layer, weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), shift)


class Product(Step):
    """Linear layers in a row, or convolutions of which all but one are of size 1."""

    what = "a product of layers into"

    def merged(self, layers: Sequence[Any]) -> nn.Module:
        """See `Step`."""
        weight, bias = _values(layers[0])
        for layer in layers[1:]:
            w, b = _values(layer)
            if bias is not None:
                # Where the layer pads with zeros there is no bias before it, see `_possible`.
                taps = w.flatten(2).sum(-1) if w.dim() > 2 else w
                b = taps @ bias if b is None else b + taps @ bias
            if w.dim() == 2:
                weight = w @ weight
            elif w[0, 0].numel() == 1:
                weight = torch.einsum("oc,ci...->oi...", w.flatten(1), weight)
            else:
                weight = torch.einsum("oc...,ci->oi...", w, weight.flatten(1))
            bias = b
        return like(layers[self.paths.index(self.place)], weight, bias)


def like(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A linear layer or convolution with the settings, dtype and device of another and these weights.

    >>> like(nn.Conv2d(3, 4, 3, padding=1), torch.ones(2, 3, 3, 3), None)
    Conv2d(3, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """
    old: Tensor = layer.weight
    options: dict[str, Any] = {"bias": bias is not None, "device": "meta", "dtype": old.dtype}
    new: nn.Module
    if isinstance(layer, nn.Linear):
        new = nn.Linear(weight.shape[1], weight.shape[0], **options)
    else:
        groups = 1 if layer.groups == 1 else weight.shape[0] * layer.groups // layer.out_channels
        kind: Any = type(layer)
        new = kind(
            weight.shape[1] * groups,
            weight.shape[0],
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            groups,
            padding_mode=layer.padding_mode,
            **options,
        )
    new.weight = nn.Parameter(weight.to(old.device, old.dtype).contiguous(), old.requires_grad)
    if bias is not None:
        new.bias = nn.Parameter(bias.to(old.device, old.dtype).contiguous(), old.requires_grad)
    return new.train(layer.training)


def _values(layer: Any) -> tuple[Tensor, Tensor | None]:
    bias = layer.bias
    return layer.weight.detach().double(), None if bias is None else bias.detach().double()


# What the graph shows ----------------------------------------------------------------------------------------------


def is_copy(node: fx.Node) -> bool:
    """The node's value is that of its first argument, entry by entry, in the same shape."""
    if node.target in _DROPOUTS:
        return node.args[2] is False or bool(node.args[1] == 0)
    if node.target in _COPIES:
        return True
    if getattr(node.target, "overloadpacket", None) in (aten.to, aten._to_copy):
        before, after = value(node.args[0]), value(node)
        return before.dtype == after.dtype and before.device == after.device
    return False


def _is_reshape(node: fx.Node) -> bool:
    """Rows are dealt out anew and the features of each row are kept."""
    if node.target not in _SHAPED and node.target not in _LEADING:
        return False
    before, after = value(node.args[0]), value(node)
    return before.dim() > 0 and after.dim() > 0 and before.shape[-1] == after.shape[-1]


def _before(structure: Structure, node: Any, folded: set[fx.Node]) -> tuple[fx.Node, list[fx.Node]] | None:
    """The layer whose result a value is, unchanged and read by nothing else, and the steps between, last first."""
    steps: list[fx.Node] = []
    while len(node.users) == 1:
        if node in structure.calls and node not in folded:
            layer = structure.layer(node)
            known = isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
            return (node, steps) if known else None
        if not (node in folded or is_copy(node) or _is_reshape(node)):
            return None
        if not isinstance(node.args[0], fx.Node):
            return None
        steps.append(node)
        node = node.args[0]
    return None


def _same_axis(structure: Structure, layer: fx.Node, steps: list[fx.Node]) -> bool:
    """The layer's features are the axis that a batch norm counts as channels."""
    if any(not is_copy(step) for step in steps):
        return False
    is_linear = isinstance(structure.layer(layer), nn.Linear)
    dim = value(layer).dim()
    spatial = 0 if is_linear else structure.layer(layer).weight.dim() - 2
    return dim == 2 + spatial


def _chains(
    structure: Structure, chosen: set[str], folded: set[fx.Node]
) -> list[list[tuple[fx.Node, list[fx.Node]]]]:
    """Layers in a row, each with the steps between it and the one before."""
    links: dict[fx.Node, tuple[fx.Node, list[fx.Node]]] = {}
    for node, path in structure.calls.items():
        layer = structure.layer(node)
        if path not in chosen or not isinstance(node.args[0], fx.Node):
            continue
        if not isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            continue
        found = _before(structure, node.args[0], folded)
        if found is None or structure.calls[found[0]] not in chosen:
            continue
        before = structure.layer(found[0])
        alike = type(before) is type(layer) and before.weight.dtype == layer.weight.dtype
        plain = isinstance(layer, nn.Linear) or all(step in folded or is_copy(step) for step in found[1])
        if alike and plain:
            links[node] = found
    after = {found[0]: node for node, found in links.items()}
    chains = []
    for first in (node for node in after if node not in links):
        chain: list[tuple[fx.Node, list[fx.Node]]] = [(first, [])]
        while (following := after.get(chain[-1][0])) is not None:
            chain.append((following, links[following][1]))
        chains.append(chain)
    return chains


def _segments(
    structure: Structure, chain: list[tuple[fx.Node, list[fx.Node]]], normed: set[str]
) -> list[Step]:
    """Where to cut a row of layers so that the fewest numbers are stored in all, and what to merge.

    Layers at the paths `normed` get a bias from their batch norm.
    """
    layers = [_Link(structure.layer(node), structure.calls[node] in normed) for node, _ in chain]
    gaps = [steps for _, steps in chain[1:]]
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for j in range(len(layers)):
        options = []
        for i in range(j + 1):
            place = _place(layers[i : j + 1], gaps[i:j])
            if place is not None:
                size = _stored(layers[i : j + 1])
                # Of equal ones the shortest: what saves nothing stays as it is.
                options.append((best[i][0] + size, -i, i + place))
        least = min(options)
        best.append((least[0], -least[1], least[2]))
    steps: list[Step] = []
    j = len(layers)
    while j > 0:
        _, i, place = best[j]
        if j - i > 1:
            paths = tuple(structure.calls[node] for node, _ in chain[i:j])
            steps.append(Product(paths, structure.calls[chain[place][0]]))
        j = i
    return steps[::-1]


class _Link:
    """A layer of a row, with a bias where it will have one."""

    def __init__(self, layer: Any, normed: bool) -> None:
        self.layer = layer
        self.rows, self.columns = layer.weight.shape[:2]
        self.taps = layer.weight[0, 0].numel()
        self.biased = normed or layer.bias is not None


def _stored(links: Sequence[_Link]) -> int:
    if len(links) == 1:
        link = links[0]
        return int(link.layer.weight.numel()) + link.rows * link.biased
    rows, columns = links[-1].rows, links[0].columns
    return int(rows * columns * max(link.taps for link in links) + rows * any(link.biased for link in links))


def _place(links: Sequence[_Link], gaps: Sequence[list[fx.Node]]) -> int | None:
    """Which of the layers may become the product of all, or None: it is no layer of this kind."""
    if len(links) == 1:
        return 0
    layers = [link.layer for link in links]
    if not isinstance(layers[0], nn.Linear):
        if any(layer.groups != 1 for layer in layers):
            return None
        wide = [i for i, layer in enumerate(layers) if not _is_pointwise(layer)]
        if len(wide) > 1:
            return None
        place = wide[0] if wide else len(layers) - 1
        # Beyond the border a layer that pads is given zeros, and not the bias of the layers before it.
        biased = any(link.biased for link in links[:place])
        return None if biased and _pads_zeros(layers[place]) else place
    for place in (len(links) - 1, *range(len(links) - 1)):
        # A reshape with its number of features written out must meet that number.
        if all(
            _fixed(step) in (None, links[0].columns if gap < place else links[-1].rows)
            for gap, steps in enumerate(gaps)
            for step in steps
        ):
            return place
    return None


def _fixed(step: fx.Node) -> int | None:
    if step.target not in _SHAPED:
        return None
    sizes = step.args[1]
    size = sizes[-1] if isinstance(sizes, (list, tuple)) else None
    return None if size == -1 else int(value(step).shape[-1])


def _is_pointwise(layer: Any) -> bool:
    still: bool = layer.padding == "same" or layer.padding == "valid" or not any(layer.padding)
    return math.prod(layer.kernel_size) == 1 and math.prod(layer.stride) == 1 and still


def _pads_zeros(layer: Any) -> bool:
    if layer.padding_mode != "zeros" or layer.padding == "valid":
        return False
    return bool(layer.padding == "same" or any(layer.padding))


# Whether results agree ---------------------------------------------------------------------------------------------


def _agreeing(model: nn.Module, steps: list[Step], call: Batch, notes: list[str]) -> list[Step]:
    """The steps after which results on the call are those of `model` to rounding, in float64 where that runs."""
    cast, dense = _reference(model, call)
    trial = cast(copy.deepcopy(model))
    try:
        for step in steps:
            step.apply(trial)
        if _agree(trial, call, cast, dense) is None:
            return steps
    except Exception:  # The step that it comes from is found below.
        pass
    trial, kept = cast(copy.deepcopy(model)), []
    for step in steps:
        before = {path: trial.get_submodule(path) for path in step.paths}
        try:
            step.apply(trial)
            reason = _agree(trial, call, cast, dense)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if reason is None:
            kept.append(step)
            continue
        notes.append(f"{step.what} {step.place} was undone: {reason}")
        for path, layer in before.items():
            replace(trial, path, layer, {})
    return kept


def _reference(model: nn.Module, call: Batch) -> tuple[Any, list[Tensor]]:
    def double(value: Any) -> Any:
        return value.double()

    def same(value: Any) -> Any:
        return value

    try:
        return double, _results(double(copy.deepcopy(model)), call, double)
    except Exception:
        # A model that insists on a dtype is compared in that.
        return same, _results(model, call, same)


def _results(model: nn.Module, call: Batch, cast: Any) -> list[Tensor]:
    with torch.no_grad():
        return [y for y in tensors(call.mapped(cast).call(model)) if y.is_floating_point()]


def _agree(model: nn.Module, call: Batch, cast: Any, dense: list[Tensor]) -> str | None:
    results = _results(model, call, cast)
    if [y.shape for y in results] != [y.shape for y in dense]:
        return "results have other shapes"
    for y, reference in zip(results, dense, strict=True):
        # A float64 product of a few layers loses a few digits; a model that computes in less loses its own.
        bound = 1e-9 if y.dtype == torch.float64 else 1e3 * torch.finfo(y.dtype).eps
        scale = reference.abs().max().item() if reference.numel() else 0.0
        error = (y - reference).abs().nan_to_num(0.0).max().item() if y.numel() else 0.0
        if not torch.equal(y.isnan(), reference.isnan()) or error > bound * max(scale, 1e-30):
            return f"results differ by {error:.3g} where they reach {scale:.3g}"
    return None


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _bytes(layer: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*layer.parameters(), *layer.buffers()))
