"""Folds that their dtype does not hold are not used: the original graph runs, and the report says so."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import stonefx


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch._dynamo.reset()


def chain(dtype: torch.dtype, *widths: int, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(widths))
    return nn.Sequential(*layers).requires_grad_(False).eval().to(dtype)


def compiled(model: nn.Module, x: torch.Tensor, **options: Any) -> Callable[..., torch.Tensor]:
    """The model compiled and called once, its weights folded."""
    fast = torch.compile(model, backend="stone", options={"inner": "eager"} | options)
    fast(x)
    assert stonefx.last_report().rewritten("linear_chain"), stonefx.last_report()
    assert not stonefx.last_report().notes
    return fast


def error(value: torch.Tensor, exact: torch.Tensor) -> float:
    return float((value.double() - exact).abs().max() / exact.abs().max())


def quietly(fast: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings(action="ignore", category=stonefx.StonefxWarning):
        return fast(x)


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# Powers of two that the weights of the layers are scaled by, as shares of the smallest and largest exponent.
SCALES = [
    (0.6, 0.6),
    (0.9, 0.3),
    (0.3, 0.9),
    (-0.6, -0.6),
    (-0.9, -0.3),
    (-0.3, -0.9),
    (0.9, -0.9),
    (-0.9, 0.9),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_are_as_good_as_eagers_at_every_scale(dtype: torch.dtype) -> None:
    model = chain(dtype, 16, 64, 32, bias=False)
    start = copy.deepcopy(model)
    reach = -math.log2(torch.finfo(dtype).tiny)
    x = torch.randn(4, 16).to(dtype)
    fast = compiled(model, x)
    unused = 0
    for shares in SCALES:
        exponents = [round(share * reach) for share in shares]
        for layer, first, exponent in zip(model, start, exponents, strict=True):
            layer.weight.copy_(first.weight * 2.0**exponent)
        # The first layer's results are ordinary numbers, and the second's where the dtype holds them.
        scaled = (x.double() * 2.0 ** -exponents[0]).to(dtype)
        exact = copy.deepcopy(model).double()(scaled.double())
        got, eager = quietly(fast, scaled), model(scaled)
        assert eager.isfinite().all() and error(eager, exact) < 0.1
        assert error(got, exact) <= 4 * error(eager, exact) + 16 * torch.finfo(dtype).eps
        unused = max(unused, len(stonefx.last_report().notes))
    assert unused, "every fold was used; the scales show nothing"
    for layer, first in zip(model, start, strict=True):
        layer.weight.copy_(first.weight)
    assert error(fast(x), copy.deepcopy(start).double()(x.double())) < 32 * torch.finfo(dtype).eps


def grow(model: nn.Sequential) -> None:
    for layer in model:
        layer.weight.fill_(200.0)


def shrink(model: nn.Sequential) -> None:
    for layer in model:
        layer.weight.fill_(1e-4)


def shrink_a_column(model: nn.Sequential) -> None:
    model[0].weight[:, 3] = 1e-6


def lose_a_number(model: nn.Sequential) -> None:
    model[1].weight[2, 2] = math.nan


def overflow_the_bias(model: nn.Sequential) -> None:
    model[0].bias.fill_(300.0)
    model[1].weight[0].fill_(300.0)
    model[1].weight[0, ::2] *= -1
    model[1].weight[0, 0] = -40.0


UPDATES = [
    (grow, "the fold '0+1.weight' reaches 2.6e+06, and float16 ends at 6.6e+04"),
    (
        shrink,
        "the fold '0+1.weight' has a row or column of at most 6.4e-07, where float16 loses its precision",
    ),
    (shrink_a_column, "where float16 loses its precision"),
    (lose_a_number, "the fold '0+1.weight' is not finite"),
    (overflow_the_bias, "the fold '0+1.bias' reaches 7.8e+04, and float16 ends at 6.6e+04"),
]


@pytest.mark.parametrize(("update", "reason"), UPDATES, ids=lambda value: getattr(value, "__name__", None))
def test_the_report_says_why_a_fold_is_not_used(update: Callable[[nn.Sequential], None], reason: str) -> None:
    model = chain(torch.float16, 12, 64, 20)
    x = torch.full((1, 12), 1e-3).half()
    fast = compiled(model, x)
    update(model)
    with pytest.warns(stonefx.StonefxWarning, match="the original graph runs for some weights: the fold"):
        torch.testing.assert_close(fast(x), model(x), equal_nan=True)
    (note,) = stonefx.last_report().notes
    assert note.endswith(reason), note
    assert torch.equal(fast(x).isnan(), model(x).isnan())
    assert len(stonefx.last_report().notes) == 1


def test_weights_of_zeros_are_folded() -> None:
    """A layer that begins at zero, or a pruned column, is no loss of precision."""
    model = chain(torch.float16, 12, 64, 20)
    x = torch.randn(2, 12).half()
    fast = compiled(model, x)
    model[0].weight[:, 3] = 0
    torch.testing.assert_close(fast(x), model(x), rtol=1e-2, atol=1e-3)
    model[1].weight.zero_()
    torch.testing.assert_close(fast(x), model(x), rtol=1e-2, atol=1e-3)
    assert not stonefx.last_report().notes


def test_a_training_loop_goes_on_with_folds() -> None:
    model = chain(torch.float32, 16, 64, 8).requires_grad_(True)
    x = torch.randn(32, 16)
    with torch.no_grad():
        fast = compiled(model, x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(fast(x), model(x))
    assert not stonefx.last_report().notes


@pytest.mark.parametrize("inner", ["aot_eager", "inductor"])
def test_the_original_runs_for_sizes_that_vary(inner: str) -> None:
    model = chain(torch.float16, 12, 64, 3)
    fast = torch.compile(model, backend="stone", options={"inner": inner}, dynamic=True)
    for batch in (4, 7):
        x = torch.full((batch, 12), 1e-3).half()
        torch.testing.assert_close(fast(x), model(x), rtol=1e-2, atol=1e-2)
    grow(model)
    for batch in (3, 4, 9):
        x = torch.full((batch, 12), 1e-3).half()
        torch.testing.assert_close(quietly(fast, x), model(x), rtol=1e-2, atol=1e-2)
