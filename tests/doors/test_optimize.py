"""`stonefx.optimize`: what goes in, what comes out, and that the result behaves as a module does."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import stonefx

WIDTHS = (128, 256, 128, 64, 32)


def chain(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths))).eval()


def equal(first: Any, second: Any, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("inner", ["eager", "aot_eager", "inductor"])
def test_the_seed_chain_becomes_one_layer(inner: str) -> None:
    model = chain(*WIDTHS)
    fast = stonefx.optimize(model, torch.randn(8, 128), inner=inner)
    before, after = (sum(p.numel() for p in one.parameters()) for one in (model, fast))
    assert after / before <= 0.0542
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        for batch in (1, 8, 17, 0):
            x = torch.randn(batch, 128)
            error = (fast(x) - exact(x.double())).abs().max() / exact(x.double()).abs().max() if batch else 0
            assert error <= 1e-6
            assert fast(x).shape == (batch, 32)
    assert [site.target for site in fast.report.rewritten()] == ["linear_chain"]


def test_the_original_is_left_as_it_is() -> None:
    model = chain(*WIDTHS)
    state = copy.deepcopy(model.state_dict())
    x = torch.randn(4, 128)
    seed = torch.random.get_rng_state()
    fast = stonefx.optimize(model, x)
    assert torch.equal(torch.random.get_rng_state(), seed)
    assert type(model) is nn.Sequential and not hasattr(x, "_dynamo_dynamic_indices")
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    with torch.no_grad():
        model[0].weight.zero_()
    equal(fast(x), _with_state(state)(x))


def _with_state(state: dict[str, torch.Tensor]) -> nn.Sequential:
    model = chain(*WIDTHS)
    model.load_state_dict(state)
    return model


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclass
class Batch:
    x: torch.Tensor
    scale: float = 1.0
    extra: dict[str, torch.Tensor] | None = None


class Model(nn.Module):
    """A chain and a ReLU, in a forward that a test chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = chain(8, 64, 8)
        self.register_buffer("offset", torch.ones(8))

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layers(x)) + self.offset


class Positional(Model):
    def forward(
        self, x: torch.Tensor, y: torch.Tensor, flag: bool = True, *, scale: float = 1.0
    ) -> torch.Tensor:
        return self.run(x) * scale + (y if flag else -y)


class Variadic(Model):
    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        return sum((self.run(x) for x in args), kwargs["y"])


