"""Training through `torch.compile(backend="stone")` is eager's training: on digits, with hyperbolic maps fused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import stonefx
from stonefx.demo import DigitClassifier, load_digits

INNERS = ["eager", "aot_eager", "inductor"]


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings(action="ignore"):
        yield


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels, _, _ = load_digits()
    return pixels, labels


def classifier() -> DigitClassifier:
    """The demo's classifier in training mode; dropout off, since inductor draws other random numbers than eager."""
    torch.manual_seed(0)
    model = DigitClassifier()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train()


def gradients(model: nn.Module, call: Any, pixels: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    F.cross_entropy(call(pixels), labels).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]


@pytest.mark.parametrize("inner", INNERS)
def test_gradients_are_eagers_to_rounding(inner: str, digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    pixels, labels = digits[0][:64], digits[1][:64]
    model = classifier()
    fast = torch.compile(model, backend="stone", options={"inner": inner})
    mine = gradients(model, fast, pixels, labels)
    exact_model = copy.deepcopy(model).double()
    exact = gradients(exact_model, exact_model, pixels.double(), labels)
    eager = gradients(model, model, pixels, labels)
    found = [
        (site.target, site.status) for site in stonefx.last_report().sites if site.pass_name == "hyperbolic"
    ]
    # In code that inductor fuses, the call of an operator costs more than 64 rows save.
    status = "refused" if inner == "inductor" else "rewritten"
    assert sorted(found) == [(name, status) for name in ("expmap0", "expmap0", "logmap0", "mobius_add")]
    for ours, theirs, truth in zip(mine, eager, exact, strict=True):
        scale = truth.abs().max()
        assert (ours - truth).abs().max() / scale <= 8e-6
        assert (ours - theirs).abs().max() / scale <= 1e-5


@pytest.mark.parametrize("inner", INNERS)
def test_loss_curves_agree_over_fifty_steps(inner: str, digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    pixels, labels = digits
    curves = []
    for compiles in (False, True):
        model = classifier()
        call = torch.compile(model, backend="stone", options={"inner": inner}) if compiles else model
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        losses = []
        for step in range(50):
            rows = torch.arange(step * 64, step * 64 + 64) % len(pixels)
            loss = F.cross_entropy(call(pixels[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curves.append(losses)
    assert curves[0][-1] < 0.5 * curves[0][0], "nothing was learned, so agreement shows nothing"
    torch.testing.assert_close(torch.tensor(curves[1]), torch.tensor(curves[0]), rtol=1e-3, atol=1e-5)


def test_with_dropout_the_random_numbers_are_eagers(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    pixels, labels = digits[0][:64], digits[1][:64]
    torch.manual_seed(0)
    model = DigitClassifier().train()
    fast = torch.compile(model, backend="stone", options={"inner": "eager"})
    results = []
    for call in (model, fast):
        torch.manual_seed(3)
        results.append(gradients(model, call, pixels, labels))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
