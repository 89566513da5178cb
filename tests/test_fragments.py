"""Models that break into several graphs: what lies between the breaks is rewritten."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import stonefx
from stonefx.optimized import PartlyOptimizedModule


@torch.compiler.disable
def printed(x: torch.Tensor) -> torch.Tensor:
    """What no graph can hold."""
    return x


class AcrossModules(nn.Module):
    """The chain behind the break runs through two submodules, of which neither is a chain."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.up = nn.Linear(8, 64)
        self.down = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(printed(self.first(x).relu())))


class WithoutModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(64, 6))
        self.down = nn.Parameter(torch.randn(3, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.linear(printed(x), self.up), self.down)


class Branching(AcrossModules):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        if x.sum() > 1e9:
            x = x / 2
        return self.down(self.up(x))


MODELS: list[Callable[[], nn.Module]] = [AcrossModules, WithoutModules, Branching]


def made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def close(came: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(came, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "inner"), [*((m, "eager") for m in MODELS), (WithoutModules, "aot_eager")])
def test_a_chain_between_two_breaks_is_merged(make: Callable[[], nn.Module], inner: str) -> None:
    model, x = made(make), torch.randn(5, 6)
    fast = stonefx.optimize(model, x, inner=inner)
    assert [site.target for site in fast.report.rewritten()] == ["linear_chain"]
    assert fast.report.notes[0].startswith("optimized between its graph breaks")
    for rows in (5, 1, 9):
        probe = torch.randn(rows, 6)
        with torch.no_grad():
            close(fast(probe), model(probe))
        close(fast(probe), model(probe))
    assert stonefx.explain(model, x).rewritten("linear_chain")


def test_it_is_a_model_of_the_same_weights() -> None:
    model, x = made(AcrossModules), torch.randn(5, 6)
    fast = stonefx.optimize(model, x)
    assert isinstance(fast, PartlyOptimizedModule)
    assert fast.state_dict().keys() == model.state_dict().keys()
    assert isinstance(fast.up, nn.Linear)
    other = AcrossModules().eval()
    fast.load_state_dict(other.state_dict())
    with torch.no_grad():
        close(fast(x), other(x))
        twin = copy.deepcopy(fast)
        fast.up.weight.zero_()
        close(twin(x), other(x))
        assert not torch.allclose(fast(x), other(x))
    assert all(a is not b for a, b in zip(twin.parameters(), fast.parameters(), strict=True))


def test_it_trains_as_the_model_does() -> None:
    model, x = made(AcrossModules), torch.randn(5, 6)
    fast = stonefx.optimize(model, x)
    for subject in (model, fast):
        subject(x).square().sum().backward()
    for (name, wanted), came in zip(model.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(came.grad, wanted.grad, msg=name)


def test_hooks_that_come_later_run() -> None:
    model, x = made(AcrossModules), torch.randn(5, 6)
    fast, seen = stonefx.optimize(model, x), []
    handle = fast.up.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    with torch.no_grad():
        close(fast(x), model(x))
        handle.remove()
        close(fast(x), model(x))
    assert seen == [(5, 64)]


def test_another_compiler_sees_the_forward_itself() -> None:
    model, x = made(AcrossModules), torch.randn(5, 6)
    fast = stonefx.optimize(model, x)
    torch._dynamo.reset()
    with torch.no_grad():
        close(torch.compile(fast, backend="eager")(x), model(x))


def test_threads_may_call_it_at_once() -> None:
    model, x = made(AcrossModules), torch.randn(5, 6)
    fast = stonefx.optimize(model, x)
    wanted, results = model(x), []

    def run() -> None:
        with torch.no_grad():
            results.extend(fast(x) for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    for came in results:
        close(came, wanted)


def test_submodules_are_preferred_where_they_save_as_much() -> None:
    class Modules(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chain = nn.Sequential(nn.Linear(6, 64), nn.Linear(64, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.chain(printed(x))

    fast = stonefx.optimize(Modules().eval(), torch.randn(5, 6))
    assert fast.report.notes[0].startswith("optimized submodule by submodule")
    assert sum(p.numel() for p in fast.parameters()) == 6 * 3 + 3


def test_a_part_keeps_its_class_its_attributes_and_its_copies() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 64), nn.Linear(64, 3))])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = printed(layer(x)) if isinstance(layer, nn.Linear | nn.Sequential) else layer(x, 2.0)
            return x * (self.layers[0].in_features == 6)

    torch.manual_seed(0)
    model, x = Asks().eval(), torch.randn(5, 6)
    fast = stonefx.optimize(model, x)
    assert [isinstance(*pair) for pair in zip(fast.layers, (nn.Linear, nn.Sequential), strict=True)] == [
        True,
        True,
    ]
    twin = copy.deepcopy(fast)
    close(fast(x), model(x))
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.zero_()
    close(twin(x), model(x))
    assert fast(x).abs().max() == 0
    with pytest.raises(RuntimeError, match="captured in evaluation mode and cannot change to training mode"):
        fast.train()
    with pytest.raises(RuntimeError, match="cannot change to torch"):
        fast.double()


def test_a_forward_that_needs_what_a_part_gave_up_gets_its_graphs_optimized_instead() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chain = nn.Sequential(nn.Linear(6, 64), nn.Linear(64, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return printed(self.chain(x)) + self.chain[0].weight.sum()

    torch.manual_seed(0)
    model, x = Reads().eval(), torch.randn(5, 6)
    fast = stonefx.optimize(model, x)
    assert fast.report.rewritten("linear_chain")
    assert any("does not run over optimized submodules" in note for note in fast.report.notes)
    close(fast(x), model(x))
    assert fast.state_dict().keys() == model.state_dict().keys()


def test_a_graph_that_cannot_be_captured_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no such graph")

    monkeypatch.setattr(sys.modules["stonefx.backend"], "from_dynamo", fail)
    model, x = made(WithoutModules), torch.randn(5, 6)
    with pytest.warns(stonefx.StonefxWarning, match="rewrote nothing"):
        fast = stonefx.optimize(model, x)
    close(fast(x), model(x))


@pytest.mark.parametrize("stage", ["with_free_batch", "make_program", "rewrite_reported", "run_preserved"])
@pytest.mark.parametrize("lazy", [False, True])
def test_on_error_eager_catches_whatever_is_raised(
    stage: str, lazy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("something unforeseen")

    monkeypatch.setattr(sys.modules["stonefx.optimize"], stage, fail)
    model, x = nn.Sequential(nn.Linear(6, 64), nn.Linear(64, 3)).eval(), torch.randn(5, 6)
    with pytest.warns(stonefx.StonefxWarning, match="something unforeseen"):
        fast = stonefx.optimize(model, None if lazy else x, on_error="eager")
        assert torch.equal(fast(x), model(x))
    assert "something unforeseen" in fast.report.notes[0]


@pytest.mark.parametrize("stage", ["from_dynamo", "rewrite_reported", "split_folds", "FreshFolds"])
def test_on_error_eager_of_the_backend_catches_whatever_is_raised(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("something unforeseen")

    monkeypatch.setattr(sys.modules["stonefx.backend"], stage, fail)
    torch._dynamo.reset()
    model, x = nn.Sequential(nn.Linear(6, 64), nn.Linear(64, 3)).eval(), torch.randn(5, 6)
    fast = torch.compile(model, backend="stone", options={"inner": "eager", "on_error": "eager"})
    with torch.no_grad(), pytest.warns(stonefx.StonefxWarning, match="something unforeseen"):
        assert torch.equal(fast(x), model(x))
    assert "something unforeseen" in stonefx.last_report().notes[0]
