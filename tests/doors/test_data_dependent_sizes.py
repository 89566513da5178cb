"""Rows that the data count, and padding by less than nothing: chains around them are merged, through both doors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_forwards import Forward, chain, optimized, rows, same
from torch import nn

import stonefx


def positive(x: torch.Tensor) -> torch.Tensor:
    return x[:, 0] > 0


def experts(model: Any, x: torch.Tensor) -> torch.Tensor:
    first, second = torch.where(positive(x))[0], torch.where(~positive(x))[0]
    y = torch.zeros(len(x), 3).index_add(0, first, model.chain(x[first]))
    return y.index_add(0, second, model.other(x[second]))


def put_back(model: Any, x: torch.Tensor) -> torch.Tensor:
    index = positive(x).nonzero().squeeze(1)
    return torch.zeros(len(x), 3).index_copy(0, index, model.chain(x[index]))


COUNTED: dict[str, Any] = {
    "mask": lambda model, x: model.chain(x[positive(x)]),
    "nonzero": lambda model, x: model.chain(x[torch.nonzero(positive(x)).squeeze(1)]),
    "where": lambda model, x: model.chain(x[torch.where(positive(x))[0]]),
    "masked_select": lambda model, x: model.chain(torch.masked_select(x, positive(x)[:, None]).view(-1, 6)),
    "unique": lambda model, x: model.chain(x[torch.unique(positive(x).long())]),
    "repeat_interleave": lambda model, x: model.chain(x.repeat_interleave(positive(x).long() + 1, 0)),
    "slice": lambda model, x: model.chain(x)[: int(positive(x).sum())],
    "put back": put_back,
    "experts": experts,
}


@pytest.mark.parametrize("name", COUNTED)
def test_rows_that_the_data_count(name: str) -> None:
    model = Forward(COUNTED[name], other=chain()).eval()
    fast = optimized(model, rows())
    for x in (rows(), rows(9), rows(9).abs(), -rows(9).abs() - 1, rows(1)):
        if name == "unique" and len(x) == 1:
            continue
        same(fast(x), model(x))


@pytest.mark.parametrize("name", ["mask", "experts"])
def test_through_another_compiler(name: str) -> None:
    model = Forward(COUNTED[name], other=chain()).eval()
    fast = optimized(model, rows(), inner="aot_eager")
    for x in (rows(), rows(9), rows(9).abs()):
        same(fast(x), model(x))


def between(move: Any) -> Any:
    return lambda model, x: model.second(move(model.first(x)))


# A move between two maps, and the number of axes behind the first one.
PADDED: dict[str, tuple[Any, str]] = {
    "shift": (lambda x: F.pad(x, (0, 0, 1, -1)), "linear"),
    "shift back": (lambda x: F.pad(x, (0, 0, -1, 1)), "linear"),
    "of the batch": (lambda x: F.pad(x, (0, 0, 0, 0, -1, 2)), "linear"),
    "zeros": (nn.ZeroPad2d(-1), "convolution"),
    "each side": (nn.ZeroPad2d((1, -1, -2, 2)), "convolution"),
    "replicate": (lambda x: F.pad(x, (-1, 1, 2, -2), mode="replicate"), "convolution"),
    "chomp": (lambda x: x[..., :-2].contiguous(), "convolution"),
}


@pytest.mark.parametrize("name", PADDED)
def test_padding_by_less_than_nothing(name: str) -> None:
    move, kind = PADDED[name]
    if kind == "linear":
        first, second, shape = nn.Linear(6, 64), nn.Linear(64, 3), (2, 5, 6)
    else:
        first, second, shape = nn.Conv2d(6, 64, 1), nn.Conv2d(64, 3, 1), (2, 6, 8, 9)  # type: ignore[assignment]
    model = Forward(between(move), first=first, second=second).eval()
    fast = optimized(model, torch.randn(shape))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="stone", options={"inner": "eager"})
    with torch.no_grad():
        for batch in (2, 3):
            x = torch.randn(batch, *shape[1:])
            same(fast(x), model(x))
            same(compiled(x), model(x))


def test_what_is_cut_off_reaches_nothing() -> None:
    model = Forward(between(PADDED["shift"][0]), first=nn.Linear(6, 64), second=nn.Linear(64, 3)).eval()
    fast = stonefx.optimize(model, torch.randn(2, 5, 6))
    x = torch.randn(2, 5, 6)
    x[:, -1] = torch.nan
    assert fast(x).isfinite().all()
    same(fast(x), model(x))