class Nested(Model):
    def forward(
        self, batch: dict[str, Any], pairs: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> dict[str, Any]:
        return {"a": [self.run(batch["x"]), pairs[0][1]], "b": (self.run(pairs[1][0]),), "n": 3, "none": None}


class Structured(Model):
    def forward(self, batch: Batch) -> Batch:
        assert batch.extra is not None
        return Batch(self.run(batch.x) * batch.scale, 2.0, {"same": batch.extra["y"]})


class Named(Model):
    def forward(self, pair: Pair) -> Pair:
        return Pair(self.run(pair.second), self.run(pair.first))


class ReturnsWeights(Model):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.run(x)
        return y, self.offset, x, y


class Shadowing(Model):
    """Parameter names that generated code could be tempted to use itself."""

    def forward(
        self, linear: torch.Tensor, fits: torch.Tensor, shape_0: torch.Tensor, results: Any = None
    ) -> torch.Tensor:
        return self.run(linear) + fits * shape_0


def x(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 8)


CALLS: list[tuple[type[Model], Any]] = [
    (Positional, lambda b: ((x(b), x(b)), {})),
    (Positional, lambda b: ((), {"y": x(b), "x": x(b), "scale": 2.0})),
    (Positional, lambda b: ((x(b), x(b), False), {})),
    (Variadic, lambda b: ((x(b), x(b)), {"y": x(b)})),
    (Nested, lambda b: (({"x": x(b)}, [(x(b), x(b)), (x(b), x(b))]), {})),
    (Structured, lambda b: ((Batch(x(b), 3.0, {"y": x(b)}),), {})),
    (Named, lambda b: ((Pair(x(b), x(b)),), {})),
    (ReturnsWeights, lambda b: ((x(b),), {})),
    (Shadowing, lambda b: ((x(b), x(b), x(b)), {})),
]


@pytest.mark.parametrize("inner", ["eager", "aot_eager"])
@pytest.mark.parametrize(("kind", "call"), CALLS, ids=lambda value: getattr(value, "__name__", ""))
def test_it_takes_what_the_model_takes_and_returns_what_it_returns(
    kind: type[Model], call: Any, inner: str
) -> None:
    model = kind().eval()
    args, kwargs = call(4)
    if args and kwargs:
        fast = stonefx.optimize(model, inner=inner)
        fast(*args, **kwargs)
    else:
        fast = stonefx.optimize(model, kwargs or args, inner=inner)
    assert fast.report.rewritten("linear_chain")
    for batch in (4, 1, 7):
        args, kwargs = call(batch)
        with torch.no_grad():
            expected, actual = model(*args, **kwargs), fast(*args, **kwargs)
        assert type(actual) is type(expected)
        if isinstance(expected, Batch):
            assert actual.extra["same"] is args[0].extra["y"] and actual.scale == 2.0
            expected, actual = expected.x, actual.x
        equal(actual, expected)
    if kind is ReturnsWeights:
        assert actual[1] is fast.offset and actual[2] is args[0] and actual[3] is actual[0]


def test_a_list_is_positional_and_a_dict_is_keywords() -> None:
    model = Positional().eval()
    first, second = x(), x()
    expected = model(first, second)
    equal(stonefx.optimize(model, [first, second])(first, second), expected)
    equal(stonefx.optimize(model, {"x": first, "y": second})(x=first, y=second), expected)


def test_a_call_with_the_wrong_number_of_arguments_names_forward() -> None:
    fast = stonefx.optimize(chain(8, 64, 8), x())
    with pytest.raises(
        TypeError, match=r"OptimizedSequential\.forward\(\) takes 2 positional arguments but 3"
    ):
        fast(x(), x())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (torch.randn(4, 9), r"dimension 1 of `input` must be 8, and its shape is \[4, 9\]"),
        (torch.randn(4, 8).double(), "`input` must have dtype torch.float32, and has torch.float64"),
        (torch.randn(2, 4, 8), r"`input` must have 2 dimensions, and has shape \[2, 4, 8\]"),
        (None, "`input` was a tensor at capture, and now is None"),
        ("text", "`input` was a tensor at capture, and now is 'text'"),
    ],
)
def test_arguments_that_the_graph_does_not_cover_are_refused(argument: Any, message: str) -> None:
    fast = stonefx.optimize(chain(8, 64, 8), x())
    with pytest.raises(
        ValueError, match=message + r".*original weights are folded away; call stonefx\.optimize again"
    ):
        fast(argument)


def test_another_flag_is_refused() -> None:
    fast = stonefx.optimize(Positional().eval(), (x(), x()))
    with pytest.raises(ValueError, match="`flag` was True at capture, and now is False"):
        fast(x(), x(), False)
    with pytest.raises(ValueError, match=r"`scale` was 1\.0 at capture, and now is 2\.0"):
        fast(x(), x(), scale=2.0)


def test_the_original_runs_for_other_arguments_while_its_weights_are_there() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
    with warnings.catch_warnings(action="ignore"):
        fast = stonefx.optimize(model, x())
    deep = torch.randn(2, 3, 8)
    with pytest.warns(
        stonefx.StonefxWarning, match=r"must have 2 dimensions.* the original forward runs instead"
    ):
        equal(fast(deep), model(deep))


def test_with_static_sizes_another_batch_is_refused() -> None:
    fast = stonefx.optimize(chain(8, 64, 8), x(4), dynamic=False)
    fast(x(4))
    with pytest.raises(ValueError, match=r"dimension 0 of `input` must be 4, and its shape is \[5, 8\]"):
        fast(x(5))


def test_replaced_loaded_and_moved_weights_are_used() -> None:
    fast = stonefx.optimize(chain(8, 64, 8), x())
    weight, bias = (name for name, _ in fast.named_parameters())
    assert (weight, bias) == ("folded_0_1_weight_transposed", "folded_0_1_bias")
    probe = x()
    fast.register_parameter("folded_0_1_weight_transposed", nn.Parameter(torch.eye(8)))
    fast.load_state_dict({weight: 2 * torch.eye(8), bias: torch.ones(8)})
    equal(fast(probe), 2 * probe + 1)
    fast.load_state_dict({weight: torch.eye(8), bias: torch.zeros(8)}, assign=True)
    equal(fast(probe), probe)
    fast.to("meta")
    assert fast.get_parameter("folded_0_1_bias").device.type == "meta"
    assert fast(probe.to("meta")).device.type == "meta"


