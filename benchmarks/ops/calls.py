"""What a call costs where there is next to nothing to compute: one row of four numbers, against `torch.tanh`."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from stonefx.benchmarks.case import Case, CaseResult, Planned
from stonefx.benchmarks.ops.rowwise import ROWWISE
from stonefx.benchmarks.ops.steps import OWN, case

TANH = "torch.tanh"
_SHAPE = (1, 4)


def call_cases(device: str = "cpu") -> Iterator[Planned]:
    """A case for each rowwise operator, without gradients."""
    for name in ROWWISE:
        title = f"call of {name} {list(_SHAPE)}"
        yield Planned(name=title, make=partial(_case, title, name, device))


def _case(title: str, name: str, device: str) -> Case:
    operator = ROWWISE[name]
    inputs = operator.inputs(*_SHAPE, torch.Generator().manual_seed(0))
    like_result = torch.zeros_like(operator.own(*inputs))
    functions = {TANH: lambda *_: torch.tanh(like_result), OWN: operator.own}
    return case(title, functions, operator.own, inputs, False, device, facts=_facts)


def _facts(result: CaseResult) -> dict[str, Any]:
    pairs = zip(result.samples[OWN], result.samples[TANH], strict=True)
    return {"seconds_beyond_tanh": statistics.median(own - tanh for own, tanh in pairs)}
