"""What accuracy means, sample by sample, and how sure one can be that a floor holds."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from . import agreement, processes
from .data import Batch

RESAMPLES = 2000
REFERENCE_BYTES = 1 << 29
"""Results of the original model up to this size are kept; beyond it the original runs again each time."""


@dataclass(frozen=True)
class Score:
    """A metric's value, with what is known of its spread.

    Attributes:
        value: the mean over samples; of the user's own metric what it returned.
        samples: one value a sample, or None where the metric gave one number for all.
    """

    value: float
    samples: Tensor | None = None

    @property
    def of_two(self) -> bool:
        """Whether each sample is known, and right or wrong."""
        return self.samples is not None and bool(((self.samples == 0) | (self.samples == 1)).all())


def main_result(output: Any) -> Tensor:
    """The tensor that stands for a model's result: its logits, else its first floating-point tensor.

    Raises:
        TypeError: the result holds no floating-point tensor.
    """
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    values = (
        output.values()
        if isinstance(output, Mapping)
        else output
        if isinstance(output, (tuple, list))
        else ()
    )
    for value in values:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
    raise TypeError(
        f"expected a model whose result has a floating-point tensor, got {type(output).__name__}; "
        "say which one counts with output=, such as output=lambda result: result.scores"
    )


def cosine(y: Tensor, reference: Tensor, mask: Tensor | None) -> Tensor:
    """Cosine of each sample's result with the original's; the mean over positions where a sample has several."""
    y, reference = _by_position(y), _by_position(reference)
    return _mean(functional.cosine_similarity(y, reference, dim=-1, eps=1e-30), mask)


def relative(y: Tensor, reference: Tensor, mask: Tensor | None) -> Tensor:
    """`1 - ||y - y'|| / ||y||` of each sample."""
    y, reference = _by_position(y), _by_position(reference)
    if mask is not None and mask.shape == y.shape[:2]:
        y, reference = y * mask[..., None], reference * mask[..., None]
    y, reference = y.flatten(1), reference.flatten(1)
    return 1 - (y - reference).norm(dim=1) / reference.norm(dim=1).clamp_min(1e-30)


def top1(y: Tensor, reference: Tensor, mask: Tensor | None) -> Tensor:
    """The share of each sample's positions whose greatest entry is where the original's is."""
    axis = 1 if y.dim() > 3 else -1
    same = (y.argmax(axis) == reference.argmax(axis)).double()
    return _mean(same if same.dim() > 1 else same[:, None], mask)


METRICS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "cosine": cosine,
    "relative": relative,
    "top1": top1,
}


def _by_position(y: Tensor) -> Tensor:
    """`[samples, positions, features]`: sequences keep their positions, images are one."""
    y = y.double()
    if y.dim() == 3:
        return y
    return y.reshape(y.shape[0], 1, -1) if y.dim() else y.reshape(1, 1, 1)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None and mask.shape == values.shape:
        weights = mask.to(values)
        return (values * weights).sum(1) / weights.sum(1).clamp_min(1)
    return values.flatten(1).mean(1)


class Metric:
    """A metric by name or of the user, measured against the original model.

    Args:
        metric: "cosine", "relative", "top1", or a callable `metric(model)` or `metric(model, batches)` that returns a
            number, or one number a sample as a tensor; higher is better.
        original: the model that results are compared with.
        output: which tensor of a result counts; None: `main_result`.
    """

    def __init__(
        self, metric: Any, original: nn.Module, output: Callable[[Any], Tensor] | None = None
    ) -> None:
        if isinstance(metric, str) and metric not in METRICS:
            raise ValueError(
                f"metric: expected one of {', '.join(map(repr, METRICS))} or a callable metric(model) -> float, "
                f"got {metric!r}"
            )
        if not isinstance(metric, str) and not callable(metric):
            raise TypeError(
                f"metric: expected a name or a callable metric(model), got {type(metric).__name__}"
            )
        self.metric = metric
        self.original = original
        self.output = output or main_result
        self.takes_batches = callable(metric) and _required(metric) >= 2
        self._references: dict[int, list[Tensor] | None] = {}
        self._own: dict[int, Score] = {}

    @property
    def named(self) -> bool:
        """Whether it compares with the original's results, which then scores 1."""
        return isinstance(self.metric, str)

    @property
    def uses_splits(self) -> bool:
        """Whether it is measured on the batches given, not on data of its own."""
        return self.named or self.takes_batches

    def original_score(self, batches: list[Batch]) -> Score:
        """Of the original model."""
        if self.named:
            return Score(1.0)
        key = id(batches) if self.takes_batches else 0
        if key not in self._own:
            self._own[key] = processes.of_first(lambda: self._call(self.original, batches))
        return self._own[key]

    def __call__(self, model: nn.Module, batches: list[Batch], progress: str | None = None) -> Score:
        """The score of a model; `progress` names the bar to show."""
        if not self.named:
            return processes.of_first(lambda: self._call(model, batches))
        references = self._kept_references(batches)
        scores = []
        measure = METRICS[self.metric]
        with torch.no_grad():
            bar = tqdm(processes.mine(batches), desc=progress, disable=progress is None, leave=False)
            for place, (number, batch) in enumerate(bar):
                reference = (
                    references[place]
                    if references is not None
                    else self.output(batch.call(self.original)).float()
                )
                y = self.output(batch.call(model))
                mask = None if batch.mask is None else batch.mask.to(y.device)
                scores.append((number, measure(y, reference.to(y.device), mask).double().cpu()))
        dealt = sorted((entry for own in processes.gathered(scores) for entry in own), key=lambda e: e[0])
        samples = torch.cat([values for _, values in dealt])
        return Score(samples.mean().item(), samples)

    def _call(self, model: nn.Module, batches: list[Batch]) -> Score:
        try:
            with torch.no_grad():
                value = self.metric(model, batches) if self.takes_batches else self.metric(model)
        finally:
            # It may have set another mode, or left the one that it found.
            model.eval()
        try:
            samples = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"metric: expected a function that returns a number, or a tensor of one a sample, got {value!r:.80} of "
                f"type {type(value).__name__}"
            ) from None
        of_all = samples.numel() == 1 and (
            not self.takes_batches or sum(batch.samples for batch in batches) > 1
        )
        if samples.dim() == 0 or of_all:
            return Score(samples.item())
        return Score(samples.mean().item(), samples.flatten())

    def _kept_references(self, batches: list[Batch]) -> list[Tensor] | None:
        key = id(batches)
        if key not in self._references:
            kept: list[Tensor] | None = []
            size = 0
            with torch.no_grad():
                for _, batch in processes.mine(batches):
                    y = self.output(batch.call(self.original))
                    size += y.numel() * y.element_size() * len(batches) if not kept else 0
                    if size > REFERENCE_BYTES:
                        kept = None
                        break
                    assert kept is not None
                    kept.append(y.cpu())
            self._references[key] = kept
        return self._references[key]