def test_a_copy_has_weights_of_its_own() -> None:
    fast = stonefx.optimize(chain(8, 64, 8), x())
    probe = x()
    expected = fast(probe).detach()
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    equal(fast(probe), expected)
    equal(twin(probe), torch.zeros(4, 8))


def test_pickling_is_refused_with_the_way_out() -> None:
    fast = stonefx.optimize(chain(8, 64, 8), x())
    with pytest.raises(
        TypeError, match=r"cannot be pickled: its call is generated code\. Write it with stonefx\.save"
    ):
        pickle.dumps(fast)


def test_attributes_of_the_model_are_there() -> None:
    model = Positional().eval()
    model.note = "kept"  # type: ignore[assignment]
    fast = stonefx.optimize(model, (x(), x()))
    assert fast.note == "kept" and fast.offset.shape == (8,)
    assert "offset" in fast.state_dict()
    with pytest.raises(AttributeError, match="absent"):
        _ = fast.absent


def test_hooks_run() -> None:
    fast = stonefx.optimize(chain(8, 64, 8), x())
    probe, seen = x(), []
    expected = fast(probe)
    handles: list[Any] = [
        fast.register_forward_pre_hook(lambda *_: seen.append("before")),
        fast.register_forward_hook(lambda *_: seen.append("after")),
        fast.register_full_backward_hook(lambda *_: seen.append("backward")),
        nn.modules.module.register_module_forward_hook(lambda *_: seen.append("global")),
    ]
    result = fast(probe)
    result.sum().backward()
    assert seen == ["before", "global", "after", "backward"]
    for handle in handles:
        handle.remove()
    equal(fast(probe), expected)
    assert len(seen) == 4


@pytest.mark.parametrize("inner", ["eager", "aot_eager", "inductor"])
def test_it_trains(inner: str) -> None:
    fast = stonefx.optimize(chain(8, 64, 8), x(), inner=inner)
    plain = nn.Linear(8, 8)
    weight, bias = fast.state_dict().values()
    plain.load_state_dict({"weight": weight.t() if inner == "eager" else weight, "bias": bias})
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (fast, plain)]
    probe = x()
    for _ in range(3):
        for model, optimizer in zip((fast, plain), optimizers, strict=True):
            optimizer.zero_grad()
            model(probe).square().mean().backward()
            optimizer.step()
    trained, trained_bias = fast.parameters()
    equal(trained.t() if inner == "eager" else trained, plain.weight)
    equal(trained_bias, plain.bias)


@pytest.mark.parametrize("inner", ["eager", "aot_eager"])
def test_gradients_reach_an_input_that_wanted_none_at_capture(inner: str) -> None:
    model = chain(8, 64, 8)
    fast = stonefx.optimize(model, x(), inner=inner)
    with torch.no_grad():
        fast(x())
    probe = x().requires_grad_()
    (expected,) = torch.autograd.grad(model(probe).sum(), probe)
    (actual,) = torch.autograd.grad(fast(probe).sum(), probe)
    equal(actual, expected)


def test_mode_and_dtype_stay_as_captured() -> None:
    fast = stonefx.optimize(chain(8, 64, 8), x())
    assert fast.eval() is fast
    with pytest.raises(RuntimeError, match=r"captured in evaluation mode and cannot change to training mode"):
        fast.train()
    with pytest.raises(RuntimeError, match=r"torch\.float32 weights and cannot change to torch\.bfloat16"):
        fast.to(torch.bfloat16)


def test_without_example_inputs_it_captures_at_the_first_call() -> None:
    model = chain(8, 64, 8)
    fast = stonefx.optimize(model)
    with pytest.raises(RuntimeError, match="has not been called yet"):
        _ = fast.report
    seen: list[int] = []
    fast.register_forward_hook(lambda *_: seen.append(1))
    probe = x()
    equal(fast(probe), model(probe))
    assert fast.report.rewritten("linear_chain") and seen == [1]
    equal(fast(x(9)).shape, (9, 8))
    assert seen == [1, 1]


