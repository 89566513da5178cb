"""int8 of linear layers, one scale an output channel, stored and computed by torchao: of dense and of pairs.

Not of PIFA: its interpolation from pivot rows multiplies the rounding of those rows, and MiniLM at 80 % of the bytes
falls from a cosine of .967 to one of .700.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from . import losses, processes, rows_of_blocks
from .checkpoint import digest
from .data import Batch
from .linear import LinearView
from .options import Candidate, Option
from .standing import Factors, WeightOfMap, answering
from .stored import stored_bytes
from .task import Task
from .views import Form, View, computes_as

KINDS = ("int8", "int8 dynamic")
"""Weights alone, computed in the dtype of the model; or products in int8, with inputs rounded as they come."""

SAMPLES = 64
"""Samples that the losses of rounding are taken on: rounding errors are many and small, and few samples show them."""

PIECE = 8
"""Samples of one batch of these."""

MEMORY = 1 << 29
"""Bytes of intermediate results and of matrices that one reading keeps."""

_Key = tuple[str, str, int | None]
"""Path, kind and rank; None: dense."""
_Make = Callable[[], Mapping[str, nn.Module]]

RANKS = 3
"""Ranks at which the rounding of a pair is measured; between them it is interpolated."""


LEAST = 8
"""Inputs that a layer has at least: with fewer a scale and a zero point take what int8 saves."""


def missing() -> str | None:
    """Why there is no int8 here; None where there is.

    >>> missing() is None or "pip install" in missing()
    True
    """
    try:
        _torchao()
    except ImportError as error:
        return (
            f"int8 was left out, since torchao cannot be imported ({error}); "
            'pip install "stonefx[int8]" brings it, and forms= without "int8" leaves it out without a word'
        )
    return None


def quantised(module: nn.Module, kind: str = KINDS[0]) -> nn.Module:
    """A copy whose linear layers are int8, symmetric, with one scale an output channel; not to be trained.

    Args:
        module: a linear layer, or one that is made of linear layers.
        kind: one of `KINDS`.
    """
    quantization = _torchao()
    if kind == KINDS[0]:
        config = quantization.Int8WeightOnlyConfig(set_inductor_config=False)
    else:
        config = quantization.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    # What is a layer by itself has no parent in which it could be replaced.
    holder = nn.Sequential(copy.deepcopy(plain(module)).requires_grad_(False))
    quantization.quantize_(holder, config)
    for layer in holder.modules():
        # The way in which torchao has a layer print itself cannot be pickled.
        layer.__dict__.pop("extra_repr", None)
    made = holder[0]
    if isinstance(module, WeightOfMap):
        # Code that reads the weight of the layer that it replaces reads it here too.
        assert isinstance(made, nn.Sequential)  # a pair; PIFA is never int8
        return answering(Factors(*made), module)
    return made


def plain(module: nn.Module) -> nn.Module:
    """A factored layer as layers of torch; others as they are."""
    make = getattr(module, "plain", None)
    return make() if callable(make) else module


def linear_bytes(layer: nn.Linear) -> int:
    """What an int8 layer stores: a byte a weight, a scale and a zero point an output channel, and its bias.

    >>> linear_bytes(nn.Linear(100, 10, bias=False))
    1050
    """
    m, n = layer.weight.shape
    bias = 0 if layer.bias is None else m * layer.weight.element_size()
    return m * n + m * _row_bytes(layer.weight.dtype) + bias


@functools.cache
def _row_bytes(dtype: torch.dtype) -> int:
    """What torchao stores an output channel beside the integers; scales of bfloat16 are float32 in some releases."""
    layer = quantised(nn.Linear(8, 1, False, dtype=dtype))
    return stored_bytes(layer) - 8


def add(
    singles: Sequence[Candidate], blocks: Sequence[Candidate], views: Sequence[View], dynamic: bool
) -> None:
    """Give candidates their options under int8, with the losses that they have without it; see `weigh`."""
    kinds = KINDS if dynamic else KINDS[:1]
    by_path = _linear_views(views)
    for candidate in singles:
        view = by_path.get(candidate.paths[0])
        if view is None or len(candidate.paths) != 1:
            candidate.refused["int8"] = "int8 is for linear layers of floating-point weights"
            continue
        dense = replace(candidate.dense, build=_dense(view))
        added = []
        for base in (dense, *(o for o in candidate.options[1:] if o.form == "pair")):
            size = _bytes_of(view, base)
            if min(view.columns, base.size or LEAST) >= LEAST and size < candidate.dense.bytes:
                added += [_under(base, kind, size) for kind in kinds]
        candidate.options += added
        if not added:
            candidate.refused["int8"] = "its scales take what int8 saves"
    for block in blocks:
        bases = [o for o in block.options[1:] if (o.size or 0) >= LEAST]
        if not bases or any(path not in by_path and _has_matrix(path, block) for path in block.paths):
            continue
        if bases[0].form == rows_of_blocks.FORM:
            # Of several sizes at once no line tells what it stores, and each has to be large enough.
            own = [(base, _block_bytes(base)) for base in bases if _fewest_inputs(base) >= LEAST]
            block.options += [_under(b, kind, n) for b, n in own if n is not None for kind in kinds]
            continue
        ends = [min(bases, key=lambda o: o.size or 0), max(bases, key=lambda o: o.size or 0)]
        sizes = [_block_bytes(option) for option in ends]
        if None in sizes:
            continue
        block.options += [
            _under(base, kind, _on_line(base.size or 0, ends, [s for s in sizes if s is not None]))
            for base in bases
            for kind in kinds
        ]


def weigh(
    task: Task, singles: Sequence[Candidate], blocks: Sequence[Candidate], positions_of: Mapping[str, float]
) -> None:
    """Add to the losses of options under int8 what rounding costs, sampled like the losses of ranks.

    Layers are read in groups that keep within `MEMORY`, each a record of its own.

    Args:
        task: whose layers they are.
        singles, blocks: candidates that `add` was given; what was refused since then is not measured.
        positions_of: rows that a layer is given a sample, by path.
    """
    by_path = _linear_views(task.views)
    found: dict[_Key, float] = {}
    few = _few(task.data.calibrate)
    for makers in _groups(_wanted(singles, blocks, by_path), by_path, positions_of):
        name = f"int8-{digest(repr(list(makers)))}"
        record = task.store.get(name) if all(processes.gathered(name in task.store)) else None
        if record is None:
            changes = {
                key: _change(by_path[key[0]], plain(make()[key[0]]), key[1]) for key, make in makers.items()
            }
            whole = losses.sampled(
                task.model,
                {},
                changes,
                few,
                seed=task.settings.seed + 2,
                description=task.description("losses of int8"),
                running=task.running(name),
                **task.probing(),
            )[1]
            values = [whole[key] for key in makers]
            task.put(name, {}, {"losses": values})
        else:
            values = record.values["losses"]
        found.update(zip(makers, values, strict=True))
    for candidate in singles:
        path = candidate.paths[0]
        for i, option in enumerate(candidate.options):
            under = _kind(option)
            if under is not None:
                points = [(r, v) for (p, k, r), v in found.items() if (p, k) == (path, under)]
                candidate.options[i] = replace(option, loss=option.loss + _rounding(points, option.size))
    for block in blocks:
        for i, option in enumerate(block.options):
            under = _kind(option)
            if under is not None:
                # That of all units: fewer of them round no worse.
                total = math.fsum(found.get((path, under, None), 0.0) for path in block.paths)
                block.options[i] = replace(option, loss=option.loss + total)


def _wanted(
    singles: Sequence[Candidate], blocks: Sequence[Candidate], by_path: Mapping[str, View]
) -> dict[_Key, _Make]:
    """What is to be measured, and how it is made before it is rounded."""
    wanted: dict[_Key, _Make] = {}
    of_blocks = {path for block in blocks for path in block.paths if any(_kind(o) for o in block.options)}
    for candidate in singles:
        path = candidate.paths[0]
        if path not in by_path:
            continue
        for kind in KINDS:
            if any(_is(o, "dense", kind) for o in candidate.options) or path in of_blocks:
                wanted[path, kind, None] = _dense(by_path[path])
            pairs = {o.size: o for o in candidate.options if _is(o, "pair", kind)}
            ranks = sorted(size for size in pairs if size is not None)
            for i in (
                sorted({round((len(ranks) - 1) * i / (RANKS - 1)) for i in range(RANKS)}) if ranks else ()
            ):
                option = pairs[ranks[i]]
                assert isinstance(option.build, _Build)
                wanted[path, kind, ranks[i]] = option.build.base
    return wanted


# Options ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Build:
    """Makes the replacements of an option under int8."""

    base: Callable[[], Mapping[str, nn.Module]]
    kind: str

    def __call__(self) -> Mapping[str, nn.Module]:
        return {path: quantised(module, self.kind) for path, module in self.base().items()}


def _under(base: Option, kind: str, size: int) -> Option:
    return replace(base, form=f"{base.form}+{kind}", bytes=size, seconds=None, build=_Build(base.build, kind))


def _kind(option: Option) -> str | None:
    kind = option.form.partition("+")[2]
    return kind if kind in KINDS else None


def _is(option: Option, base: str, kind: str) -> bool:
    return option.form == f"{base}+{kind}"


def _linear_views(views: Sequence[View]) -> dict[str, View]:
    return {
        view.path: view
        for view in views
        if isinstance(view, LinearView)
        and any(p.dim() == 2 and p.is_floating_point() for p in view.layer.parameters(recurse=False))
    }


def _dense(view: View) -> Callable[[], Mapping[str, nn.Module]]:
    def build() -> Mapping[str, nn.Module]:
        if computes_as(view.layer, nn.Linear):
            return {view.path: view.layer}
        weight = next(p for p in view.layer.parameters(recurse=False) if p.dim() == 2)
        bias = getattr(view.layer, "bias", None)
        linear = nn.Linear(view.columns, view.rows, bias is not None, weight.device, weight.dtype)
        linear.weight.data = view.matrix()[0].to(weight.device, weight.dtype)
        if bias is not None:
            linear.bias.data = bias.detach().clone()
        return {view.path: linear}

    return build


def _bytes_of(view: View, base: Option) -> int:
    """Of a layer or a pair, without building it."""
    weight = next(p for p in view.layer.parameters(recurse=False) if p.dim() == 2)
    bias = getattr(view.layer, "bias", None)
    with torch.device("meta"):
        last = base.size or view.columns
        layers = [nn.Linear(last, view.rows, bias is not None, dtype=weight.dtype)]
        if base.size is not None:
            layers.append(nn.Linear(view.columns, base.size, False, dtype=weight.dtype))
    return sum(map(linear_bytes, layers))


def _block_bytes(option: Option) -> int | None:
    """Of a reduced block under int8; None where it holds matrices that are no linear layers."""
    total = 0
    for module in option.build().values():
        for child in plain(module).modules():
            if isinstance(child, nn.Linear):
                total += linear_bytes(child)
            elif any(p.dim() > 1 for p in child.parameters(recurse=False)):
                return None
            else:
                tensors = (*child.parameters(recurse=False), *child.buffers(recurse=False))
                total += sum(t.numel() * t.element_size() for t in tensors)
    return total


def _fewest_inputs(option: Option) -> int:
    """Of the linear layers that an option makes."""
    made = [child for module in option.build().values() for child in plain(module).modules()]
    return min((child.in_features for child in made if isinstance(child, nn.Linear)), default=LEAST)


def _has_matrix(path: str, block: Candidate) -> bool:
    return any(p.dim() > 1 for o in block.options[1:2] for p in o.build()[path].parameters())


def _on_line(size: int, ends: Sequence[Option], values: Sequence[int]) -> int:
    """What a block stores is linear in its units."""
    (a, b), (low, high) = [o.size or 0 for o in ends], values
    return low if a == b else round(low + (high - low) * (size - a) / (b - a))


# Losses ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rounded(View):
    """A layer given its inputs twice: as they are, and as int8 products see them at their last layer."""

    view: View
    layers: tuple[nn.Linear, ...]

    def matrix(self) -> Tensor:
        """See `View`."""
        return self.view.matrix()

    def inputs(self, arguments: tuple[Any, ...]) -> Tensor:
        """See `View`."""
        x = self.view.inputs(arguments)
        rounded = _round(x)
        for layer in self.layers[:-1]:
            rounded = _round(rounded @ layer.weight.to(rounded).t())
        return torch.cat([x, rounded], -1)

    def outputs(self, gradient: Tensor) -> Tensor:
        """See `View`."""
        return self.view.outputs(gradient)

    def forms(self) -> Mapping[str, Form]:
        """See `View`."""
        return {}


def _change(view: View, module: nn.Module, kind: str) -> tuple[View, Tensor]:
    """The change that rounding makes to a layer, as a matrix that is applied to what the view returns."""
    layers = [m for m in module.modules() if isinstance(m, nn.Linear)]
    rounded = []
    for layer in layers:
        weight = quantised(layer).weight.dequantize()  # type: ignore[operator]
        copied = nn.Linear(layer.in_features, layer.out_features, False, "meta")
        copied.weight = nn.Parameter(weight.detach().double(), requires_grad=False)
        rounded.append(copied)
    exact, product = _product(layers), _product(rounded)
    if kind == KINDS[0]:
        return view, (exact - product)[None]
    stacked = torch.cat([exact, -rounded[-1].weight.detach()], 1)[None]
    return _Rounded(view.path, view.layer, 1, view.rows, stacked.shape[2], view, tuple(rounded)), stacked


def _product(layers: Sequence[nn.Linear]) -> Tensor:
    product = layers[0].weight.detach().double()
    for layer in layers[1:]:
        product = layer.weight.detach().double() @ product
    return product


def _round(x: Tensor) -> Tensor:
    """Rows of `x` as int8 sees them: -128 to 127, with one scale a row."""
    scale = x.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny) / 127.5
    return (x / scale).round().clamp(-128, 127) * scale


def _few(batches: Sequence[Batch]) -> list[Batch]:
    few: list[Batch] = []
    taken = 0
    for batch in batches:
        for start in range(0, batch.samples, PIECE):
            if taken >= SAMPLES:
                return few
            few.append(batch.take(list(range(start, min(start + PIECE, batch.samples)))))
            taken += few[-1].samples
    return few


def _groups(
    wanted: Mapping[_Key, _Make], by_path: Mapping[str, View], positions_of: Mapping[str, float]
) -> list[dict[_Key, _Make]]:
    """What is wanted by the reading that measures it."""
    groups: list[dict[_Key, _Make]] = []
    used = math.inf
    for key, make in wanted.items():
        view = by_path[key[0]]
        # Products of one piece in float32, and a matrix for the inputs and one for those rounded, in float64.
        size = view.rows * (4 * PIECE * positions_of.get(view.path, 1.0) + 16 * view.columns)
        if used + size > MEMORY:
            groups.append({})
            used = 0.0
        groups[-1][key] = make
        used += size
    return groups


def _rounding(points: Sequence[tuple[int | None, float]], size: int | None) -> float:
    if size is None:
        return next((value for rank, value in points if rank is None), math.nan)
    known = sorted((rank, value) for rank, value in points if rank is not None)
    for (a, low), (b, high) in pairwise(known):
        if a <= size <= b:
            return low + (high - low) * (size - a) / (b - a)
    return known[0][1] if known and size <= known[0][0] else known[-1][1] if known else math.nan


def _torchao() -> Any:
    # It reports each kernel library for other devices that it does not load.
    logger = logging.getLogger("torchao")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import torchao.quantization as quantization
    finally:
        logger.setLevel(level)
    return quantization
