"""Custom autograd functions and checkpoints: looked into where no gradient is wanted, kept where one is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.utils.checkpoint import checkpoint

import stonefx
from stonefx.optimized import program_of
from stonefx.tracing.opaque import is_higher_order


class Artanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.atanh(x.clamp(-0.99999, 0.99999))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient / (1 - ctx.saved_tensors[0] ** 2)


class StraightThrough(torch.autograd.Function):
    """Its backward has nothing to do with its forward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, steps: int) -> torch.Tensor:
        ctx.steps = steps
        return torch.round(x * steps) / steps

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient * ctx.steps, None


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


class Largest(torch.autograd.Function):
    """Several results, one without a gradient, and saved values of several kinds."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> Any:
        values, indices = (x * w).max(-1)
        ctx.save_for_backward(x, w)
        ctx.kept, ctx.width = indices, x.shape[-1]
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: Any) -> Any:
        x, w = ctx.saved_tensors
        chosen = torch.nn.functional.one_hot(ctx.kept, ctx.width).to(x.dtype) * gradient.unsqueeze(-1)
        return chosen * w, (chosen * x).sum(0)


def artanh(s: Any, x: torch.Tensor) -> torch.Tensor:
    n = (x := s.l(x)).norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return Artanh.apply(n) / n * x


def rounded(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.m(StraightThrough.apply(s.l(x), 8))


def reversed_gradient(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.m(Reversed.apply(s.l(x)))


def largest(s: Any, x: torch.Tensor) -> torch.Tensor:
    values, indices = Largest.apply(s.l(x), s.m.bias)
    return s.m(s.l(x)) * values.unsqueeze(-1) + indices.unsqueeze(-1)


def checkpointed(s: Any, x: torch.Tensor) -> torch.Tensor:
    return checkpoint(lambda y: s.m(torch.sin(s.l(y))), x, use_reentrant=False) + x


def both(s: Any, x: torch.Tensor) -> torch.Tensor:
    return checkpoint(lambda y: s.m(StraightThrough.apply(s.l(y), 8)), x, use_reentrant=False)


class Two(nn.Module):
    def __init__(self, forward: Callable[..., Any], hidden: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.l, self.m = nn.Linear(8, hidden), nn.Linear(hidden, 8)
        self.function = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


FORWARDS = [artanh, rounded, reversed_gradient, largest, checkpointed, both]


def model_of(forward: Callable[..., Any], training: bool = False) -> nn.Module:
    return Two(forward).train(training)


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor | None]:
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    found = [x.grad, *(p.grad for p in model.parameters())]
    model.zero_grad()
    return found


@pytest.mark.parametrize(
    ("forward", "training", "inner"),
    [
        *((forward, False, "eager") for forward in FORWARDS),
        (both, True, "eager"),
        (largest, False, "aot_eager"),
    ],
)
def test_results_and_gradients_are_those_of_the_model(
    forward: Callable[..., Any], training: bool, inner: str
) -> None:
    model, x = model_of(forward, training), torch.randn(4, 8, generator=torch.Generator().manual_seed(1)) / 8
    fast = stonefx.optimize(model, x, inner=inner, keep=("l", "m"))
    for subject in (fast, copy.deepcopy(fast)):
        with torch.no_grad():
            torch.testing.assert_close(subject(x), model(x), rtol=1e-4, atol=1e-5)
        for came, wanted in zip(gradients(subject, x), gradients(model, x), strict=True):
            torch.testing.assert_close(came, wanted, rtol=1e-4, atol=1e-5)


def operators(graph: fx.GraphModule | None) -> list[str]:
    return [] if graph is None else [node.name for node in graph.graph.nodes if is_higher_order(node)]


@pytest.mark.parametrize("forward", FORWARDS)
def test_only_calls_that_want_a_gradient_run_them_whole(forward: Callable[..., Any]) -> None:
    program = program_of(stonefx.optimize(model_of(forward), torch.randn(4, 8) / 8))
    assert operators(program.inference) == []
    # The gradient of a checkpoint is its body's, so that in evaluation it is looked into in any case.
    kept = forward is not checkpointed
    assert bool(operators(program.module)) == kept == (program.inference is not None)


def test_a_checkpoint_stays_one_in_training() -> None:
    program = program_of(stonefx.optimize(model_of(checkpointed, True), torch.randn(4, 8)))
    assert len(operators(program.module)) == 1 and operators(program.inference) == []


def test_a_formula_is_recognised_through_a_custom_function() -> None:
    fast = stonefx.optimize(model_of(artanh), torch.randn(4, 8) / 8)
    assert [site.target for site in fast.report.rewritten()] == ["logmap0"]
    assert any(
        note.startswith("custom functions and checkpoints are looked into") for note in fast.report.notes
    )


def test_a_chain_through_a_checkpoint_is_merged() -> None:
    forward = lambda s, x: s.m(checkpoint(s.l, x, use_reentrant=False))  # noqa: E731
    model, x = Two(forward, 64).eval(), torch.randn(4, 8)
    assert stonefx.optimize(model, x).report.rewritten("linear_chain")
    torch._dynamo.reset()
    fast = torch.compile(model, backend="stone", options={"inner": "eager", "require": "linear_chain"})
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_backward_may_be_differentiated() -> None:
    model, x = model_of(artanh).double(), (torch.randn(4, 8).double() / 8).requires_grad_()
    fast = stonefx.optimize(model, x)
    twice = []
    for subject in (fast, model):
        (first,) = torch.autograd.grad(subject(x).square().sum(), x, create_graph=True)
        twice.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*twice)


def test_a_gradient_that_nothing_wanted_at_capture_is_refused_by_name() -> None:
    model, x = model_of(rounded).requires_grad_(False), torch.randn(4, 8)
    fast = stonefx.optimize(model, x, keep=("l", "m"))
    with torch.no_grad():
        torch.testing.assert_close(fast(x.requires_grad_()), model(x))
    torch.testing.assert_close(fast(x.detach()), model(x.detach()))
    with pytest.warns(stonefx.StonefxWarning, match="StraightThrough was captured without its backward"):
        came = fast(x)
    for result in (came, model(x)):
        result.sum().backward()
    assert x.grad is not None


class Product(torch.autograd.Function):
    """Its backward gives each gradient only where it is wanted."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, w = ctx.saved_tensors
        return gradient @ w.T if ctx.needs_input_grad[0] else None, x.T @ gradient


