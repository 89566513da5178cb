"""Two models before and after: a chain of linear layers, and digits with a hyperbolic embedding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

import stonefx
from stonefx.benchmarks import Arm, Case, CaseResult, Settings, result_table
from stonefx.benchmarks.case import relative_difference
from stonefx.benchmarks.formulas import expmap0, logmap0, mobius_add
from stonefx.benchmarks.run import measure_watched
from stonefx.benchmarks.suites.chain import chain_cases, seed_chain
from stonefx.report import Report

Say = Callable[[str], object]
QUICK = Settings(rounds=100, seconds=2.0)


class MissingPackage(RuntimeError):
    """A package that only the demo needs is not installed; the message names the command."""


class DigitClassifier(nn.Module):
    """8x8 digits: features, a translation in the Poincare ball, and a head of linear layers only."""

    def __init__(self, c: float = 1.0) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32))
        self.translation = nn.Parameter(torch.full((32,), 0.05))
        self.head = nn.Sequential(
            nn.Linear(32, 128), nn.Linear(128, 256), nn.Dropout(0.1), nn.Linear(256, 64), nn.Linear(64, 10)
        )
        self.c = c

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels `[batch, 64]` to class scores `[batch, 10]`."""
        x = expmap0(self.features(pixels), self.c)
        x = mobius_add(x, expmap0(self.translation, self.c), self.c)
        return self.head(logmap0(x, self.c))


def run_demo(say: Say = print) -> tuple[dict[str, Any], Report]:
    """Run both parts.

    Args:
        say: takes each piece of text to print.

    Returns:
        What was printed, as plain data: `chain` and `digits`, each with its report and timings; and the report of the
        second model.

    Raises:
        MissingPackage: scikit-learn is not installed.
        RuntimeError: an optimized model does not answer as the original does.
    """
    data = load_digits()
    chain = chain_demo(say)
    digits, report = digits_demo(data, say)
    return {"chain": chain, "digits": digits}, report


def chain_demo(say: Say = print, settings: Settings = QUICK) -> dict[str, Any]:
    """Optimize the chain 128 -> 256 -> 128 -> 64 -> 32, compare with float64, and time it."""
    say(_title("1. A chain of linear layers, 128 -> 256 -> 128 -> 64 -> 32"))
    model = seed_chain()
    x = torch.randn(32, 128, generator=torch.Generator().manual_seed(0))
    fast = stonefx.optimize(model, (x,))
    with torch.no_grad():
        truth = copy.deepcopy(model).double()(x.double())
        errors = {
            name: relative_difference(one(x), [truth]) for name, one in (("before", model), ("after", fast))
        }
    before, after = (sum(p.numel() for p in one.parameters()) for one in (model, fast))
    say(str(fast.report))
    say(f"\nparameters: {before:,} -> {after:,} ({100 * after / before:.2f} %)")
    say(f"difference from float64: {errors['before']:.1e} before, {errors['after']:.1e} after\n")
    results = [measure_watched(case, settings) for case in chain_cases(batches=(1, 32))]
    say(result_table(results))
    return {
        "parameters_before": before,
        "parameters_after": after,
        "error_before": errors["before"],
        "error_after": errors["after"],
        **_record(cast(Report, fast.report), results),
    }


def digits_demo(
    data: tuple[torch.Tensor, ...], say: Say = print, settings: Settings = QUICK, epochs: int = 20
) -> tuple[dict[str, Any], Report]:
    """Train the classifier, optimize it, and show that it answers as before.

    Args:
        data: training pixels and labels, test pixels and labels, as `load_digits` gives them.
        say: takes each piece of text to print.
        settings: of the timing.
        epochs: of the training.

    Returns:
        What was printed, as plain data, and the report.

    Raises:
        RuntimeError: the accuracy before and after differs.
    """
    train_x, train_y, test_x, test_y = data
    say(_title("2. Handwritten digits: a Poincare-ball embedding and a linear head"))
    model = train(train_x, train_y, epochs)
    fast = stonefx.optimize(model, (test_x,))
    with torch.no_grad():
        before, after = (accuracy(one, test_x, test_y) for one in (model, fast))
        truth = copy.deepcopy(model).double()(test_x.double())
        error = relative_difference(fast(test_x), [truth])
    if before != after:
        raise RuntimeError(f"the optimized classifier has accuracy {after:.4f}, expected {before:.4f}")
    say(str(fast.report))
    say(f"\naccuracy on {len(test_y)} test digits: {before:.2%} before, {after:.2%} after (equal)")
    say(f"difference from float64 after: {error:.1e}\n")
    result = measure_watched(digits_case(model, test_x[:64]), settings)
    say(result_table([result]))
    report = cast(Report, fast.report)
    results = {
        "accuracy_before": before,
        "accuracy_after": after,
        "error_after": error,
        **_record(report, [result]),
    }
    return results, report


def load_digits() -> tuple[torch.Tensor, ...]:
    """Scikit-learn's digits, scaled to at most one: 1,347 to train on, 450 to test on."""
    try:
        from sklearn.datasets import load_digits as load
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingPackage(
            "the demo needs scikit-learn for its digits: pip install 'stonefx[demo]'"
        ) from error
    pixels, labels = load(return_X_y=True)
    parts = train_test_split(pixels / 16, labels, test_size=0.25, random_state=0, stratify=labels)
    train_x, test_x, train_y, test_y = (torch.from_numpy(part) for part in parts)
    return train_x.float(), train_y, test_x.float(), test_y


def train(pixels: torch.Tensor, labels: torch.Tensor, epochs: int) -> DigitClassifier:
    """Train a classifier with Adam from a fixed seed; it comes back in eval mode."""
    torch.manual_seed(0)
    model = DigitClassifier().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    threads = torch.get_num_threads()
    # The matrices are so small that waiting for a second thread costs more than it saves.
    torch.set_num_threads(1)
    try:
        for _ in range(epochs):
            for batch in torch.randperm(len(pixels)).split(128):
                optimizer.zero_grad()
                F.cross_entropy(model(pixels[batch]), labels[batch]).backward()
                optimizer.step()
    finally:
        torch.set_num_threads(threads)
    return model.eval()


def accuracy(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the digits that a model names rightly."""
    return (model(pixels).argmax(dim=-1) == labels).float().mean().item()


def digits_case(model: nn.Module, pixels: torch.Tensor) -> Case:
    """The classifier on one batch, eager and through both doors."""
    torch.compiler.reset()
    with torch.no_grad():
        truth = copy.deepcopy(model).double()(pixels.double())
    inductor, compiled = copy.deepcopy(model), copy.deepcopy(model)
    inductor.compile()
    compiled.compile(backend="stone")
    models = {
        "eager": model,
        "inductor": inductor,
        "compile(stone)": compiled,
        "stonefx.optimize": stonefx.optimize(model, (pixels,)),
    }
    arms = [Arm(name=name, call=partial(one, pixels)) for name, one in models.items()]
    return Case(name=f"{len(pixels)} digits", arms=arms, truth=[truth])


def _title(text: str) -> str:
    return f"\n{text}\n{'=' * len(text)}\n"


def _record(report: Report, results: list[CaseResult]) -> dict[str, Any]:
    timings = [
        {"case": result.name, "noisy": result.noisy, "arms": [asdict(arm) for arm in result.arms]}
        for result in results
    ]
    return {"summary": report.summary(), "timings": timings}
