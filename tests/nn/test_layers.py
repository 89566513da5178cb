"""The layers: inside the model whatever the input, trainable, saved, compiled, transformed, under autocast."""

import copy
import io
import math
import pickle

import pytest
import torch
from nn_layers import LAYERS, C

from stonefx import nn as snn
from stonefx import ops

BALLS = ("butterfly", "klein", "poincare")


def layer(name, seed=0, **options):
    torch.manual_seed(seed)
    made = LAYERS[name](**options)
    with torch.no_grad():
        if getattr(made, "bias", None) is not None:
            made.bias.copy_(torch.linspace(-0.3, 0.4, len(made.bias)))
        if getattr(made, "offset", None) is not None:
            made.offset.copy_(torch.linspace(-0.3, 0.4, 32).reshape(4, 8))
    return made


def batch(name, *shape, seed=1, dtype=torch.float32):
    x = torch.randn(*shape, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.3
    x = x / (1 + 0.8 * x.norm(dim=-1, keepdim=True))
    return (ops.add_time(x[..., 1:], C) if name.startswith("lorentz") else x).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", BALLS)
def test_results_are_inside_whatever_the_input(name, dtype):
    made = layer(name, dtype=dtype)
    with torch.no_grad():
        made.weight.mul_(3)
    largest = min(torch.finfo(dtype).max / 16, 1e30)
    for scale in (0.0, 1e-6, 1.0, 1.4142, 10.0, largest):
        x = (torch.nn.functional.normalize(batch(name, 50, dtype=torch.float64), dim=-1) * scale).to(dtype)
        x.requires_grad_()
        y = made(x)
        assert y.dtype == dtype
        assert (C * y.double().square().sum(-1) < 1).all()
        y.sum().backward()
        assert x.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in made.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["lorentz", "lorentz, rescaled"])
def test_lorentz_results_are_on_the_hyperboloid(name, dtype):
    y = layer(name, dtype=dtype)(100 * torch.randn(50, 8, dtype=dtype)).double()
    torch.testing.assert_close(
        y[:, 0], (y[:, 1:].square().sum(-1) + 1 / C).sqrt(), rtol=2 * torch.finfo(dtype).eps, atol=0
    )


def test_rescaled_times_stay_between_their_bounds():
    made = layer("lorentz, rescaled", dtype=torch.float64)
    time = made(1e6 * torch.randn(200, 8, dtype=torch.float64))[:, 0] * C**0.5
    assert ((time >= 1.1 - 1e-12) & (time <= 3.1 + 1e-12)).all()
    assert made.log_scale.item() == pytest.approx(math.log(2))


def test_forms_and_scales_that_are_none():
    with pytest.raises(ValueError, match=r"LorentzLinear: expected form 'project' or 'rescale', got 'add'"):
        snn.LorentzLinear(3, 2, form="add")
    with pytest.raises(ValueError, match=r"LorentzLinear: scale must be positive and finite, got 0"):
        snn.LorentzLinear(3, 2, form="rescale", scale=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_logits_are_finite_whatever_the_input(dtype):
    made = layer("mlr", dtype=dtype)
    largest = torch.finfo(dtype).max / 16
    for scale in (0.0, 1e-6, 1.0, 1.4142, 10.0, min(1e19, largest), min(largest, 1e150)):
        x = (torch.nn.functional.normalize(batch("mlr", 50, dtype=torch.float64), dim=-1) * scale).to(dtype)
        logits = made(x.requires_grad_())
        logits.sum().backward()
        assert logits.isfinite().all() and x.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in made.parameters())


def test_points_beyond_the_boundary_have_the_logits_of_those_on_it():
    made = layer("mlr", dtype=torch.float64)
    x = torch.nn.functional.normalize(batch("mlr", 6, dtype=torch.float64), dim=-1) / C**0.5
    expected = made(x * (1 - 1e-5))
    for scale in (1.0, 3.0, 1e19):
        torch.testing.assert_close(made(x * scale), expected)


