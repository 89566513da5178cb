"""The seed chain 128 -> 256 -> 128 -> 64 -> 32 with biases, at small batches, without gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import nn

import stonefx
from stonefx.benchmarks.by_hand import merged
from stonefx.benchmarks.case import Arm, Case, Subject, Work
from stonefx.benchmarks.cuda_graphs import with_graphs

WIDTHS = (128, 256, 128, 64, 32)
BATCHES = (1, 8, 16, 32)
GRAPHS = ("eager", "stonefx.optimize", "merged nn.Linear", "merged addmm")


def seed_chain(widths: Sequence[int] = WIDTHS, seed: int = 0) -> nn.Sequential:
    """Linear layers of the given widths, with biases, in eval mode.

    >>> sum(p.numel() for p in seed_chain().parameters())
    76256
    """
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths))).eval()


def chain_cases(device: str = "cpu", batches: Sequence[int] = BATCHES) -> Iterator[Case]:
    """One case a batch size; each compiles anew, so that no batch inherits another's dynamic graph.

    On CUDA some arms stand there as CUDA graphs as well.
    """
    model = seed_chain().to(device)
    for batch in batches:
        torch.compiler.reset()
        x = torch.randn(batch, WIDTHS[0], generator=torch.Generator().manual_seed(batch)).to(device)
        with torch.no_grad():
            truth = copy.deepcopy(model).double()(x.double())
        arms = _arms(model, x)
        left_out: dict[str, str] = {}
        if device == "cuda":
            arms, left_out = with_graphs(arms, GRAPHS)
        yield Case(
            name=f"batch {batch}",
            arms=arms,
            left_out=left_out,
            truth=[truth],
            synchronize=torch.cuda.synchronize if device == "cuda" else None,
            subject=Subject(model=model, args=(x,)),
        )


def _arms(model: nn.Sequential, x: torch.Tensor) -> list[Arm]:
    single = merged([layer for layer in model if isinstance(layer, nn.Linear)])
    weight, bias = single.weight.detach().t().contiguous(), single.bias.detach()
    inductor = torch.compile(copy.deepcopy(model))
    compiled = torch.compile(copy.deepcopy(model), backend="stone")
    optimized = stonefx.optimize(model, (x,))
    calls = {
        "eager": partial(model, x),
        "inductor": partial(inductor, x),
        "compile(stone)": partial(compiled, x),
        "stonefx.optimize": partial(optimized, x),
        "merged nn.Linear": partial(single, x),
        "merged addmm": partial(torch.addmm, bias, x, weight),
    }
    before, after = Work.before_and_after(optimized.report.summary())  # type: ignore[union-attr, operator]
    works = {"eager": before, "inductor": before, "stonefx.optimize": after}
    return [Arm(name=name, call=call, work=works.get(name)) for name, call in calls.items()]