def lower_bound(score: Score, original: Score, floor: float, confidence: float, seed: int) -> float:
    """What `score / original` is at least, with the given confidence; the plain ratio where no spread is known.

    Samples that are all 0 or 1 have exact bounds (`agreement`), since a bootstrap of a hundred agreements knows no
    doubt, and one of a few that changed knows too much. Everything else has the studentised bootstrap over samples
    (Efron and Tibshirani 1993, section 12.5).
    """
    if not (original.value > 0 and math.isfinite(score.value)):
        # A share of nothing, or of what falls as it gets better, is none.
        return -math.inf
    if score.samples is None:
        return score.value / original.value
    if len(score.samples) < 2 and not score.of_two:
        # One sample has no spread by which anything could be said of others.
        return -math.inf
    samples, before = score.samples, original.samples
    if before is not None and len(before) == len(samples):
        if score.of_two and original.of_two:
            lost, gained = int((before > samples).sum()), int((before < samples).sum())
            return agreement.kept(lost, gained, int(before.sum()), len(samples), confidence)
        # Paired: how far each sample is above its share of the floor. The bound of the mean, as a ratio.
        return floor + _bootstrap(samples - floor * before, confidence, seed) / original.value
    if score.of_two:
        return agreement.share(int(samples.sum()), len(samples), confidence) / original.value
    return _bootstrap(samples, confidence, seed) / original.value


def check_original(score: Score, floor: bool) -> str | None:
    """Whether a share of the original's score means anything.

    Args:
        score: of the original model.
        floor: whether such a share is asked for.

    Returns:
        What a reader should know where it means nothing and none is asked for.

    Raises:
        ValueError: it is no finite number, or there is no share of it that could be a floor.
    """
    if not math.isfinite(score.value):
        raise ValueError(
            f"metric: expected a finite number for the original model, got {score.value}; look at metric(model) first"
        )
    if score.value > 0:
        return None
    if floor:
        raise ValueError(
            "metric: expected a positive number for the original model, of which the floor is the share min_accuracy, "
            f"got {score.value:g}; return one that is higher where the model is better and 0 at worst, such as an "
            "accuracy, or math.exp(-loss)"
        )
    return (
        f"the metric of the original is {score.value:g}, and shares of a number that is not positive say nothing; "
        "return one that is 0 at worst, such as math.exp(-loss)"
    )


def flawless(score: Score, original: Score, confidence: float) -> float:
    """What `lower_bound` would say of a score by which nothing changed, over as many samples."""
    if not score.of_two or not original.value > 0:
        return 1.0
    assert score.samples is not None
    same = original if original.samples is not None else Score(1.0, torch.ones_like(score.samples))
    return lower_bound(same, original, 1.0, confidence, 0)


def samples_needed(floor: float, confidence: float) -> int:
    """How many agreements, without one exception, show a share above `floor`.

    >>> samples_needed(0.95, 0.95)
    59
    """
    return math.ceil(math.log(1 - confidence) / math.log(floor)) if 0 < floor < 1 else 1


def _bootstrap(values: Tensor, confidence: float, seed: int) -> float:
    n = len(values)
    mean, deviation = values.mean(), values.std()
    if not deviation > 0:
        return mean.item()
    generator = torch.Generator().manual_seed(seed)
    drawn = values[torch.randint(n, (RESAMPLES, n), generator=generator)]
    errors = drawn.std(1) / math.sqrt(n)
    # A resample of equal values has no error of its own; it stands for a far studentised mean.
    errors = errors.clamp_min(deviation.item() * 1e-3 / math.sqrt(n))
    studentised = (drawn.mean(1) - mean) / errors
    return (mean - studentised.quantile(confidence) * deviation / math.sqrt(n)).item()


def _required(metric: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters
    )