def test_logits_follow_the_distance_to_the_hyperplane():
    """Through the origin with normal e_1, the logit of (t, 0) is twice its signed distance from the origin."""
    made = snn.PoincareMLR(2, 1, c=C, dtype=torch.float64)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[1.0, 0.0]]))
    t = torch.linspace(-0.9, 0.9, 7, dtype=torch.float64).unsqueeze(-1)
    x = torch.cat((t, torch.zeros_like(t)), -1)
    torch.testing.assert_close(made(x), 2 * 2 / C**0.5 * torch.atanh(C**0.5 * t))


def test_klein_layer_goes_through_the_poincare_ball():
    klein = layer("klein", dtype=torch.float64)
    poincare = snn.PoincareLinear(8, 4, c=C, dtype=torch.float64)
    poincare.load_state_dict(klein.state_dict())
    k = batch("klein", 20, dtype=torch.float64)
    p = k / (1 + (1 - C * k.square().sum(-1, keepdim=True)).sqrt())
    q = poincare(p)
    expected = 2 * q / (1 + C * q.square().sum(-1, keepdim=True))
    torch.testing.assert_close(klein(k), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", BALLS)
def test_initialisation_keeps_points_away_from_the_origin(name):
    torch.manual_seed(0)
    x = batch(name, 500)
    y = LAYERS[name]()(x)
    assert 0.4 < (y.norm(dim=-1).mean() / x.norm(dim=-1).mean()).item() < 2.5


@pytest.mark.parametrize("name", LAYERS)
def test_learned_curvature_trains_and_stays_positive(name):
    made = layer(name, learn_curvature=True)
    assert made.curvature.item() == pytest.approx(C, rel=1e-6)
    optimizer = torch.optim.SGD(
        made.parameters(), lr=0.03 if name in ("lorentz", "lorentz, rescaled", "mlr") else 1.0
    )
    x = batch(name, 64)
    target = torch.zeros_like(made(x)) + 0.1
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (made(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert made.curvature > 0
    assert losses[-1] < 0.7 * losses[0]
    assert made.curvature.item() != pytest.approx(C, rel=1e-4)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_state_copies_and_pickles(name, learned):
    made, other = layer(name, learn_curvature=learned), layer(name, seed=5, learn_curvature=learned)
    x = batch(name, 6)
    expected = made(x)
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for again in (other, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(again(x), expected)
    assert any("curvature" in key for key in made.state_dict())


@pytest.mark.parametrize("name", LAYERS)
def test_autocast_leaves_the_layer_in_its_dtype(name):
    made = layer(name)
    x = batch(name, 6)
    with torch.autocast("cpu", torch.bfloat16):
        got = made(x)
        half = made(x.bfloat16())
    assert got.dtype == half.dtype == torch.float32
    assert torch.equal(got, made(x))
    assert torch.equal(half, made(x.bfloat16().float()))


@pytest.mark.parametrize("options", [{"backend": "inductor"}, {"backend": "stone"}], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_compiles_without_graph_breaks(name, options):
    torch._dynamo.reset()
    eager, traced = layer(name, learn_curvature=True), layer(name, learn_curvature=True)
    compiled = torch.compile(traced, fullgraph=True, **options)
    x = batch(name, 6)
    torch.testing.assert_close(compiled(x), eager(x))
    compiled(x).square().sum().backward()
    eager(x).square().sum().backward()
    for one, other in zip(traced.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_every_sample(name):
    made = layer(name, dtype=torch.float64, learn_curvature=True)
    x = batch(name, 5, dtype=torch.float64)
    parameters = dict(made.named_parameters())

    def loss(values, point):
        return torch.func.functional_call(made, values, (point,)).square().sum()

    got = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for i, point in enumerate(x):
        expected = torch.autograd.grad(loss(parameters, point), parameters.values())
        for key, other in zip(parameters, expected, strict=True):
            torch.testing.assert_close(got[key][i], other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_what_print_shows(name):
    text = repr(layer(name, learn_curvature=True))
    assert "0.5, learn_curvature=True" in text


def test_butterfly_sizes():
    with pytest.raises(ValueError, match="dim must be a power of two, 2 or more, got 6; pad the points"):
        snn.HyperButterflyLayer(6, 2)
    with pytest.raises(ValueError, match="num_layers must be 0 or more, got -1"):
        snn.HyperButterflyLayer(8, -1)
