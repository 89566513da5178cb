"""Door 3: `stonefx.compress`, the smallest and fastest model that keeps the accuracy asked for."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from . import data as user_data
from . import estimate, latency, processes, streaming, writing
from .checkpoint import Store, fingerprint
from .layers import check_lazy
from .metric import Metric, main_result
from .saving import plain
from .search import Search
from .settings import DEFAULT_FORMS, Settings, check_path
from .stats import CompressionStats, LayerRow, Point
from .stored import stored_bytes
from .transformers_folder import save_transformers

__all__ = [
    "CompressionStats",
    "LayerRow",
    "Point",
    "compress",
    "plain",
    "reloaded_accuracy",
    "save_transformers",
]


@torch.inference_mode(False)
def compress(
    model: nn.Module | str | os.PathLike[str],
    data: Any = None,
    *,
    layers: str | Sequence[str] | None = None,
    min_accuracy: float = 0.95,
    metric: str | Callable[..., Any] = "cosine",
    max_ratio: float | None = None,
    max_seconds: float | None = None,
    forms: Sequence[str] = DEFAULT_FORMS,
    energy: float | None = None,
    refine: bool = False,
    seed: int = 0,
    cost: str = "both",
    confidence: float = 0.95,
    evaluations: int = 12,
    selection_data: Any = None,
    confirmation_data: Any = None,
    probe: str = "auto",
    probes: int | None = None,
    output: Callable[[Any], Tensor] | None = None,
    batch_size: int = 16,
    memory: int | None = None,
    most_rank: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    output_folder: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> tuple[nn.Module, CompressionStats]:
    """Return the smallest and fastest model that keeps the accuracy asked for, and what was done to get it.

    Layers are replaced by what is smaller and not slower: maps of low rank as two layers or as pivot rows
    (arXiv:2501.19090), blocks of fewer units, int8. For `y = W x`, with `C = E[x x^T]` over the data and
    `G = E[g g^T]` of gradients `g` of probes at `y`, the best map of rank r is `W' = L^-T U U^T L^T W`, where
    `G = L L^T` and `U` holds the first r eigenvectors of `L^T W C W^T L`; one rank for each layer is chosen so that the
    sampled losses of all layers together are least for their cost in bytes and in seconds measured here.

    The data is dealt out at random: 60 % of the samples for these statistics, 20 % to choose the ranks by the metric,
    and 20 % which choose nothing and on which the floor is confirmed. It holds where the metric, less what chance can
    explain with the `confidence` asked for, is at least `min_accuracy` of the original's. Where it does not, the model
    comes back with its layers as they were, apart from what is exact, and `stats.reached` is False.

    Args:
        model: any module; it is copied and left as it is.
        data: what the model is called with: a DataLoader, a list of batches, a tensor `[samples, *]`, a dataset of
            rows, or a callable that returns one. A batch is a tensor, a tuple of positional arguments or a mapping of
            keyword arguments; entries that forward does not take are labels. `attention_mask` `[samples, positions]`
            marks what counts. None: ranks follow `energy` and nothing is checked.
        layers: paths or patterns (`"encoder.*.dense"`) of the layers that may change; all of them if left out.
        min_accuracy: the floor, as a share of the original's metric.
        metric: "cosine", "relative" (`1 - ||y - y'|| / ||y||`), "top1", or a callable `metric(model)` or
            `metric(model, batches)` which returns a number, or one a sample as a tensor; higher is better.
        max_ratio: instead of a floor: the best accuracy at this share of the bytes of the layers.
        max_seconds: instead of a floor: the best accuracy with which a call on the most frequent batch takes this long.
        forms: what layers may become: "pair", "pifa", "width", "int8" (which needs torchao), and if asked for "heads"
            (fewer dimensions of attention heads); none: exact merging alone.
        energy: the smallest rank of each layer that keeps this share of its squared singular values, raised until the
            floor holds; 0.99 without data.
        refine: train the replaced layers on the data towards the original's results, kept where it gains.
        seed: of all random choices; two runs on one machine give the same result, apart from layers whose times are
            within the noise of the clock.
        cost: "both", "bytes" or "seconds"; with "bytes" nothing is timed, and layers may become slower.
        confidence: of the floor.
        evaluations: how often the metric may be evaluated at most.
        selection_data, confirmation_data: data of their own for the second and the third part.
        probe: "logits" (results drawn from the model's own distribution), "directions" (random directions of its
            result), or "auto".
        probes: how many a batch.
        output: picks the tensor that counts out of the model's result; its logits or its first tensor if left out.
        batch_size: of tensors and rows that are no batches yet.
        memory: bytes that statistics, spectra and weights may take; layers are worked on in so many groups as that
            needs, and what waits lies in files. None: a part of what is available.
        most_rank: higher ranks are not looked at; decompositions of large matrices are faster then.
        weights: a safetensors file or a folder of them, where the parameters of a model on the meta device are read
            when they are needed; `model` may be a transformers folder instead.
        output_folder: where the result of such a model is written, as `model.safetensors`; its weights are read from
            there. Of any other model it is a copy.
        checkpoint: a folder where what is found is kept; a call that was stopped goes on from there.
        progress: show bars with the time left, on standard error.

    Returns:
        The compressed copy in evaluation mode, and a `CompressionStats`: print it, or see `stats.report`,
        `stats.to_json()`, `stats.plot()`.

    Raises:
        TypeError: an argument or a batch is of a kind that is not taken, or the model's result holds no tensor.
        ValueError: an argument is out of its range, a name fits no layer, there are too few samples, or the model
            cannot be called on the data or gives results that are not finite.

    A chain of linear layers is one layer, without any loss; data decides what else may go:

    >>> import torch
    >>> chain = nn.Sequential(nn.Linear(128, 256), nn.Linear(256, 128), nn.Linear(128, 64), nn.Linear(64, 32)).eval()
    >>> small, stats = compress(chain, torch.randn(64, 128), max_ratio=1.0, progress=False)
    >>> f"{stats.lossless_ratio:.2%} of the parameters, {stats.accuracy_preserved:.4f} of the accuracy"
    '5.41% of the parameters, 1.0000 of the accuracy'

    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    >>> with torch.no_grad():
    ...     _ = model[0].weight.copy_(torch.ones(64, 4) @ torch.randn(4, 64))
    >>> small, stats = compress(model, torch.randn(256, 64), layers="0", cost="bytes", progress=False)
    >>> stats.reached, stats.ranks, stats.compression_ratio < 0.1
    (True, {'0': 1}, True)
    """
    for name, path in (("weights", weights), ("output_folder", output_folder), ("checkpoint", checkpoint)):
        check_path(name, path)
    settings = Settings(
        layers=_several(layers),
        min_accuracy=min_accuracy,
        metric=metric,
        max_ratio=max_ratio,
        max_seconds=max_seconds,
        forms=_several(forms),
        energy=energy,
        refine=refine,
        seed=seed,
        cost=cost,
        confidence=confidence,
        evaluations=evaluations,
        probe=probe,
        probes=probes,
        output=output,
        batch_size=batch_size,
        memory=memory,
        most_rank=most_rank,
        progress=progress,
    )
    if processes.rank() > 0:
        settings = dataclasses.replace(settings, progress=False)
    if output_folder is not None:
        writing.check(output_folder, model, weights)
    model = _given(model, weights, output_folder, memory)
    check_lazy(model)
    devices = sorted({str(t.device) for t in (*model.parameters(), *model.buffers())})
    if len(devices) > 1:
        raise ValueError(
            f"model: expected all weights on one device, got {', '.join(devices)}, where times would be "
            "those of moving them; load the model on one device, without offloading"
        )
    streamed = streaming.weights_of(model)
    for case, true in (
        ("a model that is read from files", streamed),
        ("several processes", processes.size() > 1),
    ):
        if true and cost != "bytes":
            raise ValueError(
                f"cost: expected 'bytes' for {case}, whose times would be those of something else, got {cost!r}"
            )
    if streamed is None:
        estimate.check_copy(stored_bytes(model, recurse=True), estimate.available())
    with _in_eval(model):
        splits = _splits(model, data, selection_data, confirmation_data, settings)
        if splits is None and settings.max_seconds is not None:
            raise ValueError("max_seconds: expected data, by whose shapes the model is timed, got data=None")
        if splits is not None:
            _check_calls(model, splits, settings)
        store = Store(checkpoint)
        if checkpoint is not None:
            asked = {k: v for k, v in vars(settings).items() if k not in ("progress", "memory")}
            store.bind(fingerprint(model, splits, asked))
        saved = nullcontext() if streamed is None else streamed.saved()
        try:
            with _own_random_numbers(user_data.device_of(model), seed), saved:
                found = Search(model, copy.deepcopy(model), settings, splits, store=store).run()
                if output_folder is not None and processes.rank() == 0:
                    facts = {"ranks": found[1].ranks, "ratio": found[1].model_ratio}
                    if note := writing.write(model, found[0], output_folder, facts):
                        found[1].notes.append(note)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "compress was stopped; the model is as it was. "
                + (
                    f"The same call with checkpoint={str(checkpoint)!r} goes on where it was"
                    if checkpoint is not None
                    else "With checkpoint=folder the same call would go on where it was"
                )
            ) from None
        return found


def _several(names: Any) -> Any:
    """Names that may be given as any iterable, once; what is none of it is refused with the other settings."""
    return tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else names


def _given(model: Any, weights: Any, output_folder: Any, memory: int | None) -> nn.Module:
    cache = streaming.cache_for(memory)
    folder = isinstance(model, (str, os.PathLike))
    if not folder and not isinstance(model, nn.Module):
        raise TypeError(
            f"model: expected an nn.Module, or the path of a transformers folder, got {type(model).__name__}"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "model: expected a module whose forward is Python, got a scripted one, whose layers cannot be replaced; "
            "pass the module that torch.jit.script or torch.jit.trace was given"
        )
    if folder or weights is not None:
        if output_folder is None:
            raise TypeError(
                "output_folder: expected where to write the result of a model that is read from files"
            )
        if folder:
            return streaming.from_folder(model, cache)
        return streaming.attach(model, weights, cache)
    # Some of them elsewhere: then that is what is named, below.
    if {p.device.type for p in model.parameters()} == {"meta"}:
        raise ValueError(
            "model: expected parameters with values, these are on the meta device; say where they are: weights=file"
        )
    found: nn.Module = model
    return found


@contextmanager
def _in_eval(model: nn.Module) -> Iterator[None]:
    """The user's model in eval, where it neither drops out nor counts statistics, and back as it was."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextmanager
