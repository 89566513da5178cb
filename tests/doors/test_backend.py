"""`torch.compile(model, backend="stone")`: registration, inner compilers, options, reports, errors."""

from __future__ import annotations

import copy
import gc
import itertools
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import stonefx
from stonefx.backend import collected_reports
from stonefx.passes.pipeline import PIPELINE
from stonefx.passes.site import Context, Site

WIDTHS = (128, 256, 128, 64, 32)
INNERS = ["eager", "aot_eager", "inductor"]


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch._dynamo.reset()


def chain(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths))).eval()


def compiled(model: nn.Module, **options: Any) -> Any:
    return torch.compile(model, backend="stone", options={"inner": "eager"} | options)


def equal(first: torch.Tensor, second: torch.Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)


def test_the_backend_works_without_importing_stonefx() -> None:
    code = """
import sys, torch
model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Linear(64, 8)).eval()
assert "stone" in torch._dynamo.list_backends()
with torch.no_grad():
    compiled = torch.compile(model, backend="stone", options={"inner": "eager"})
    x = torch.randn(2, 8)
    torch.testing.assert_close(compiled(x), model(x))
import stonefx
print([site.target for site in stonefx.last_report().rewritten()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['linear_chain']"


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("inner", INNERS)
def test_the_seed_chain_is_one_layer(inner: str, dynamic: bool) -> None:
    model = chain(*WIDTHS)
    fast = torch.compile(model, backend="stone", options={"inner": inner}, dynamic=dynamic)
    exact = copy.deepcopy(model).double()
    with collected_reports() as graphs, torch.no_grad():
        for batch in (8, 3, 17):
            x = torch.randn(batch, 128)
            truth = exact(x.double())
            assert (fast(x) - truth).abs().max() / truth.abs().max() <= 1e-6
    assert len(graphs) == (1 if dynamic else 3)
    for report in graphs:
        assert report.backend["inner"] == inner
        assert report.after.count("aten.linear(") == 1 and report.before.count("aten.linear(") == 4
        assert report.summary()["parameters_after"] == 4128


@pytest.mark.parametrize("inner", INNERS)
def test_in_training_nothing_is_folded_and_gradients_are_eagers(inner: str) -> None:
    model = chain(16, 32, 4)
    twin = copy.deepcopy(model)
    fast = torch.compile(model, backend="stone", options={"inner": inner})
    x = torch.randn(5, 16)
    with warnings.catch_warnings(action="ignore"):
        fast(x).square().sum().backward()
    twin(x).square().sum().backward()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        equal(mine.grad, theirs.grad, 1e-5)
    (site,) = stonefx.last_report().sites
    assert site.status == "refused" and "gradients are wanted of 0.weight" in site.reason


def test_frozen_weights_are_folded_and_gradients_reach_the_input() -> None:
    model = chain(16, 64, 4).requires_grad_(False)
    fast = compiled(model)
    x = torch.randn(5, 16, requires_grad=True)
    (actual,) = torch.autograd.grad(fast(x).square().sum(), x)
    (expected,) = torch.autograd.grad(model(x).square().sum(), x)
    equal(actual, expected, 1e-5)
    assert stonefx.last_report().rewritten("linear_chain")


def test_a_low_rank_pair_runs_as_one_operator() -> None:
    model = chain(512, 64, 8, 64, 512)
    x = torch.randn(256, 512)
    fast = compiled(model)
    with torch.no_grad():
        equal(fast(x), model(x))
    report = stonefx.last_report()
    assert report.rewritten("low_rank") and "stone.low_rank_linear" in report.after


def test_a_second_call_folds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    folded: list[int] = []
    evaluate = stonefx.runtime.evaluate_folds
    monkeypatch.setattr(stonefx.runtime, "evaluate_folds", lambda *args: folded.append(1) or evaluate(*args))
    model = chain(16, 64, 4)
    fast = compiled(model)
    with torch.no_grad():
        for _ in range(3):
            fast(torch.randn(5, 16))
        assert folded == [1]
        model[0].weight.add_(1)
        fast(torch.randn(5, 16))
    assert folded == [1, 1]


def wrapped_message(call: Any) -> str:
    with pytest.raises(Exception) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iner": "eager"}, "unknown option 'iner'; did you mean 'inner'?"),
        ({"passes": ["linear_chain"]}, "did you mean 'linear_chains'?"),
        ({"inner": "nothing"}, "option 'inner' got 'nothing'. Choices: eager, aot_eager, inductor"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    fast = torch.compile(chain(8, 8), backend="stone", options=options)
    assert message in wrapped_message(lambda: fast(torch.ones(1, 8)))


def test_an_unmet_requirement_is_an_error() -> None:
    fast = compiled(chain(8, 64, 8), require=["expmap0", "linear_chain"])
    message = wrapped_message(lambda: fast(torch.ones(1, 8)))
    assert "rewritten nowhere:\nexpmap0: no candidate was found" in message
    assert "refused at" in message and "gradients are wanted" in message
    with torch.no_grad():
        compiled(chain(8, 64, 8), require="linear_chain")(torch.ones(1, 8))


def test_a_mode_is_inductors() -> None:
    x = torch.ones(1, 8)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        model = chain(8, 64, 8)
        equal(torch.compile(model, backend="stone", mode="default")(x), model(x))


def test_rewriting_nothing_warns() -> None:
    with torch.no_grad(), pytest.warns(stonefx.StonefxWarning, match="stonefx rewrote nothing in this graph"):
        compiled(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))(torch.ones(1, 8))


class Broken:
    """A pass with a fault."""

    name = "hyperbolic"
    targets = ("expmap0",)

    def run(self, module: torch.fx.GraphModule, context: Context) -> list[Site]:
        for node in module.graph.nodes:
            if node.op == "call_function":
                raise KeyError("a fault of ours")
        return []


class UserModel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


def test_an_internal_failure_names_pass_node_and_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIPELINE, "hyperbolic", Broken())
    message = wrapped_message(lambda: compiled(UserModel())(torch.ones(2)))
    assert "pass 'hyperbolic' failed at node %relu" in message
    assert "test_backend.py:" in message and "KeyError: 'a fault of ours'" in message


def test_on_error_eager_runs_the_original_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIPELINE, "hyperbolic", Broken())
    x = torch.randn(4)
    with pytest.warns(stonefx.StonefxWarning, match="runs unrewritten, as on_error='eager' asks"):
        result = compiled(UserModel(), on_error="eager")(x)
    assert torch.equal(result, torch.relu(x))
    assert "the original graph runs: pass 'hyperbolic' failed" in stonefx.last_report().notes[0]


def test_the_report_of_each_graph_is_kept() -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = chain(8, 64, 8), chain(8, 32, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            torch._dynamo.graph_break()
            return self.second(x)

    model = Breaks().eval()
    x = torch.randn(2, 8)
    with collected_reports() as made, torch.no_grad():
        equal(compiled(model)(x), model(x))
    paths = [site.module_path for report in made for site in report.sites]
    assert paths == ["first", "second"]


def test_sites_name_the_users_line() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 64), nn.Linear(64, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.a(x)
            return self.b(hidden)

    model = Mine().eval()
    with torch.no_grad():
        compiled(model)(torch.ones(1, 8))
    (site,) = stonefx.last_report().rewritten()
    line = Mine.forward.__code__.co_firstlineno + 1
    assert site.source.endswith(f"test_backend.py:{line}")


def test_no_report_yet_is_a_clear_error() -> None:
    code = "import stonefx; stonefx.last_report()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'nothing was compiled with torch.compile(backend="stone") yet' in done.stderr


def test_a_tensor_subclass_computes_what_eager_does() -> None:
    class Marked(torch.Tensor):
        pass

    x = torch.randn(2, 8).as_subclass(Marked)
    with warnings.catch_warnings(action="ignore"):
        result = compiled(UserModel())(x)
    assert torch.equal(result, torch.relu(x))


def frozen_chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 64), nn.Linear(64, 4)
    )


@pytest.mark.parametrize("inner", INNERS)
def test_frozen_parameters_are_folded_too(inner: str) -> None:
    """Inductor's freezing makes parameters attributes of the graph, whatever runs it."""
    model = frozen_chain().eval()
    fast = compiled(model, inner=inner)
    with torch._inductor.config.patch(freezing=True), torch.no_grad():
        for batch in (2, 5):
            x = torch.randn(batch, 3, 2, 2)
            equal(fast(x), model(x))
        assert stonefx.last_report().rewritten("linear_chain")
        assert "3.weight" in stonefx.last_report().before
        model[3].weight = nn.Parameter(torch.randn(64, 32))
        equal(fast(x), model(x), 1e-5)
        if inner != "inductor":  # what inductor froze stays as it is
            model[3].weight.mul_(2)
            equal(fast(x), model(x), 1e-5)


