"""What is timed, for how long, and what came out: the vocabulary of the harness."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one call does, by the graph that it runs: floating-point operations, and bytes of operands and results."""

    flops: int
    bytes: int

    @classmethod
    def before_and_after(cls, summary: Mapping[str, int]) -> tuple[Work, Work]:
        """The work of a model and of what it became, of `Report.summary()`."""
        before, after = (
            cls(flops=summary[f"flops_{when}"], bytes=summary[f"bytes_{when}"])
            for when in ("before", "after")
        )
        return before, after


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to compute the same thing.

    Args:
        name: as it stands in the table.
        call: computes once; returns a tensor or a sequence of tensors.
        work: what a call does; None where that is not known.
        allocates: its memory comes from torch's allocator, so that its peak can be told.
        prepared_seconds: what was spent on it before the first call, where that compiled.
    """

    name: str
    call: Callable[[], Any]
    work: Work | None = None
    allocates: bool = True
    prepared_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model of a case and its call, for engines that take a model.

    Args:
        model: in eval mode.
        args, kwargs: of the call.
        tensors: those of a result, in the order of the case's truth.
    """

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tensors: Callable[[Any], list[torch.Tensor]] = lambda result: [result]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Arms that compute the same thing on the same input.

    Args:
        name: the input, such as "batch 8".
        arms: at least one; the first is the baseline of every speed-up.
        truth: the float64 result, in the form that the arms return.
        grad: whether gradients are recorded while the arms run.
        synchronize: waits for the device; None where calls return when done.
        sample_seconds: a sample repeats the call until it lasts this long; None: as the settings say. Where an arm's
            calls are short beside those of the others, the first finds the caches as the others left them.
        facts: what else is to be kept, in JSON's own types, from the measured result.
        subject: the model that the first arm calls, where there is one.
        left_out: arm -> why it does not take part.
    """

    name: str
    arms: Sequence[Arm]
    truth: Sequence[torch.Tensor]
    grad: bool = False
    synchronize: Callable[[], None] | None = None
    sample_seconds: float | None = None
    facts: Callable[[CaseResult], dict[str, Any]] | None = None
    subject: Subject | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A case that is made, and compiled, when its turn comes, and not at all where it is not wanted."""

    name: str
    make: Callable[[], Case]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long to measure.

    Args:
        rounds: rounds wanted, each one sample of every arm.
        min_rounds: rounds taken even when `seconds` are over.
        seconds: time limit of a case; no round is started after it.
        sample_seconds: a sample repeats the call until it lasts at least this long.
        warmup: untimed calls of each arm, before calibration.
        cold: each sample is one call that finds the caches full of something else.
        stolen: a round counts as disturbed where its spin took more than this multiple of the fastest.
        seed: of the order of the arms.
    """

    rounds: int = 300
    min_rounds: int = 7
    seconds: float = 20.0
    sample_seconds: float = 2e-4
    warmup: int = 5
    cold: bool = False
    stolen: float = 1.5
    seed: int = 0

    @classmethod
    def of(cls, device: str, seconds: float | None = None, cold: bool = False) -> Settings:
        """Those of a device: on CUDA, where events scatter little and the minutes of a card are dear, half a second.

        >>> Settings.of("cuda").seconds, Settings.of("cpu").seconds, Settings.of("cuda", 3.0).seconds
        (0.5, 20.0, 3.0)
        """
        if device == "cuda":
            return cls(rounds=100, seconds=seconds or 0.5, sample_seconds=2e-3, cold=cold)
        return cls(cold=cold) if seconds is None else cls(seconds=seconds, cold=cold)


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """Seconds a call of one arm, its speed-up against the baseline, its difference from float64.

    Args:
        name: of the arm.
        seconds: the median.
        quartiles: of the seconds.
        speedup: the median of the paired ratios.
        error: the largest relative difference from float64.
        calls_per_sample: how many calls were timed at once.
        interval: of the speed-up, in which its true median lies with 95 % confidence; None in results of old.
        first_seconds: what the first call took, compiling and all; None in results of old.
        peak_bytes: the most that was allocated during a call; None where that was not told.
        work: what a call does; None where that is not known.
        host_seconds: the median by the host's clock, where `seconds` is that of a device's events.
    """

    name: str
    seconds: float
    quartiles: tuple[float, float]
    speedup: float
    error: float
    calls_per_sample: int
    interval: tuple[float, float] | None = None
    first_seconds: float | None = None
    peak_bytes: int | None = None
    work: Work | None = None
    host_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """The arms of one case, the rounds kept and thrown away, and whether the machine was too busy to tell."""

    name: str
    arms: list[ArmResult]
    rounds: int
    disturbed: int
    noisy: bool
    samples: dict[str, list[float]] = field(repr=False)
    facts: dict[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    """Of an earlier run that a file holds; None for what is measured now."""

    def ratio(self, first: str, second: str) -> float:
        """Median over the rounds of the time of arm `first` over that of arm `second`."""
        return statistics.median(self.ratios(first, second))

    def ratios(self, first: str, second: str) -> list[float]:
        """The time of arm `first` over that of arm `second` in each round."""
        pairs = zip(self.samples[first], self.samples[second], strict=True)
        return [one / other for one, other in pairs]


def relative_difference(result: Any, truth: Sequence[torch.Tensor]) -> float:
    """Largest `max|result - truth| / max|truth|` over the tensors of a result; NaN where one holds a NaN.

    Args:
        result: a tensor or a sequence of tensors.
        truth: float64 tensors of the same shapes.

    Raises:
        ValueError: the number of tensors or a shape differs; the message says which.

    >>> relative_difference(torch.tensor([1.0, 2.0]), [torch.tensor([1.0, 4.0])])
    0.5
    """
    tensors = [result] if isinstance(result, torch.Tensor) else list(result)
    if [tuple(t.shape) for t in tensors] != [tuple(t.shape) for t in truth]:
        raise ValueError(
            f"the arm returned shapes {[tuple(t.shape) for t in tensors]}, "
            f"expected {[tuple(t.shape) for t in truth]}"
        )
    differences = [
        # On the device of the result: large ones take longer to bring to the host than to compute.
        (_largest(value.detach().double() - exact.to(value.device)) / _largest(exact).to(value.device)).item()
        for value, exact in zip(tensors, truth, strict=True)
    ]
    return float("nan") if any(d != d for d in differences) else max(differences)


def _largest(value: torch.Tensor) -> torch.Tensor:
    return value.abs().max()


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """An interval that holds the true median with at least this confidence, whatever the values are distributed like.

    It lies between two order statistics: each value is above the median with probability 1/2, so that their number is
    binomial. A bootstrap of few values gives intervals that are too narrow; this one is exact. Of less than six
    values no interval has 95 %, and this is from the least to the largest.

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    (1.0, 6.0)
    >>> median_interval(range(100))
    (39, 60)
    """
    ordered = sorted(values)
    count = len(ordered)
    # As many are left out at each end as leave the chance of a median beyond them small; whole numbers do not vanish.
    allowed = Fraction(1 - confidence) / 2 * 2**count
    out, ways, beyond = 0, 1, 1
    while beyond <= allowed and 2 * (out + 1) < count:
        out += 1
        ways = ways * (count - out + 1) // out
        beyond += ways
    out = max(out - (beyond > allowed), 0)
    return ordered[out], ordered[count - 1 - out]


def quartiles(times: Sequence[float]) -> tuple[float, float]:
    """Lower and upper quartile.

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 4.0)
    """
    if len(times) == 1:
        return times[0], times[0]
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, high