def test_tied_weights_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh()).eval()
    model[2].weight = model[0].weight
    with warnings.catch_warnings(action="ignore"):
        fast = stonefx.optimize(model, x())
    probe = x()
    equal(fast(probe), model(probe))
    with torch.no_grad():
        fast.get_parameter("0.weight").mul_(2)
        model[0].weight.mul_(2)
    equal(fast(probe), model(probe))
    assert len(list(fast.parameters())) == 3


class NoGradInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = chain(8, 64, 8)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            frozen = self.layers(x) + y
        return frozen * self.scale


def test_an_error_inside_a_no_grad_region_leaves_gradients_on() -> None:
    model = NoGradInside().eval()
    fast = stonefx.optimize(model, (x(), x()))
    probe = (x(), x())
    result = fast(*probe)
    equal(result, model(*probe))
    result.sum().backward()
    assert fast.scale.grad is not None and all(
        p.grad is None for p in fast.parameters() if p is not fast.scale
    )
    fast.scale.data = torch.ones(5)
    with pytest.raises(RuntimeError):
        fast(*probe)
    assert torch.is_grad_enabled()


class Branches(nn.Module):
    """Cannot be captured whole: which head runs depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.body = chain(8, 64, 8)
        self.heads = nn.ModuleList([chain(8, 32, 4), nn.Sequential(nn.Linear(8, 4), nn.Tanh())])
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return self.heads[int(x.sum() > 0)](x)


def branches_inputs() -> Iterator[torch.Tensor]:
    for seed in range(8):
        yield torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))


def test_what_cannot_be_captured_whole_is_optimized_by_submodules() -> None:
    torch.manual_seed(0)
    model = Branches()
    example = next(probe for probe in branches_inputs() if model.body(probe).sum() <= 0)
    fast = stonefx.optimize(model, example)
    assert [site.module_path for site in fast.report.rewritten()] == ["body", "heads.0"]
    assert "optimized submodule by submodule" in fast.report.notes[0]
    assert any("heads.1" in note for note in fast.report.notes)
    for probe in branches_inputs():
        equal(fast(probe), model(probe))
    assert sum(p.numel() for p in fast.parameters()) == 8 * 8 + 8 + 2 * (8 * 4 + 4)


class Unmergeable(nn.Module):
    """Cannot be captured whole, and has nothing to merge."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return x.relu() if int(x.sum() > 0) else x.tanh()


def test_inductor_gets_the_whole_of_a_model_in_which_nothing_is_rewritten() -> None:
    torch.manual_seed(0)
    model = Unmergeable()
    with pytest.warns(stonefx.StonefxWarning, match="rewrote nothing"):
        fast = stonefx.optimize(model, x(), inner="inductor")
    assert fast.report.notes[-2].startswith("nothing was rewritten, so that torch.compile runs the model")
    again = copy.deepcopy(fast)
    for probe in branches_inputs():
        torch.testing.assert_close(fast(probe), model(probe), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        again.get_parameter("body.0.weight").zero_()
    torch.testing.assert_close(fast(probe), model(probe), rtol=1e-5, atol=1e-6)
    model.body[0].weight.data.zero_()
    torch.testing.assert_close(again(probe), model(probe), rtol=1e-5, atol=1e-6)


class Uncapturable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum().item() > 0 else x - 1  # the line that stops the capture


def test_a_capture_failure_names_the_line_of_user_code_and_the_model_runs() -> None:
    with pytest.warns(stonefx.StonefxWarning, match="rewrote nothing"):
        fast = stonefx.optimize(Uncapturable(), x())
    assert re.search(r"test_optimize\.py:\d+: .*# the line that stops the capture", fast.report.notes[0])
    for probe in (x(), -x().abs()):
        assert torch.equal(fast(probe), Uncapturable()(probe))


def test_on_error_eager_runs_the_original_and_says_so() -> None:
    scripted = torch.jit.script(chain(8, 64, 8))
    with pytest.warns(stonefx.StonefxWarning, match="the original runs, as on_error='eager' asks"):
        fast = stonefx.optimize(scripted, x(), on_error="eager")
    probe = x()
    assert torch.equal(fast(probe), scripted(probe))
    assert torch.equal(copy.deepcopy(fast)(probe), scripted(probe))
    assert "the original runs" in fast.report.notes[0]


def test_an_unmet_requirement_is_an_error_with_the_near_misses() -> None:
    model = nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 64)).eval()
    with pytest.raises(
        stonefx.RequiredRewriteMissing, match=r"rewritten nowhere:\nlinear_chain: \n  refused at"
    ):
        stonefx.optimize(model, torch.randn(4, 64), require="linear_chain", inner="inductor")
    with pytest.raises(stonefx.RequiredRewriteMissing, match=r"expmap0: no candidate was found"):
        stonefx.optimize(chain(8, 64, 8), x(), require=["linear_chain", "expmap0"])
    assert stonefx.optimize(chain(8, 64, 8), x(), require="linear_chain").report.rewritten()


