"""Sizes, and all that is computed from sizes, follow the call into the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from replay import replay
from small_forwards import Forward, optimized, rows, same

from stonefx.capture import Output, Path, Shape, from_module


@dataclass
class Sized:
    y: torch.Tensor
    size: Any


RESULTS: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "shape": lambda x, y: (y, x.shape),
    "size": lambda x, y: (y, x.size(), x.size(0)),
    "part of a shape": lambda x, y: (y, x.shape[:1], x.shape[1:]),
    "shape of a computed tensor": lambda x, y: (y, torch.cat([x, x]).shape, y.shape),
    "bool": lambda x, y: (y, x.shape[0] > 6, x.shape[0] % 2 == 0),
    "comparison of shapes": lambda x, y: (y, x.shape == (5, 6), x.shape[0] == 5),
    "number": lambda x, y: (y, x.shape[0], len(x), x.numel(), x.shape[0] // 2),
    "float": lambda x, y: (y, x.shape[0] / 3, math.sqrt(x.shape[0]), float(x.shape[0])),
    "minimum": lambda x, y: (y, min(x.shape[0], 5), max(x.shape[0], 5)),
    "a constant of the example's size": lambda x, y: (y, 5, x.shape[0], torch.Size([5])),
    "containers": lambda x, y: {"y": [y], "n": x.shape[0], "s": (x.shape, {"half": x.shape[0] / 2})},
    "dataclass": lambda x, y: Sized(y, x.shape),
    "value": lambda x, y: (y, x.sum().item(), int(x.sum()), x.sum()),
    "rows that the data count": lambda x, y: (y[x[:, 0] > 0], x[x[:, 0] > 0].shape),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_follows_the_call(name: str) -> None:
    model = Forward(lambda model, x: RESULTS[name](x, model.chain(x))).eval()
    fast = optimized(model, rows())
    for size in (5, 8, 1, 7):
        same(fast(rows(size)), model(rows(size)))


@pytest.mark.parametrize("inner", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_it_follows_through_other_compilers(inner: str) -> None:
    model = Forward(lambda model, x: (model.chain(x), x.shape, x.shape[0] > 6, x.shape[0] / 3)).eval()
    fast = optimized(model, rows(), inner=inner)
    same(fast(rows(8)), model(rows(8)))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_template_says_what_each_number_is(batch: int) -> None:
    capture = from_module(
        Forward(lambda model, x: (x * 2, x.shape, x.shape[0] + 1, 5, x.sum().item())), (rows(batch),)
    )
    size = Path("args", (("item", 0), ("attr", "shape"), ("item", 0)))
    assert capture.output == (Output(0), Shape((size, 6)), Output(1), 5, Output(2, item=True))


@pytest.mark.parametrize(
    "result", [lambda x: f"{x.shape[0]} rows", lambda x: [0] * x.shape[0], lambda x: slice(x.shape[0])]
)
def test_what_no_expression_gives_holds_for_one_size(result: Callable[[torch.Tensor], Any]) -> None:
    model = Forward(lambda model, x: (model.chain(x), result(x))).eval()
    fast = optimized(model, rows())
    same(fast(rows()), model(rows()))
    with pytest.raises(ValueError, match=r"dimension 0 of `args\[0\]` must be 5, and its shape is \[8, 6\]"):
        fast(rows(8))


def test_a_branch_on_the_size_bounds_the_number() -> None:
    model = Forward(lambda model, x: (x * (2 if x.shape[0] > 3 else 3), x.shape[0]))
    capture = from_module(model, (rows(),))
    assert replay(capture, model, rows(8))[1] == 8
    assert "x.shape" not in str(capture.output[0]) and capture.mismatch((rows(3),), {}) is not None


def test_a_size_of_a_transposed_argument() -> None:
    model = Forward(lambda model, x: (model.chain(x), x.shape)).eval()
    fast = optimized(model, torch.randn(6, 5).t())
    for x in (torch.randn(6, 9).t(), rows(9)):
        same(fast(x), model(x))
