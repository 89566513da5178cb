"""geoopt's code in one graph of stonefx's doors, equal to itself, and as it was for every other compiler."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

import stonefx
from stonefx.integrations import dynamo
from stonefx.integrations.geoopt import tracing

geoopt = pytest.importorskip("geoopt", exc_type=ImportError)

from geoopt_calls import CALLS, rows  # noqa: E402

CURVATURES = {
    "negative": lambda dtype: torch.tensor(-1.3, dtype=dtype),
    "flat": lambda dtype: torch.tensor(0.0, dtype=dtype),
    "positive": lambda dtype: torch.tensor(0.6, dtype=dtype),
    "mixed rows": lambda dtype: torch.tensor([-1.0, 0.0, 0.5] * 3, dtype=dtype)[:, None],
}


class AsTraced:
    """A backend that runs what Dynamo hands over, for which these libraries' code is made to reach the graph."""

    integrations = ("geoopt",)

    def __call__(self, module, inputs):
        return module.forward


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients(function, operands):
    operands = [operand.detach().clone().requires_grad_() for operand in operands]
    result = function(*operands)
    weight = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    return result.detach(), torch.autograd.grad((result * weight).sum(), operands, allow_unused=True)


def assert_equal(found, wanted):
    """Values to rounding; gradients too, where one that is none counts as 0."""
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-14, atol=1e-15, equal_nan=True)
    for one, other in zip(found[1], wanted[1], strict=True):
        if one is None or other is None:
            assert all(each is None or not each.any() for each in (one, other))
        else:
            atol = 1e-13 * (1 + other.abs().max().item())
            torch.testing.assert_close(one, other, rtol=1e-12, atol=atol, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("name", CALLS)
def test_every_function_is_one_graph_with_its_own_values(name, curvature):
    k = CURVATURES[curvature](torch.float64)
    operands = [*rows(torch.float64, k), k]
    compiled = torch.compile(CALLS[name], backend=AsTraced(), fullgraph=True)
    assert_equal(gradients(compiled, operands), gradients(CALLS[name], operands))


@pytest.mark.parametrize("curvature", ["negative", "mixed rows"])
def test_all_functions_are_one_graph_with_their_own_values(curvature):
    k = CURVATURES[curvature](torch.float64)
    operands = [*rows(torch.float64, k), k]

    def everything(*operands):
        return torch.cat([call(*operands).flatten() for call in CALLS.values()])

    compiled = torch.compile(everything, backend=AsTraced(), fullgraph=True)
    assert_equal(gradients(compiled, operands), gradients(everything, operands))


class Mobius(nn.Module):
    """A Möbius layer and distances to a point, as geoopt's users write them."""

    def __init__(self, width: int = 6, curvature: float = 0.8, learnable: bool = True) -> None:
        super().__init__()
        self.ball = geoopt.PoincareBall(curvature, learnable=learnable)
        self.weight = nn.Parameter(torch.eye(width) + 0.1 * torch.ones(width, width))
        bias = self.ball.expmap0(torch.linspace(-0.1, 0.2, width))
        self.bias = geoopt.ManifoldParameter(bias.detach(), manifold=self.ball)

    def forward(self, x):
        x = self.ball.mobius_matvec(self.weight, self.ball.expmap0(x))
        return self.ball.dist(self.ball.mobius_add(x, self.bias), self.bias)


def state_gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.filterwarnings("ignore::stonefx.StonefxWarning")
def test_both_doors_take_a_whole_model_with_its_gradients():
    model, x = Mobius(), torch.linspace(-1, 1, 30).view(5, 6)
    exact = Mobius().double()
    exact(x.double()).sum().backward()
    wanted = state_gradients(exact)
    compiled = torch.compile(model, backend="stone", fullgraph=True, options={"inner": "eager"})
    fast = stonefx.optimize(model, x)
    for run, held in ((compiled, model), (fast, fast)):
        result = run(x)
        torch.testing.assert_close(result.double(), exact(x.double()), rtol=2e-5, atol=1e-6)
        result.sum().backward()
        found = state_gradients(held)
        # `optimize` may have folded the curvature, whose gradient is then that of what was made of it.
        assert found.keys() >= wanted.keys() - ({"ball.isp_c"} if held is fast else set())
        for name in found.keys() & wanted.keys():
            torch.testing.assert_close(found[name].double(), wanted[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.filterwarnings("ignore::stonefx.StonefxWarning")
def test_the_report_says_what_was_traced_in_another_form():
    options = {"inner": "eager", "passes": ()}
    torch.compile(Mobius(), backend="stone", options=options)(torch.ones(2, 6))
    note = "geoopt: traced in a form that fits one graph: artan_k, mobius_matvec, tan_k"
    assert note in stonefx.last_report().notes


def test_other_compilers_and_eager_see_geoopt_as_it_is():
    model, x = Mobius(), torch.ones(2, 6)
    before = model(x)
    torch.compile(model, backend=AsTraced())(x)
    assert torch.equal(model(x), before)
    assert geoopt.manifolds.stereographic.math.tan_k._torchdynamo_inline.__module__.startswith("geoopt.")
    for options in ({"backend": "eager"}, {"backend": "stone", "options": {"integrations": ()}}):
        with pytest.raises(torch._dynamo.exc.Unsupported, match="Data-dependent"):
            torch.compile(model, fullgraph=True, **options)(x)


def test_integrations_are_named_in_options():
    with pytest.raises(ValueError, match="'geoopot'; did you mean 'geoopt'\\? Choices: geoopt, hypll"):
        stonefx.optimize(nn.Linear(2, 2), torch.ones(1, 2), integrations=("geoopot",))
    assert stonefx.Options(integrations="hypll").integrations == ("hypll",)
    assert stonefx.Options(integrations=()).integrations == ()


@pytest.mark.filterwarnings("ignore::stonefx.StonefxWarning")
@pytest.mark.parametrize("unknown", ["version", "source"])
def test_what_is_not_known_is_left_alone_and_said(monkeypatch, unknown):
    if unknown == "version":
        monkeypatch.setattr(geoopt, "__version__", "0.6.0")
        said = "geoopt 0.6.0 is left alone: known is 0.5.1"
    else:
        other = {name: (made, "another") for name, (made, _) in tracing.REPLACEMENTS.items()}
        monkeypatch.setattr(tracing, "REPLACEMENTS", other)
        said = "geoopt: tan_k is traced as it is: its source is not that of geoopt 0.5.1"
    monkeypatch.setattr(dynamo, "_MADE", {})
    model, x = Mobius(), torch.ones(2, 6)
    wanted = model(x)
    compiled = torch.compile(model, backend="stone", options={"inner": "eager"})
    torch.testing.assert_close(compiled(x), wanted)
    assert said in stonefx.last_report().notes
    with pytest.raises(torch._dynamo.exc.Unsupported, match="Data-dependent"):
        torch.compile(model, backend=AsTraced(), fullgraph=True)(x)


def test_threads_that_compile_for_other_backends_do_not_disturb_each_other():
    model, x = Mobius(), torch.ones(2, 6)
    wanted, graphs, failures = model(x), [], []

    def run(backend):
        try:
            torch.testing.assert_close(torch.compile(model, backend=backend)(x), wanted)
        except Exception as error:
            failures.append(error)

    def other(module, inputs):
        graphs.append(module)
        return module.forward

    threads = [threading.Thread(target=run, args=(backend,)) for backend in (AsTraced(), other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(graphs) > 3  # the pieces between the breaks