def test_a_frozen_model_without_weights_is_compiled() -> None:
    with torch._inductor.config.patch(freezing=True), warnings.catch_warnings(action="ignore"):
        equal(compiled(UserModel())(torch.ones(3)), torch.ones(3))


@pytest.mark.slow
@pytest.mark.parametrize("door", ["compile", "optimize"])
def test_inductor_writes_cpp_for_varying_sizes(door: str) -> None:
    model = chain(6, 64, 3)
    with torch._inductor.config.patch(cpp_wrapper=True), torch.no_grad():
        if door == "compile":
            fast = torch.compile(model, backend="stone", dynamic=True)
        else:
            fast = stonefx.optimize(model, torch.randn(5, 6), inner="inductor")
        for batch in (5, 3, 8):
            x = torch.randn(batch, 6)
            equal(fast(x), model(x))


def test_frozen_weights_are_freed_with_what_was_compiled() -> None:
    """Inductor keeps every module of generated code that it makes, and with it the constants that it froze."""

    def held() -> int:
        modules = [vars(module) for module in torch._inductor.codecache.PyCodeCache.modules]
        return sum(isinstance(value, torch.Tensor) for held in modules for value in held.values())

    torch._dynamo.reset()
    gc.collect()
    before = held()
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    with (
        torch._inductor.config.patch(freezing=True),
        torch.no_grad(),
        warnings.catch_warnings(action="ignore"),
    ):
        compiled = torch.compile(model, backend="stone")
        compiled(torch.ones(5, 6))
        assert held() > before
    del compiled
    torch._dynamo.reset()
    gc.collect()
    assert held() == before


