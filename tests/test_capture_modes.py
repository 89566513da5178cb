"""Capture in the mode in which the model runs: inference mode, and forwards that take no gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from small_forwards import Forward, chain, optimized, rows, same
from torch import nn

import stonefx


def product_into(model: Any, x: torch.Tensor) -> torch.Tensor:
    return model.chain(torch.mm(x, model.weight, out=torch.empty_like(x)))


def resized(model: Any, x: torch.Tensor) -> torch.Tensor:
    made = torch.empty(0)
    torch.mm(x, model.weight, out=made.resize_(x.shape))
    return model.chain(made)


def scaled_in_part(model: Any, x: torch.Tensor) -> torch.Tensor:
    y = model.chain(x)
    y.unbind(1)[0].mul_(2)
    return y


def shifted_in_part(model: Any, x: torch.Tensor) -> torch.Tensor:
    y = model.chain(x)
    y.split(1, 1)[1].add_(1)
    return y


def frozen_in_forward(model: Any, x: torch.Tensor) -> torch.Tensor:
    return model.chain(x).requires_grad_(False) * 2


FORWARDS = (product_into, resized, scaled_in_part, shifted_in_part, frozen_in_forward)
MODES: list[Callable[[], AbstractContextManager[Any]]] = [torch.no_grad, torch.inference_mode]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("forward", FORWARDS)
def test_what_only_runs_without_gradients(forward: Any, mode: Any) -> None:
    with mode():
        model = Forward(forward, weight=nn.Parameter(torch.randn(6, 6))).eval()
        fast = stonefx.optimize(model, rows(), machine="default")
        for size in (5, 8):
            same(fast(rows(size)), model(rows(size)))


def test_what_does_not_run_in_the_callers_mode_fails_with_the_models_own_error() -> None:
    model = Forward(product_into, weight=nn.Parameter(torch.randn(6, 6))).eval()
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        stonefx.optimize(model, rows())


def test_a_model_from_outside_in_inference_mode() -> None:
    model = chain()
    with torch.inference_mode():
        fast = optimized(model, rows())
        same(fast(rows(8)), model(rows(8)))
        assert stonefx.explain(model, torch.randn(5, 6)).sites
    assert not any(parameter.is_inference() for parameter in fast.parameters())
    fast(rows(8)).sum().backward()


def test_a_model_made_in_inference_mode_leaves_it() -> None:
    with torch.inference_mode():
        made = nn.Sequential(chain(), nn.BatchNorm1d(3)).eval()
        made.table = [torch.ones(3)]
        fast = optimized(made, torch.randn(5, 6))
        same(fast(rows(8)), made(rows(8)))
    again = optimized(made, rows())
    with torch.no_grad():
        same(again(rows(8)), made(rows(8)))
    again(rows(8)).sum().backward()
    assert not any(tensor.is_inference() for tensor in [*again.parameters(), *again.buffers()])


def test_one_graph_serves_both_modes_where_the_model_does_not_ask() -> None:
    model = chain()
    with torch.no_grad():
        fast = optimized(model, rows())
    x = rows(8).requires_grad_()
    same(fast(x), model(x))
    assert fast(x).requires_grad


def whole_in_inference_mode(model: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.chain(x)


def part_in_inference_mode(model: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        scale = model.chain(x).sum(1, keepdim=True)
    return model.chain(x) * scale.clone()


@pytest.mark.parametrize("mode", [torch.enable_grad, *MODES])
@pytest.mark.parametrize("forward", [whole_in_inference_mode, part_in_inference_mode])
def test_inference_mode_inside_a_forward_keeps_its_gradients(forward: Any, mode: Any) -> None:
    model = Forward(forward).eval()
    fast = stonefx.optimize(model, rows(), machine="default")
    torch.compiler.reset()
    for run in (fast, torch.compile(model, backend="stone", options={"inner": "eager"})):
        with mode():
            came, expected = run(rows(8)), model(rows(8))
        same(came, expected)