def _own_random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """What is drawn in the block depends on `seed` alone, and what the caller draws afterwards not on the block."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _check_calls(model: nn.Module, splits: user_data.Splits, settings: Settings) -> None:
    """Call the model once on each kind of batch, so that one that does not fit is found before anything takes time."""
    kinds: dict[Any, user_data.Batch] = {}
    for batch in (*splits.given, *splits.calibrate, *splits.select, *splits.confirm):
        parts = [
            (t.dim(), t.dtype, t.shape[-1] if t.is_floating_point() and t.dim() > 1 else 0)
            for t in user_data.tensors((batch.args, batch.kwargs))
        ]
        if len(kinds) < KINDS:
            kinds.setdefault(str(parts), batch)
    with _in_eval(model), torch.no_grad():
        for batch in kinds.values():
            _check_call(model, batch, settings)


KINDS = 4
"""Kinds of batches that are tried at most."""


def _check_call(model: nn.Module, batch: user_data.Batch, settings: Settings) -> None:
    try:
        result = batch.call(model)
    except Exception as error:
        raise ValueError(
            f"data: the model cannot be called on a batch of it, and one of {_shapes(batch)} was given: "
            f"{type(error).__name__}: {error}"
        ) from error
    if settings.output is None:
        y = main_result(result)
    else:
        try:
            y = settings.output(result)
        except Exception as error:
            raise ValueError(
                f"output: expected a function of the model's result, a {type(result).__name__}; it raised "
                f"{type(error).__name__}: {error}"
            ) from error
    if not isinstance(y, Tensor):
        raise TypeError(
            f"output: expected a function that returns a tensor of the result, got {type(y).__name__}"
        )
    if not y.is_floating_point() and isinstance(settings.metric, str):
        raise TypeError(
            f"output: expected a tensor of floating-point numbers, got {y.dtype}, through which nothing can be traced "
            "back to the layers; pick logits or features: output=lambda result: result.logits"
        )
    if y.dim() == 0 and isinstance(settings.metric, str):
        raise ValueError(
            f"output: expected a tensor [samples, ...] for metric={settings.metric!r}, got one number for all; pick "
            "what the model returns for each sample, or give a metric of your own"
        )
    if not bool(y.isfinite().all()):
        raise ValueError(
            "data: the model's result on a batch of it is not finite, and no accuracy can be measured against that; "
            "look at model(batch) first, or use a wider dtype than " + str(y.dtype).removeprefix("torch.")
        )
    if batch.samples > 1 and all(t.dim() < 2 for t in user_data.tensors((batch.args, batch.kwargs))):
        # One row, whose features would be dealt out as samples.
        try:
            batch.take([0]).call(model)
        except Exception as error:
            raise ValueError(
                f"data: expected batches whose first dimension counts samples, got {_shapes(batch)}, and the model "
                f"cannot be called on one of {batch.samples} ({type(error).__name__}); put rows together, as "
                "torch.stack(rows) does, or add a dimension: row[None]"
            ) from error


def _shapes(batch: user_data.Batch) -> str:
    shapes: list[str] = []
    user_data.mapped((batch.args, batch.kwargs), lambda t: shapes.append(str(list(t.shape))))
    return ", ".join(shapes) or "no tensors"


def _splits(
    model: nn.Module, data: Any, selection: Any, confirmation: Any, settings: Settings
) -> user_data.Splits | None:
    if data is None:
        if selection is not None or confirmation is not None:
            raise TypeError(
                "data: expected calibration data beside selection_data= and confirmation_data=, got None"
            )
        return None
    given = {"select": selection, "confirm": confirmation}
    names = {"select": "selection_data", "confirm": "confirmation_data"}
    parts = {
        name: user_data.read(value, model, batch_size=settings.batch_size, what=names[name])
        for name, value in given.items()
        if value is not None
    }
    missing = [name for name in given if name not in parts]
    shares = (user_data.SHARES[0], *(user_data.SHARES[1] for _ in missing))
    shares = tuple(s / sum(shares) for s in shares)
    batches = user_data.read(data, model, batch_size=settings.batch_size)
    calibrate, *rest = user_data.split(batches, settings.seed, shares) if missing else [batches]
    chosen = {**parts, **dict(zip(missing, rest, strict=True))}
    return user_data.Splits(calibrate=calibrate, given=latency.typical(batches), **chosen)


def reloaded_accuracy(
    reloaded: nn.Module,
    original: nn.Module,
    data: Any,
    *,
    metric: str | Callable[..., Any] = "cosine",
    seed: int = 0,
    output: Callable[[Any], Tensor] | None = None,
    batch_size: int = 16,
) -> float:
    """The share of the original's accuracy that a saved model keeps, on the part of `data` that chose nothing.

    Args:
        reloaded: what was read back from where the compressed model was saved.
        original: what was compressed.
        data, metric, seed, output, batch_size: as `compress` was given them.

    >>> import torch
    >>> model = nn.Linear(4, 4)
    >>> round(reloaded_accuracy(model, model, torch.ones(8, 4)), 6)
    1.0
    """
    for name, model in (("reloaded", reloaded), ("original", original)):
        if not isinstance(model, nn.Module):
            raise TypeError(f"{name}: expected an nn.Module, got {type(model).__name__}")
    settings = Settings(metric=metric, seed=seed, output=output, batch_size=batch_size)
    splits = _splits(original, data, None, None, settings)
    if splits is None:
        raise TypeError("data: expected what compress was given, got None")
    measured = Metric(metric, original, output)
    return measured(reloaded, splits.confirm).value / measured.original_score(splits.confirm).value


# `stonefx.compress` is this function, and stands before the package of its name.
compress.plain = plain  # type: ignore[attr-defined]
compress.save_transformers = save_transformers  # type: ignore[attr-defined]
compress.reloaded_accuracy = reloaded_accuracy  # type: ignore[attr-defined]