class Counted(nn.Module):
    """Rows and numbers that the data decide, in front of a chain."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layers = chain(6, 64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positive = x[:, 0] > 0
        if self.kind == "mask":
            return self.layers(x[positive])
        if self.kind == "indices":
            return self.layers(x[torch.where(positive)[0]]).sum(0)
        if self.kind == "repeats":
            return self.layers(torch.repeat_interleave(x, positive.long() + 1, 0))
        if self.kind == "scatter":
            (rows,) = torch.where(positive)
            return torch.zeros(len(x), 3).index_add_(0, rows, self.layers(x[rows]))
        count = positive.sum().item()
        torch._check(count >= 0)
        torch._check(count <= len(x))
        return self.layers(x) * count if self.kind == "number" else self.layers(torch.ones(count, 6))


@pytest.mark.parametrize("inner", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["mask", "indices", "repeats", "scatter", "number", "size"])
def test_sizes_that_the_data_decide(kind: str, inner: str) -> None:
    model = Counted(kind).eval()
    fast = torch.compile(model, backend="stone", fullgraph=True, options={"inner": inner})
    captured = {"capture_dynamic_output_shape_ops": True, "capture_scalar_outputs": True}
    with torch._dynamo.config.patch(captured), torch.no_grad():
        for _ in range(3):
            x = torch.randn(7, 6)
            equal(fast(x), model(x), 1e-5)
    assert stonefx.last_report().rewritten("linear_chain")