def test_rewriting_nothing_warns() -> None:
    with pytest.warns(stonefx.StonefxWarning, match="stonefx rewrote nothing in this graph"):
        stonefx.optimize(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), x())


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expects an nn\.Module, got function; wrap a function in a module"):
        stonefx.optimize(lambda x: x, x())  # type: ignore[arg-type]
    fast = stonefx.optimize(chain(8, 64, 8), x())
    with pytest.raises(TypeError, match=r"came out of stonefx\.optimize already"):
        stonefx.optimize(fast, x())


def test_a_model_with_an_argument_that_is_no_tensor_or_constant_runs() -> None:
    class Takes(nn.Module):
        def forward(self, x: torch.Tensor, thing: object) -> torch.Tensor:
            return x + 1

    with pytest.warns(stonefx.StonefxWarning, match="rewrote nothing"):
        fast = stonefx.optimize(Takes(), (x(), (i for i in range(3))))
    assert "the argument `thing` is a generator, which capture cannot look into" in fast.report.notes[0]
    assert torch.equal(fast(torch.zeros(2), iter(())), torch.ones(2))


def test_chosen_passes_only() -> None:
    with pytest.warns(stonefx.StonefxWarning, match="rewrote nothing"):
        fast = stonefx.optimize(chain(8, 64, 8), x(), passes=("normalize", "hyperbolic"))
    assert len(list(fast.parameters())) == 4


def test_explain_is_a_dry_run() -> None:
    model = chain(8, 64, 8)
    report = stonefx.explain(model, x())
    assert report.backend["door"] == "explain" and len(report.rewritten("linear_chain")) == 1
    assert len(list(model.parameters())) == 4
    assert "-%linear: f32[s" in report.diff()
    parts = stonefx.explain(Branches(), x())
    assert "body" in [site.module_path for site in parts.rewritten()]


def test_a_chain_applied_twice_is_folded_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = chain(8, 64, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(torch.relu(self.layers(x)))

    model = Twice().eval()
    fast = stonefx.optimize(model, x())
    assert len(fast.report.rewritten("linear_chain")) == 2
    assert len(list(fast.parameters())) == 2
    probe = x()
    equal(fast(probe), model(probe))


class BranchesOnTheBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = chain(8, 64, 8)
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, branches: bool) -> torch.Tensor:
        x = self.convolution(self.layers(x)[:, None, None])[:, 0, 0]
        if branches and x.shape[0] >= 16:
            return -x
        return x


def test_the_batch_is_free_where_only_a_kernel_looked_at_it() -> None:
    """Tracing a convolution at batch 4 asks whether the batch is below 16, for the memory layout."""
    model = BranchesOnTheBatch().eval()
    fast = stonefx.optimize(model, (x(4), False))
    with torch.no_grad():
        for batch in (1, 4, 15, 16, 17, 100):
            probe = x(batch)
            equal(fast(probe, False), model(probe, False))


