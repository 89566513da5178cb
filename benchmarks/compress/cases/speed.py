"""Is anything that comes out slower? Each layer beside its dense one, and whole models in prefill and in decode."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from stonefx.benchmarks.case import Arm, Case, CaseResult, Settings
from stonefx.benchmarks.compress.cases import minilm, smollm
from stonefx.benchmarks.compress.rows import Row, Wanted
from stonefx.benchmarks.compress.work import commit
from stonefx.benchmarks.run import measure_watched

RATIO = 0.6
POSITIONS = (1, 256)
PREFILL = 256
SECONDS = 5.0


def speed_rows(wanted: Wanted) -> Iterator[Row]:
    """At 60 % of the bytes: every distinct layer that was emitted, then the model as a whole."""
    yield from _model("minilm", wanted, lambda: minilm.shared()[0], _encode)
    yield from _model("smollm", wanted, lambda: smollm.shared()[0], _generate)


Calls = Callable[[nn.Module], dict[str, Callable[[], Any]]]


def _model(name: str, wanted: Wanted, load: Callable[[], Any], calls: Calls) -> Iterator[Row]:
    if not wanted(f"{name}, whole model", f"{RATIO:g}") and not wanted(f"{name}, layers", f"{RATIO:g}"):
        return
    work = load()
    # In the currency of both, what is not faster stays dense.
    search = work.search.again(cost="both", max_ratio=RATIO)
    small, stats = search.run()
    facts = {"case": "speed", "asked": f"{RATIO:g}", "ratio": stats.compression_ratio, "commit": commit()}
    if wanted(f"{name}, layers", f"{RATIO:g}"):
        found = list(_layers(work.model, small, [row.path for row in stats.layers if row.form != "dense"]))
        metrics = {"layers": len(found), "least speed-up": min((s for s, _ in found), default=1.0)}
        if found:
            metrics["median speed-up"] = sorted(s for s, _ in found)[len(found) // 2]
            metrics["slower"] = sum(s < 1 for s, _ in found)
            metrics["noisy"] = sum(noisy for _, noisy in found)
        yield Row(arm=f"{name}, layers", metrics=metrics, **facts)
    if wanted(f"{name}, whole model", f"{RATIO:g}"):
        metrics = {}
        changes: dict[str, Callable[[nn.Module], Any]] = {"eager": lambda m: m, "inductor": torch.compile}
        for inner, change in changes.items():
            dense, made = calls(change(copy.deepcopy(work.model))), calls(change(small))
            for kind in dense:
                result = _timed(kind, dense[kind], made[kind])
                metrics[f"{kind}, {inner}"] = result.arms[1].speedup
        yield Row(arm=f"{name}, whole model", metrics=metrics, **facts)


def _layers(dense: nn.Module, small: nn.Module, paths: list[str]) -> Iterator[tuple[float, bool]]:
    """Speed-up of each distinct layer at each number of positions, and whether the machine was too busy to tell."""
    seen = set()
    for path in paths:
        before, after = dense.get_submodule(path), small.get_submodule(path)
        sizes = tuple(tuple(t.shape) for t in after.state_dict().values())
        if sizes in seen or not isinstance(before, nn.Linear):
            continue
        seen.add(sizes)
        for positions in POSITIONS:
            x = torch.randn(1, positions, before.in_features)
            result = _timed(path, lambda m=before, x=x: m(x), lambda m=after, x=x: m(x))
            yield result.arms[1].speedup, result.noisy


def _timed(name: str, dense: Callable[[], Any], small: Callable[[], Any]) -> CaseResult:
    with torch.no_grad():
        truth = [dense().double()]
    arms = [Arm(name="dense", call=dense), Arm(name="compressed", call=small)]
    return measure_watched(Case(name=name, arms=arms, truth=truth), Settings(seconds=SECONDS))


def _encode(model: nn.Module) -> dict[str, Callable[[], Tensor]]:
    ids = torch.randint(1000, 20000, (1, PREFILL), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    return {"256 tokens": lambda: model(input_ids=ids, attention_mask=mask)}


def _generate(model: nn.Module) -> dict[str, Callable[[], Tensor]]:
    ids = torch.randint(1000, 20000, (1, PREFILL), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        past = model(input_ids=ids, use_cache=True).past_key_values

    def decode() -> Tensor:
        # The cache grows by a token a call and is cut back, so that each call does the same work.
        y = model(input_ids=ids[:, -1:], past_key_values=past, use_cache=True).logits
        past.crop(PREFILL)
        return y

    return {"prefill": lambda: model(input_ids=ids).logits, "decode": decode}
