"""The seed chain 128 -> 256 -> 128 -> 64 -> 32 with biases, at small batches, without gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import nn

import stonefx
from stonefx.benchmarks.case import Arm, Case

WIDTHS = (128, 256, 128, 64, 32)
BATCHES = (1, 8, 16, 32)


def seed_chain(widths: Sequence[int] = WIDTHS, seed: int = 0) -> nn.Sequential:
    """Linear layers of the given widths, with biases, in eval mode.

    >>> sum(p.numel() for p in seed_chain().parameters())
    76256
    """
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths))).eval()


def merged_linear(chain: nn.Sequential) -> nn.Linear:
    """What a user would write by hand: one `nn.Linear`, multiplied in float64 and rounded once."""
    layers = [layer for layer in chain if isinstance(layer, nn.Linear)]
    weight, bias = layers[0].weight.detach().double(), layers[0].bias.detach().double()
    for layer in layers[1:]:
        weight = layer.weight.detach().double() @ weight
        bias = layer.weight.detach().double() @ bias + layer.bias.detach().double()
    merged = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device).eval()
    with torch.no_grad():
        merged.weight.copy_(weight)
        merged.bias.copy_(bias)
    return merged


def chain_cases(device: str = "cpu", batches: Sequence[int] = BATCHES) -> Iterator[Case]:
    """One case a batch size; each compiles anew, so that no batch inherits another's dynamic graph."""
    model = seed_chain().to(device)
    for batch in batches:
        torch.compiler.reset()
        x = torch.randn(batch, WIDTHS[0], generator=torch.Generator().manual_seed(batch)).to(device)
        with torch.no_grad():
            truth = copy.deepcopy(model).double()(x.double())
        yield Case(
            name=f"batch {batch}",
            arms=_arms(model, x),
            truth=[truth],
            synchronize=torch.cuda.synchronize if device == "cuda" else None,
        )


def _arms(model: nn.Sequential, x: torch.Tensor) -> list[Arm]:
    merged = merged_linear(model)
    weight, bias = merged.weight.detach().t().contiguous(), merged.bias.detach()
    inductor = torch.compile(copy.deepcopy(model))
    compiled = torch.compile(copy.deepcopy(model), backend="stone")
    optimized = stonefx.optimize(model, (x,))
    calls = {
        "eager": partial(model, x),
        "inductor": partial(inductor, x),
        "compile(stone)": partial(compiled, x),
        "stonefx.optimize": partial(optimized, x),
        "merged nn.Linear": partial(merged, x),
        "merged addmm": partial(torch.addmm, bias, x, weight),
    }
    return [Arm(name=name, call=call) for name, call in calls.items()]