def test_a_branch_of_the_model_on_the_batch_is_kept() -> None:
    model = BranchesOnTheBatch().eval()
    fast = stonefx.optimize(model, (x(4), True))
    with torch.no_grad():
        for batch in (1, 4, 15):
            probe = x(batch)
            equal(fast(probe, True), model(probe, True))
        with pytest.raises(ValueError, match=r"the graph holds where .* < 16, and .*x\.shape\[0\] is 16"):
            fast(x(16), True)


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = chain(8, 64, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.contiguous()
        return self.layers(x.view(-1, 8)), x.view(-1)


@pytest.mark.parametrize("inner", ["eager", "inductor"])
def test_an_argument_may_come_in_another_memory_layout(inner: str) -> None:
    model = Views().eval()
    fast = stonefx.optimize(model, torch.randn(4, 2, 8), inner=inner)
    probe = torch.randn(8, 2, 6).permute(2, 1, 0)
    with torch.no_grad():
        equal(fast(probe), model(probe))


class Hyperbolic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = chain(8, 64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v = self.layers(x)
        n = v.norm(dim=-1, keepdim=True).clamp_min(1e-15)
        return torch.tanh(n) * v / n


def test_autocast_around_fused_maps_is_refused_and_around_linear_layers_is_not() -> None:
    model = Hyperbolic().eval()
    fast = stonefx.optimize(model, x())
    assert len(fast.report.rewritten()) == 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ValueError, match="autocast is on for cpu, and hyperbolic maps were fused"):
            fast(x())
        plain = chain(8, 64, 8)
        probe = x()
        equal(stonefx.optimize(plain, probe)(probe).float(), plain(probe).float(), 2e-2)
    equal(fast(probe), model(probe))


def test_captured_under_autocast_it_computes_what_the_model_does_there() -> None:
    model = Hyperbolic().eval()
    probe = x()
    with torch.autocast("cpu", dtype=torch.bfloat16), warnings.catch_warnings(action="ignore"):
        fast = stonefx.optimize(model, probe)
        expected, came = model(probe), fast(probe)
    assert came.dtype == expected.dtype
    equal(came, expected, 2e-2)


def test_batch_norm_in_training_updates_its_statistics() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 64), nn.Linear(64, 4)).train()
    fast = stonefx.optimize(model, x(16))
    for _ in range(3):
        probe = x(16)
        equal(fast(probe), model(probe), 1e-5)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        equal(fast.get_buffer(f"1.{name}"), model.get_buffer(f"1.{name}"))
    assert fast.get_buffer("1.num_batches_tracked") == 3


def test_an_argument_that_the_model_writes_to_is_written_to() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = chain(8, 64, 8)

        def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
            y = self.layers(x).view(-1, 8)
            memory.add_(y)
            return memory * 2

    model = Writes().eval()
    example = (x(), x())
    kept = example[1].clone()
    with torch.no_grad():
        fast = stonefx.optimize(model, example)
        assert torch.equal(example[1], kept)
        first, second = torch.zeros(8, 4).t(), torch.zeros(4, 8)
        probe = x()
        equal(fast(probe, first), model(probe, second))
        equal(first, second)


SEEN: list[torch.Tensor] = []


