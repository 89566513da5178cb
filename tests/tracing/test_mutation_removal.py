"""In-place operators: which become functional, and which must stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx
from torch.utils.checkpoint import checkpoint

from stonefx.capture import from_dynamo
from stonefx.tracing.mutation import is_mutating, written_placeholders


def retraced(function: Callable[..., Any], *inputs: torch.Tensor) -> tuple[fx.GraphModule, Any]:
    graphs: list[fx.GraphModule] = []

    def backend(gm: fx.GraphModule, example_inputs: list[Any]) -> Callable[..., Any]:
        graphs.append(from_dynamo(gm, example_inputs))
        return graphs[-1].forward

    torch._dynamo.reset()
    result = torch.compile(function, backend=backend, fullgraph=True)(*inputs)
    return graphs[0], result


def kept(graph: fx.GraphModule) -> list[str]:
    return [str(node.target).split(".")[1] for node in graph.graph.nodes if is_mutating(node)]


def chain(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.add_(1)
    y.neg_()
    return y.mul_(3)


def masked(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.masked_fill_(y > 1, 0.0)
    y[x > 0] = 5.0
    return y


def through_the_base_of_a_view(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z = y.view(-1)
    z.add_(1)
    return z


def seen_through_a_view(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.view(-1).add_(1)
    return y


def seen_through_the_base(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z = y[0]
    y.add_(1)
    return z


def an_input(x: torch.Tensor) -> torch.Tensor:
    return x.add_(1)


def a_view_of_an_input(x: torch.Tensor) -> torch.Tensor:
    x[0].zero_()
    return x * 2


def without_its_gradient(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    with torch.no_grad():
        y.mul_(3)
    return y


def wholly_without_gradient(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x * 2
        y.mul_(3)
    return y + x


def of_another_dtype(x: torch.Tensor) -> torch.Tensor:
    y = x.to(torch.bfloat16)
    return y.add_(x)


def a_result_of_a_checkpoint(x: torch.Tensor) -> torch.Tensor:
    y = checkpoint(torch.sin, x, use_reentrant=False)
    y.add_(1)
    return y


def overwritten(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(3, 4)
    y.copy_(x * 2)
    return torch.tanh(y)


CASES: list[tuple[Callable[..., Any], list[str]]] = [
    (chain, []),
    (masked, []),
    (through_the_base_of_a_view, []),
    (seen_through_a_view, ["add_"]),
    (seen_through_the_base, ["add_"]),
    (an_input, ["add_"]),
    (a_view_of_an_input, ["zero_"]),
    (without_its_gradient, ["mul_"]),
    (wholly_without_gradient, []),
    (of_another_dtype, ["add_"]),
    (a_result_of_a_checkpoint, ["add_"]),
    (overwritten, ["copy_"]),
]


@pytest.mark.parametrize(("function", "expected"), CASES, ids=[function.__name__ for function, _ in CASES])
def test_only_what_nobody_sees_becomes_functional(function: Callable[..., Any], expected: list[str]) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    first, second = x * 1, x * 1
    graph, came = retraced(function, first)
    wanted = function(second)
    assert kept(graph) == expected
    assert torch.equal(came, wanted) and torch.equal(first, second)
    assert came.requires_grad == wanted.requires_grad
    gradients = [
        torch.autograd.grad(y.float().square().sum(), x, retain_graph=True)[0] for y in (came, wanted)
    ]
    assert torch.equal(*gradients)


def test_written_placeholders_are_found_through_views() -> None:
    def write(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        x[0].view(2, 2).zero_()
        z.add_(1)
        return x + y + z

    graph, _ = retraced(write, torch.ones(4, 4), torch.ones(4, 4), torch.ones(4, 4))
    assert {node.name for node in written_placeholders(graph.graph)} == {"x", "z"}
