"""Whole models, captured through Dynamo: layers are rewritten, learned curvature trains, nothing else is a site."""

import pytest
import torch
import transformers
from library_spellings import hie_expmap0, hie_logmap0, hie_mobius_add
from torch import nn

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.capture import from_dynamo
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.site import Context


class Recorder:
    """A backend that captures, rewrites and runs each graph, and keeps the sites."""

    def __init__(self, grad: bool = False) -> None:
        self.grad = grad
        self.sites = []
        self.graphs = []

    def __call__(self, gm, inputs):
        module = from_dynamo(gm, inputs)
        self.sites += HYPERBOLIC.run(module, Context(grad=self.grad))
        self.graphs.append(module)
        return module.forward


def compiled(model, recorder, **options):
    torch._dynamo.reset()
    return torch.compile(model, backend=recorder, fullgraph=True, **options)


class Layer(nn.Module):
    """Euclidean features into the ball, a translation there, and back."""

    def __init__(self, learn: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 8)
        self.shift = nn.Parameter(torch.full((8,), 0.05))
        self.scale = nn.Parameter(torch.tensor(0.9)) if learn else None

    def forward(self, x):
        c = 1.5 if self.scale is None else nn.functional.softplus(self.scale)
        y = hie_mobius_add(hie_expmap0(self.linear(x), c), hie_expmap0(self.shift, c), c)
        return hie_logmap0(y, c)


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_layer_is_four_operators(learn, dynamic):
    torch.manual_seed(0)
    model, recorder = Layer(learn), Recorder()
    fast = compiled(model, recorder, dynamic=dynamic)
    with torch.no_grad():
        for batch in (4, 9):
            x = torch.randn(batch, 6)
            torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-6)
    assert len(recorder.graphs) == (1 if dynamic else 2)
    targets = [site.target for site in recorder.sites[:4]]
    assert sorted(targets) == ["expmap0", "expmap0", "logmap0", "mobius_add"]
    assert {site.status for site in recorder.sites} == {"rewritten"}
    assert all("library_spellings.py:" in site.source for site in recorder.sites)


@pytest.mark.parametrize("learn", [False, True])
def test_gradients_of_a_layer(learn):
    torch.manual_seed(0)
    model, recorder = Layer(learn).double(), Recorder(grad=True)
    x = torch.randn(5, 6, dtype=torch.float64)
    weight = torch.randn(5, 8, dtype=torch.float64)
    parameters = list(model.parameters())
    expected = torch.autograd.grad((model(x) * weight).sum(), parameters)
    found = torch.autograd.grad((compiled(model, recorder)(x) * weight).sum(), parameters)
    assert {site.status for site in recorder.sites} == {"rewritten"}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


class Scaled(nn.Module):
    """A learned `sqrt(c)`."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        u = self.scale * x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return torch.tanh(u.clamp(-15, 15)) * x / u


@pytest.mark.parametrize("grad", [False, True])
def test_learned_square_root_of_the_curvature(grad):
    model, recorder = Scaled(), Recorder(grad)
    x = torch.randn(5, 6)
    fast = compiled(model, recorder)
    torch.testing.assert_close(fast(x), model(x))
    (found,), (expected,) = (torch.autograd.grad(f(x).square().sum(), model.scale) for f in (fast, model))
    torch.testing.assert_close(found, expected)
    (site,) = recorder.sites
    assert (site.status, site.guards) == ("rewritten", {"min_norm": 1e-12, "tanh_limit": 15.0})
    # c = scale * scale is a fold only where the scale is not being trained.
    folds = [node for node in recorder.graphs[0].graph.nodes if "fold" in node.meta]
    assert len(folds) == (0 if grad else 1)


def small(kind):
    torch.manual_seed(0)
    sizes = {"vocab_size": 32}
    if kind == "bert":
        config = transformers.BertConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, **sizes
        )
        config.hidden_act = "gelu_new"
        return transformers.BertModel(config)
    return transformers.GPT2Model(transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, **sizes))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_transformers_have_no_sites(kind):
    model, recorder = small(kind).eval(), Recorder()
    tokens = torch.arange(10).reshape(2, 5)
    flags = {"use_cache": False} if kind == "gpt2" else {}
    with torch.no_grad():
        found = compiled(model, recorder)(tokens, **flags).last_hidden_state
        expected = model(tokens, **flags).last_hidden_state
    assert torch.equal(found, expected)
    assert any(node.target == torch.ops.aten.tanh.default for g in recorder.graphs for node in g.graph.nodes)
    assert recorder.sites == []