def test_a_gradient_that_was_not_wanted_of_an_operand_at_capture_is_refused(tmp_path: Any) -> None:
    model, x = model_of(lambda s, x: s.m(Product.apply(x, s.l.weight))), torch.randn(4, 8)
    fast = stonefx.optimize(model, x, keep=("l", "m"))
    for subject in (fast, model):
        subject(x).sum().backward()
    torch.testing.assert_close(fast.l.weight.grad, model.l.weight.grad)
    with pytest.warns(stonefx.StonefxWarning, match="a custom function was captured without its backward"):
        came = gradients(fast, x)[0]
    torch.testing.assert_close(came, gradients(model, x)[0])
    known = stonefx.optimize(model, x.requires_grad_(), keep=("l", "m"))
    torch.testing.assert_close(gradients(known, x.detach())[0], came)
    loaded = stonefx.load(stonefx.save(fast, tmp_path / "model"))
    with pytest.raises(ValueError, match="a custom function was captured without its backward"):
        loaded(x)


def test_a_function_under_no_grad_of_the_models_own_is_no_obstacle() -> None:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = StraightThrough.apply(s.l(x), 8)
        return s.m(x) + y

    model, x = model_of(forward), torch.randn(4, 8)
    fast = stonefx.optimize(model, x, keep=("l", "m"))
    for came, wanted in zip(gradients(fast, x), gradients(model, x), strict=True):
        torch.testing.assert_close(came, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("forward", [rounded, largest, checkpointed])
def test_the_backend_gives_their_gradients(forward: Callable[..., Any]) -> None:
    model, x = model_of(forward), torch.randn(4, 8, generator=torch.Generator().manual_seed(1)) / 8
    torch._dynamo.reset()
    fast = torch.compile(model, backend="stone", options={"inner": "eager", "passes": ("normalize",)})
    for came, wanted in zip(gradients(fast, x), gradients(model, x), strict=True):
        torch.testing.assert_close(came, wanted, rtol=1e-4, atol=1e-5)