class Keeps(nn.Module):
    """Keeps its result elsewhere too; the chain inside can still be merged."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.layers = chain(8, 64, 8)
        self.where = where
        self.log: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        if self.where == "global":
            SEEN.append(y)
        elif self.where == "attribute":
            self.last = y
        elif self.where == "list":
            self.log.append(y)
        return y


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("global", "the forward of Keeps changes SEEN beside its result"),
        ("attribute", "forward stores into the model: last"),
        ("list", "forward stores into the model: log"),
    ],
)
def test_what_forward_does_beside_its_result_is_still_done(where: str, message: str) -> None:
    SEEN.clear()
    fast = stonefx.optimize(Keeps(where).eval(), x())
    assert message in fast.report.notes[0]
    assert [site.module_path for site in fast.report.rewritten()] == ["layers"]
    SEEN.clear()
    result = fast(x())
    kept = {"global": SEEN, "attribute": [getattr(fast, "last", None)], "list": fast.log}[where]
    assert len(kept) == 1 and kept[0] is result


def test_hooks_inside_the_model_still_run() -> None:
    seen: list[torch.Tensor] = []
    model = Keeps("nowhere").eval()
    model.layers.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with warnings.catch_warnings(action="ignore"):
        fast = stonefx.optimize(model, x())
    assert "changes a variable of a closure beside its result" in fast.report.notes[0]
    seen.clear()
    result = fast(x())
    assert len(seen) == 1 and torch.equal(seen[0], result)


def test_on_error_eager_returns_a_whole_model_after_a_late_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise stonefx.RewriteError("a late failure")

    monkeypatch.setattr(sys.modules["stonefx.optimize"], "verify_whole", fail)
    model = chain(8, 64, 8)
    with pytest.warns(stonefx.StonefxWarning, match="a late failure"):
        fast = stonefx.optimize(model, x(), on_error="eager")
    probe = x()
    assert torch.equal(fast(probe), model(probe))


@pytest.mark.parametrize("release", [True, False])
def test_a_folded_weight_that_is_returned_stays(release: bool) -> None:
    class Returns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = chain(8, 64, 8)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.layers(x), self.layers[0].weight

    model = Returns().eval()
    fast = stonefx.optimize(model, x(), release=release)
    assert fast.report.rewritten("linear_chain")
    probe = x()
    result, weight = fast(probe)
    equal(result, model(probe)[0])
    assert torch.equal(weight, model.layers[0].weight) and weight is fast.layers[0].weight
    with torch.no_grad():
        for each in (fast, model):
            each(probe)[1].mul_(2)
        equal(fast(probe)[0], model(probe)[0])


def test_a_submodule_called_folded_is_left_alone() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.folded = nn.Linear(8, 8)
            self.layers = chain(8, 64, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(torch.relu(self.folded(x)))

    model = Named().eval()
    fast = stonefx.optimize(model, x())
    names = [name for name, _ in fast.named_parameters()]
    assert names == [
        "folded__layers_0_layers_1_weight_transposed",
        "folded__layers_0_layers_1_bias",
        "folded.weight",
        "folded.bias",
    ]
    probe = x()
    equal(fast(probe), model(probe))


@pytest.mark.parametrize("inner", ["aot_eager", "inductor"])
@pytest.mark.parametrize("wanted", [False, True], ids=["no gradients", "gradients"])
def test_numbers_in_float64_are_compiled(inner: str, wanted: bool) -> None:
    """AOT autograd asks Dynamo to start again where such numbers were made symbols; here nobody else hears it."""
    from torch._dynamo.symbolic_convert import TensorifyState

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)
            self.register_buffer("scale", torch.tensor(1.7, dtype=torch.float64))
            self.register_buffer("shift", torch.tensor(0.3, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.layer(x)) * self.scale + self.shift

    model = Scaled().eval()
    TensorifyState.clear()
    fast = stonefx.optimize(model, torch.randn(4, 8), inner=inner)
    x = torch.randn(6, 8)
    with torch.set_grad_enabled(wanted):
        torch.testing.assert_close(fast(x), model(x))
    fast.get_buffer("scale").fill_(-2.0)
    model.scale.fill_(-2.0)
    with torch.set_grad_enabled(wanted):
        torch.testing.assert_close(fast(x), model(x))


class Saturates(nn.Module):
    """There and back without a guard: of a long row nothing is left but where it saturates."""

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        norm = v.norm(dim=-1, keepdim=True)
        y = torch.tanh(norm) * v / norm
        norm = y.norm(dim=-1, keepdim=True)
        return torch.atanh(norm) * y / norm


@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_what_the_original_loses_in_rounding_is_no_difference(scale: float) -> None:
    torch.manual_seed(0)
    rows = torch.randn(64, 8) * scale
    fast = stonefx.optimize(Saturates(), rows)
    lost = [note for note in fast.report.notes if "is lost in rounding" in note]
    assert len(lost) == (scale > 1)
    equal(fast(rows / (2 * scale)), Saturates()(rows / (2 * scale)), 1e-5)


def test_a_real_difference_is_one_beside_float64_too(monkeypatch: pytest.MonkeyPatch) -> None:
    run = stonefx.optimize.__globals__["run_preserved"]
    calls = []

    def wrong(model: nn.Module, *args: Any) -> Any:
        calls.append(model)
        return run(model, *args) * (1.5 if isinstance(model, stonefx.optimized.OptimizedModule) else 1)

    monkeypatch.setitem(stonefx.optimize.__globals__, "run_preserved", wrong)
    with pytest.raises(stonefx.RewriteError, match="differs from the original at result by"):
        stonefx.optimize(chain(8, 32, 8), x())
    assert len(calls) == 2
