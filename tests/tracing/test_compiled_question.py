"""A forward that asks whether it is being compiled gives through `optimize` what it gives in eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_forwards import Forward, optimized, rows, same
from torch import nn

from stonefx.tracing import compiled as answers

QUESTIONS: dict[str, Callable[[], bool]] = {
    "torch.compiler": torch.compiler.is_compiling,
    "torch.compiler, of Dynamo": torch.compiler.is_dynamo_compiling,
    "torch._dynamo": torch._dynamo.is_compiling,
}


def check(model: nn.Module, fast: nn.Module) -> None:
    for x in (rows(), rows(9), rows(3).abs()):
        with torch.no_grad():
            same(fast(x), model(x))


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_is_told_that_it_is_not(question: str) -> None:
    asked = QUESTIONS[question]
    model = Forward(lambda model, x: model.chain(x) * (2 if asked() else 3))
    fast = optimized(model, rows())
    assert "whole model against the original" in fast.report.notes[0]
    check(model, fast)


def test_also_between_two_breaks() -> None:
    def forward(model: Any, x: torch.Tensor) -> torch.Tensor:
        x = model.chain(x)
        torch._dynamo.graph_break()
        return x * (2 if torch.compiler.is_compiling() else 3)

    model = Forward(forward)
    check(model, optimized(model, rows()))


def test_a_branch_on_values_that_is_left_out_under_a_compiler_is_taken() -> None:
    def forward(model: Any, x: torch.Tensor) -> torch.Tensor:
        positive = not torch.compiler.is_compiling() and bool((x > 0).all())
        return model.chain(x) * (2 if positive else 3)

    model = Forward(forward)
    check(model, optimized(model, rows()))


def test_a_library_that_leaves_out_checks_alone_is_told_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(model: Any, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling() and x.isnan().any():
            raise ValueError("NaN")
        return model.chain(x)

    monkeypatch.setattr(answers, "_ASKING_FOR_CHECKS", frozenset({__name__.partition(".")[0]}))
    model = Forward(forward)
    fast = optimized(model, rows())
    assert "asks whether it is compiled, and was told so" in " ".join(fast.report.notes)
    check(model, fast)


def test_other_compilers_tell_it_that_it_is() -> None:
    model = Forward(lambda model, x: model.chain(x) * (2 if torch.compiler.is_compiling() else 3)).eval()
    for options in ({"backend": "eager"}, {"backend": "stone", "options": {"inner": "eager"}}):
        torch.compiler.reset()
        with torch.no_grad():
            same(torch.compile(model, **options)(rows()), model.chain(rows()) * 2)
