"""Is anything that comes out slower? Each layer beside its dense one, and whole models in prefill and in decode."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import stonefx
from stonefx.benchmarks.compress.cases import minilm, smollm
from stonefx.benchmarks.compress.rows import Row, Wanted
from stonefx.benchmarks.compress.work import Shared, commit, kept
from stonefx.machine import clock

RATIO = 0.6
PREFILL = 256
LAYER_SECONDS, MODEL_SECONDS = 0.5, 20.0
ROUNDS = 41
CACHES = 1 << 26
"""Bytes that are written between two calls of a layer."""

Call = Callable[[], Any]
Change = Callable[[nn.Module, Mapping[str, Any]], nn.Module]


def speed_rows(wanted: Wanted) -> Iterator[Row]:
    """At 60 % of the bytes: every distinct layer that was emitted, then the model as a whole."""
    yield from _model(
        "minilm",
        wanted,
        lambda: minilm.shared()[0].model,
        lambda: minilm.shared()[0],
        {"256 tokens": _encode},
        ((16, 256),),
    )
    yield from _model(
        "smollm",
        wanted,
        lambda: smollm.loaded()[0],
        lambda: smollm.shared()[0],
        {"prefill": _prefill, "decode": _decode},
        ((4, 256), (1, 1)),
    )


def eager(model: nn.Module, example: Mapping[str, Any]) -> nn.Module:
    return model


def inductor(model: nn.Module, example: Mapping[str, Any]) -> nn.Module:
    compiled: Any = torch.compile(model)
    return compiled


def optimized(model: nn.Module, example: Mapping[str, Any]) -> nn.Module:
    """By `stonefx.optimize` over inductor."""
    return stonefx.optimize(model, dict(example), inner="inductor", dynamic=False)


RUNNERS: dict[str, tuple[Change, Change]] = {"eager": (eager, eager), "inductor": (inductor, optimized)}
"""How the model as it was is run, and the compressed one."""

Work = Callable[[nn.Module, Change], Call]


@dataclass(frozen=True)
class _Small:
    """A compressed model and what is to be known of it."""

    model: nn.Module
    ratio: float
    accuracy: float
    changed: list[str]
    commit: str


def _compressed(name: str, work: Callable[[], Shared]) -> _Small:
    place = kept(f"speed-{name}")
    if place is not None and place.exists():
        return _Small(**torch.load(place, weights_only=False))
    small, stats = work().search.again(cost="both", max_ratio=RATIO).run()
    changed = [row.path for row in stats.layers if row.form != "dense"]
    made = _Small(small, stats.compression_ratio, stats.accuracy_preserved or 0.0, changed, commit())
    if place is not None:
        torch.save(vars(made), place)
    return made


def _model(
    name: str,
    wanted: Wanted,
    load: Callable[[], nn.Module],
    work: Callable[[], Shared],
    kinds: Mapping[str, Work],
    shapes: Sequence[tuple[int, int]],
) -> Iterator[Row]:
    """`shapes`: samples and positions that layers are called with, in the data or in use."""
    layers, whole = f"{name}, layers", {r: f"{name}, whole model, {r}" for r in RUNNERS}
    if not any(wanted(arm, f"{RATIO:g}") for arm in (layers, *whole.values())):
        return
    small, dense = _compressed(name, work), load()
    base = Row(
        case="speed",
        arm="",
        asked=f"{RATIO:g}",
        ratio=small.ratio,
        note=f"the plan is of {small.commit}; medians of rounds in turn, by processor time of one thread",
        commit=commit(),
    )
    if wanted(layers, f"{RATIO:g}"):
        metrics: dict[str, float] = {"layers changed": len(small.changed)}
        for shape in shapes:
            found = sorted(_layers(dense, small.model, small.changed, shape))
            at = f"at {shape[0]} x {shape[1]}"
            if found:
                metrics[f"distinct, {at}"] = len(found)
                metrics[f"least, {at}"] = found[0]
                metrics[f"median, {at}"] = found[len(found) // 2]
                metrics[f"slower, {at}"] = sum(s < 1 for s in found)
        yield replace(base, arm=layers, metrics=metrics)
    for runner, (before, after) in RUNNERS.items():
        if not wanted(whole[runner], f"{RATIO:g}"):
            continue
        metrics = {"accuracy kept": small.accuracy}
        for kind, calls in kinds.items():
            torch._dynamo.reset()
            with torch.no_grad():
                pair = [calls(copy.deepcopy(dense), before), calls(copy.deepcopy(small.model), after)]
                seconds, ratio = _timed(pair, MODEL_SECONDS)
            metrics[kind] = ratio
            metrics[f"{kind}, dense milliseconds"] = seconds * 1e3
        yield replace(base, arm=whole[runner], metrics=metrics)


def _layers(dense: nn.Module, small: nn.Module, paths: list[str], shape: tuple[int, int]) -> Iterator[float]:
    """Speed-up of each distinct layer."""
    seen = set()
    for path in paths:
        before, after = dense.get_submodule(path), small.get_submodule(path)
        sizes = tuple(tuple(t.shape) for t in after.state_dict().values())
        if sizes in seen or not isinstance(before, nn.Linear):
            continue
        seen.add(sizes)
        # A layer that reads fewer units is given fewer.
        width = after.in_features if isinstance(after, nn.Linear) else before.in_features
        inputs = [torch.randn(*shape, w) for w in (before.in_features, width)]
        with torch.no_grad():
            calls: list[Call] = [partial(layer, x) for layer, x in zip((before, after), inputs, strict=True)]
            yield _cold(calls, LAYER_SECONDS)


def _timed(calls: list[Call], seconds: float) -> tuple[float, float]:
    """Seconds of the first of two calls, and how many times as fast the other is: medians of rounds in turn."""
    rounds = clock.interleaved(calls, torch.device("cpu"), seconds=seconds, rounds=ROUNDS)
    return statistics.median(r[0] for r in rounds), statistics.median(r[0] / r[1] for r in rounds)


def _cold(calls: list[Call], seconds: float) -> float:
    """How many times as fast the second call is where weights come from memory, as they do between other layers."""
    now = clock.clock_of(torch.device("cpu"))
    others = torch.zeros(CACHES // 4)
    rounds: list[list[float]] = []
    begun = now()
    while len(rounds) < 7 or (len(rounds) < ROUNDS and now() - begun < seconds):
        times = [0.0, 0.0]
        for i in (0, 1) if len(rounds) % 2 else (1, 0):
            others.add_(1.0)
            start = now()
            calls[i]()
            times[i] = now() - start
        rounds.append(times)
    return statistics.median(dense / small for dense, small in rounds)


def _tokens(count: int) -> Tensor:
    return torch.randint(1000, 20000, (1, count), generator=torch.Generator().manual_seed(0))


def _encode(model: nn.Module, change: Change) -> Call:
    given = {"input_ids": _tokens(PREFILL), "attention_mask": torch.ones(1, PREFILL, dtype=torch.long)}
    return partial(change(model, given), **given)


class _Logits(nn.Module):
    """A language model without its caches in the result."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


class _Step(nn.Module):
    """One token after `PREFILL` others, whose keys and values are held; they are not added to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        from transformers import DynamicCache

        self.model = model
        past = model(input_ids=_tokens(PREFILL), use_cache=True).past_key_values
        self.cache: Any = DynamicCache
        self.count = len(past.layers)
        for i, layer in enumerate(past.layers):
            self.register_buffer(f"keys_{i}", layer.keys.clone())
            self.register_buffer(f"values_{i}", layer.values.clone())

    def forward(self, input_ids: Tensor, position: Tensor) -> Tensor:
        past = self.cache()
        for i in range(self.count):
            past.update(getattr(self, f"keys_{i}"), getattr(self, f"values_{i}"), i)
        logits: Tensor = self.model(
            input_ids=input_ids, past_key_values=past, use_cache=True, cache_position=position
        ).logits
        return logits


def _prefill(model: nn.Module, change: Change) -> Call:
    given = {"input_ids": _tokens(PREFILL)}
    return partial(change(_Logits(model), given), **given)


def _decode(model: nn.Module, change: Change) -> Call:
    given = {"input_ids": _tokens(1), "position": torch.tensor([PREFILL])}
    return partial(change(_Step(model), given), **given)
