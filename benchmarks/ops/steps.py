"""Arms that call one function, forward alone or with gradients to every tensor."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stonefx.benchmarks.case import Arm, Case, CaseResult

Function = Callable[..., Any]
OWN = "stonefx"
COPY = "copy"
# Several calls of the quicker arms in a row: they are timed as a loop of one's own would time them.
SAMPLE_SECONDS = 5e-3


def step(
    function: Function, inputs: Sequence[Tensor], upstream: Tensor | None
) -> Callable[[], tuple[Tensor, ...]]:
    """One call, which returns the result, and where there is an upstream gradient, those of the inputs too."""
    if upstream is None:
        return lambda: (function(*inputs),)
    leaves = [value.clone().requires_grad_() for value in inputs]

    def call() -> tuple[Tensor, ...]:
        result = function(*leaves)
        grads = torch.autograd.grad(result, leaves, upstream)
        return (result.detach(), *grads)

    return call


def case(
    name: str,
    functions: Mapping[str, Function],
    exact: Function,
    inputs: Sequence[Tensor],
    grad: bool,
    device: str = "cpu",
    facts: Callable[[CaseResult], dict[str, Any]] = lambda result: {},
    copies: bool = False,
) -> Case:
    """Arms of functions that compute the same; the first is the baseline.

    A function of another library that fails on these inputs is left out; `facts` says so, and how many times the time
    of ours each of the others takes, as the median over the rounds.

    Args:
        name: of the case.
        functions: by the names of the arms.
        exact: what to compare with, called on the inputs in float64.
        inputs: tensors.
        grad: with gradients to all of them.
        device: where they are.
        facts: what else to keep of the result.
        copies: with an arm that copies as many bytes as must be moved, and the share of its bandwidth as a fact.
    """
    placed = [value.to(device) for value in inputs]
    wide = [value.double() for value in placed]
    # Made once: filling it is no part of what is timed.
    upstream = torch.ones_like(exact(*wide)) if grad else None
    with torch.set_grad_enabled(grad):
        truth = step(exact, wide, upstream)()
        upstream = upstream.to(placed[0].dtype) if upstream is not None else None
        calls = {arm: partial(step, function, placed, upstream) for arm, function in functions.items()}
        arms, left_out = working_arms(calls, trusted=(OWN,))
    moved = moved_bytes(placed, [value.to(placed[0].dtype) for value in truth], grad)
    if copies:
        arms.insert(len(arms) - 1, Arm(name=COPY, call=copy_of(moved, truth)))

    def all_facts(result: CaseResult) -> dict[str, Any]:
        own = result.samples[OWN]
        ratios = {
            arm: statistics.median(other / mine for other, mine in zip(times, own, strict=True))
            for arm, times in result.samples.items()
            if arm != OWN
        }
        share = {"bytes": moved, "share_of_copy": ratios[COPY]} if copies else {}
        return {"ratios": ratios, "left_out": left_out, **share, **facts(result)}

    return Case(
        name=name,
        arms=arms,
        truth=truth,
        grad=grad,
        synchronize=torch.cuda.synchronize if device == "cuda" else None,
        sample_seconds=SAMPLE_SECONDS,
        facts=all_facts,
    )


def working_arms(
    made: Mapping[str, Callable[[], Callable[[], Any]]], trusted: Collection[str] = ()
) -> tuple[list[Arm], dict[str, str]]:
    """Arms that are made and called once; an arm that fails is left out with its reason, and takes no other with it.

    Args:
        made: what makes an arm's call, by its name.
        trusted: arms that are not called, so that the case fails where they do.

    >>> arms, left_out = working_arms({"one": lambda: lambda: 1, "none": lambda: lambda: 1 / 0})
    >>> [arm.name for arm in arms], left_out
    (['one'], {'none': 'ZeroDivisionError: division by zero'})
    """
    arms: list[Arm] = []
    left_out: dict[str, str] = {}
    for name, make in made.items():
        try:
            call = make()
            if name not in trusted:
                call()
        except Exception as error:
            if name in trusted:
                raise
            left_out[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            arms.append(Arm(name=name, call=call))
    return arms, left_out


def moved_bytes(inputs: Sequence[Tensor], results: Sequence[Tensor], grad: bool) -> int:
    """Bytes that an operator must read and write, each tensor once a pass.

    Forward: operands in, result out. Backward: operands and the upstream gradient in, gradients of the operands out.

    Args:
        inputs: the operands.
        results: the result, and with `grad` the gradients of the operands behind it.
        grad: with the backward.

    >>> moved_bytes([torch.ones(4)], [torch.ones(4)], False), moved_bytes([torch.ones(4)], [torch.ones(4)] * 2, True)
    (32, 80)
    """
    read, wrote = sum(value.nbytes for value in inputs), results[0].nbytes
    return read + wrote + ((read + wrote + sum(value.nbytes for value in results[1:])) if grad else 0)


def copy_of(moved: int, like: Sequence[Tensor]) -> Callable[[], Sequence[Tensor]]:
    """A call that moves this many bytes, half of them read; what it returns has the shapes of `like` and no meaning."""
    source = torch.zeros(max(moved // 2, 1), dtype=torch.int8, device=like[0].device)
    target = torch.empty_like(source)
    shapes = [torch.zeros((), device=value.device).expand(value.shape) for value in like]

    def call() -> Sequence[Tensor]:
        target.copy_(source)
        return shapes

    return call


def inductor(function: Function) -> Function:
    """A function compiled by inductor, for these sizes."""
    return torch.compile(function, dynamic=False, fullgraph=True)


def sized(rows: int, dim: int, dtype: torch.dtype, grad: bool) -> str:
    """How the name of a case of a card says what it times.

    >>> sized(8, 64, torch.float32, False)
    '[8, 64] float32 forward'
    """
    return f"[{rows}, {dim}] {str(dtype).removeprefix('torch.')} {modes(grad)}"


def modes(grad: bool) -> str:
    """How a case's name says what it times."""
    return "forward+backward" if grad else "forward"
