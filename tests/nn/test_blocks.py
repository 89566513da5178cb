"""Layers that compute on the hyperboloid, in each of the models: attention, norms, activations, residuals, blocks."""

import copy
import math

import pytest
import torch
from torch import nn

from stonefx import nn as snn
from stonefx import ops
from stonefx.geometry import klein, lorentz, poincare
from stonefx.geometry.models import MODELS

C = 0.5
DIM = 6
EACH = pytest.mark.parametrize("model", MODELS)
LAYERS = {
    "attention": lambda **k: snn.HyperbolicAttention(DIM, 2, C, **k),
    "attention by distance": lambda **k: snn.HyperbolicAttention(DIM, 3, C, score="distance", **k),
    "layer norm": lambda **k: snn.HyperbolicLayerNorm(DIM, C, **k),
    "activation": lambda **k: snn.HyperbolicActivation(DIM, torch.tanh, C, **k),
    "batch norm": lambda **k: snn.HyperbolicBatchNorm(DIM, C, **k),
    "block": lambda **k: snn.HyperbolicTransformerLayer(DIM, 2, 10, C, **k),
}
ALL = pytest.mark.parametrize("name", LAYERS)


def space(*shape, scale=0.5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(*shape, DIM, generator=generator, dtype=torch.float64).to(dtype)


def points(model, *shape, scale=0.5, dtype=torch.float64):
    return MODELS[model].from_lorentz(ops.add_time(space(*shape, scale=scale), C), C).to(dtype)


def made(name, model, dtype=torch.float64, **options):
    torch.manual_seed(0)
    layer = LAYERS[name](model=model, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            # Nothing at 0 or 1, so that nothing is tested by half.
            parameter.add_(0.2 * torch.randn(parameter.shape, dtype=dtype))
    return layer


@EACH
@ALL
def test_a_layer_is_the_same_in_every_model(name, model):
    ours, theirs = made(name, model), made(name, "lorentz")
    x = points(model, 2, 5)
    y = ours(x)
    assert y.shape == x.shape
    kind = MODELS[model]
    torch.testing.assert_close(kind.to_lorentz(y, C), theirs(kind.to_lorentz(x, C)), rtol=1e-9, atol=1e-9)


@ALL
def test_gradients(name):
    layer = made(name, "poincare", learn_curvature=True)
    x = points("poincare", 4).requires_grad_()
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(x, *values):
        copied = copy.deepcopy(layer)
        return torch.func.functional_call(copied, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@EACH
@ALL
def test_results_are_points_whatever_the_input(name, model, dtype):
    layer = made(name, model, dtype)
    # Coordinates on the hyperboloid are squared, so that gradients end where the dtype does; balls are bounded.
    largest = {torch.float16: 3.0}.get(dtype, 1e4 if model == "lorentz" else 1e15)
    for scale in (0.0, 1e-6, 1.0, 3.0, largest):
        rows = space(9, scale=scale)
        x = (ops.add_time(rows, C) if model == "lorentz" else rows).to(dtype).requires_grad_()
        y = layer(x)
        assert y.dtype == dtype and y.isfinite().all()
        if model == "lorentz":
            time = (y[..., 1:].double().square().sum(-1) + 1 / C).sqrt()
            torch.testing.assert_close(y[..., 0].double(), time, rtol=4 * torch.finfo(dtype).eps, atol=0)
        else:
            assert (C * y.double().square().sum(-1) < 1).all()
        y.sum().backward()
        assert all(p.grad.isfinite().all() for p in layer.parameters())
        assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "model"),
    [*((name, "poincare") for name in LAYERS), ("block", "lorentz"), ("batch norm", "klein")],
)
def test_compiled_whole(name, model):
    torch._dynamo.reset()  # one forward serves more layers than Dynamo keeps
    layer, x = made(name, model).eval(), points(model, 2, 5)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


@ALL
def test_saved_copied_and_moved(name):
    layer, x = made(name, "lorentz", learn_curvature=True).eval(), points("lorentz", 2, 5)
    other = LAYERS[name](model="lorentz", dtype=torch.float64, learn_curvature=True).eval()
    other.load_state_dict(layer.state_dict())
    for same in (other, copy.deepcopy(layer)):
        assert torch.equal(same(x), layer(x))
    assert layer.float()(x.float()).dtype == torch.float32
    layer.reset_parameters()
    assert float(layer.curvature) == pytest.approx(C)
    assert f"c={C:g}, learn_curvature=True" in repr(layer)


@ALL
def test_autocast_changes_nothing(name):
    layer, x = made(name, "lorentz", torch.float32).eval(), points("lorentz", 2, 5, dtype=torch.float32)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), expected)
        wide = layer(x.bfloat16())
    torch.testing.assert_close(wide, layer(x.bfloat16().float()))
    torch.testing.assert_close(
        expected, copy.deepcopy(layer).double()(x.double()).float(), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["attention", "block"])
def test_one_curvature_for_all_layers_inside(name):
    layer = made(name, "lorentz", learn_curvature=True)
    with torch.no_grad():
        layer.log_curvature.fill_(math.log(2.0))
    for inner in [layer, copy.deepcopy(layer)]:
        curvatures = [float(m.curvature) for m in inner.modules() if hasattr(m, "curvature")]
        assert len(curvatures) > 1 and curvatures == pytest.approx([2.0] * len(curvatures))
    y = layer(ops.add_time(space(5), 2.0))
    torch.testing.assert_close(y[:, 0], (y[:, 1:].square().sum(-1) + 0.5).sqrt())
    assert len([n for n, _ in layer.named_parameters() if "curvature" in n]) == 1


# What attention computes, written out.
def attended(layer, query, key, value, allowed=None, added=0.0):
    """For one sequence, head by head and query by query, in the space of the hyperboloid."""
    heads, width = layer.num_heads, DIM // layer.num_heads
    maps = zip((query, key, value), layer.weight.chunk(3), layer.bias.chunk(3), strict=True)
    spaces = [(x @ weight.T + bias).unflatten(-1, (heads, width)) for x, weight, bias in maps]
    result = []
    for row in range(len(query)):
        parts = []
        for head in range(heads):
            q, k, v = (ops.add_time(s[:, head], C) for s in spaces)
            squared, distance = -2 / C - 2 * lorentz.inner(q[row], k), lorentz.dist(q[row], k, C)
            energies = squared if layer.score == "squared" else distance
            scores = -energies / layer.log_scale[head].exp() + added
            if allowed is not None:
                scores = scores.where(allowed[row], -torch.inf)
            total = (scores.softmax(-1)[:, None] * v).sum(0)
            parts.append((total / (-C * lorentz.inner(total, total)).sqrt())[1:])
        result.append(
            ops.lorentz_linear(ops.add_time(torch.cat(parts), C), layer.out.weight, layer.out.bias, C)
        )
    return torch.stack(result)


@pytest.mark.parametrize("name", ["attention", "attention by distance"])
def test_attention_is_what_it_says(name):
    layer = made(name, "lorentz")
    x, y, z = points("lorentz", 5), lorentz.project(points("lorentz", 7) * 1.5, C), points("lorentz", 7)
    torch.testing.assert_close(layer(x), attended(layer, x, x, x))
    torch.testing.assert_close(layer(x, y), attended(layer, x, y, y))
    torch.testing.assert_close(layer(x, y, z), attended(layer, x, y, z))
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(layer(x, is_causal=True), attended(layer, x, x, x, causal))
    torch.testing.assert_close(layer(x, mask=causal), attended(layer, x, x, x, causal))
    both = causal & (torch.arange(5) != 1)[None]
    both[0, 0] = True
    torch.testing.assert_close(layer(x, mask=both, is_causal=True), attended(layer, x, x, x, both))
    added = torch.randn(5, dtype=torch.float64)
    torch.testing.assert_close(layer(x, mask=added), attended(layer, x, x, x, None, added))
    several = torch.stack([x, lorentz.project(-x, C)])
    per_batch = torch.stack([causal, causal.flip(0, 1)])[:, None]
    expected = [attended(layer, row, row, row, mask[0]) for row, mask in zip(several, per_batch, strict=True)]
    torch.testing.assert_close(layer(several, mask=per_batch), torch.stack(expected))


def test_a_query_without_keys_attends_to_the_origin():
    layer = made("attention", "lorentz")
    x = points("lorentz", 4).requires_grad_()
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1] = False
    origin = ops.lorentz_linear(ops.add_time(x.new_zeros(DIM), C), layer.out.weight, layer.out.bias, C)
    for given in (mask, torch.where(mask, 0.0, -math.inf).double()):
        y = layer(x, mask=given)
        torch.testing.assert_close(y[1], origin)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert gradient.isfinite().all()
    torch.testing.assert_close(layer(x, x[:0]), origin.expand(4, -1))


def test_a_masked_key_is_not_read():
    """A NaN at a place that nobody may look at reaches nothing."""
    layer = made("attention", "lorentz").eval()
    x = points("lorentz", 4)
    mask = torch.tensor([True, True, False, True])
    expected = layer(x[:3], x, mask=mask)
    kept = layer(x[:3], x[[0, 1, 3]])
    torch.testing.assert_close(expected, kept)


def test_far_points_attend_to_the_nearest():
    """Squares of distances overflow long before distances do."""
    layer = made("attention", "lorentz", torch.float32)
    far = ops.add_time(torch.full((3, DIM), 1e12) * torch.tensor([[1.0], [1.1], [-1.0]]), C)
    assert layer(far).isfinite().all()


def test_dropout_in_training_alone():
    layer = made("attention", "lorentz", dropout=0.5)
    x = points("lorentz", 5)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_layer_norm_activation_and_residual():
    x, y = points("lorentz", 4), lorentz.project(2 * points("lorentz", 4), C)
    norm = made("layer norm", "lorentz")
    expected = nn.functional.layer_norm(x[:, 1:], (DIM,), norm.weight, norm.bias)
    torch.testing.assert_close(norm(x), ops.add_time(expected, C))
    torch.testing.assert_close(made("activation", "lorentz")(x), ops.add_time(x[:, 1:].tanh(), C))
    residual = snn.HyperbolicResidual(DIM, C, 0.5, dtype=torch.float64)
    expected = lorentz.centroid(torch.stack([x, y], 1), torch.tensor([1.0, 0.5]), C)
    torch.testing.assert_close(residual(x, y), expected)
    ball = snn.HyperbolicResidual(DIM, C, model="poincare", dtype=torch.float64)
    p, q = (lorentz.to_poincare(each, C) for each in (x, y))
    torch.testing.assert_close(ball(p, q), poincare.geodesic(p, q, 0.5, C))


def test_batch_norm_moves_and_scales():
    layer = snn.HyperbolicBatchNorm(DIM, C, eps=0.0, momentum=0.25, model="klein", dtype=torch.float64)
    x = points("klein", 8, 5, scale=0.3)
    y = layer(x)
    centre = klein.einstein_midpoint(y.reshape(-1, DIM), None, C)
    # The centroid of scaled points is the scaled centroid to first order.
    assert centre.norm() < 0.05 and (klein.dist(centre, y, C).square().mean() - 1).abs() < 0.01
    before = klein.einstein_midpoint(x.reshape(-1, DIM), None, C)
    variance = klein.dist(before, x, C).square().mean()
    torch.testing.assert_close(layer.running_variance, 0.75 + 0.25 * variance.detach())
    with torch.no_grad():
        layer.momentum = 1.0
        layer(x)
        layer.bias.copy_(torch.linspace(-0.3, 0.2, DIM))
        layer.weight.fill_(0.5)
    inside = layer(x)
    torch.testing.assert_close(layer.eval()(x), inside)
    assert torch.equal(layer(x[:0]), x[:0])
    with pytest.raises(ValueError, match="expected points to take a centroid of, got a batch without any"):
        layer.train()(x[:0])


MISTAKES = [
    (lambda: snn.HyperbolicAttention(6, 4), ValueError, "dim must be a multiple of num_heads, got 6 and 4"),
    (lambda: snn.HyperbolicAttention(6, 0), ValueError, "dim must be a multiple of num_heads, got 6 and 0"),
    (lambda: snn.HyperbolicAttention(6, 2, score="dot"), ValueError, "score 'squared' or 'distance', got 'dot'"),
    (lambda: snn.HyperbolicAttention(6, 2, dropout=1), ValueError, "dropout must be from 0 to below 1, got 1"),
    (lambda: snn.HyperbolicAttention(6, 2, model="ball"), ValueError, "model 'lorentz', 'poincare', 'klein', got"),
    (lambda: snn.HyperbolicLayerNorm("6"), TypeError, "dim must be an integer, got '6'"),
    (lambda: snn.HyperbolicActivation(6, "relu"), TypeError, "function must be callable, got str"),
    (lambda: snn.HyperbolicResidual(6, weight=-1.0), ValueError, "weight must be 0 or more, got -1.0"),
    (lambda: snn.HyperbolicBatchNorm(6, momentum=2), ValueError, "momentum must be from 0 to 1, got 2"),
    (lambda: snn.HyperbolicTransformerLayer(6, 2, 1.5), TypeError, "feed_forward must be an integer, got 1.5"),
    (lambda: snn.HyperbolicAttention(6, 2)(torch.zeros(3, 6)), RuntimeError, "expected points \\[\\*batch, 7\\]"),
    (lambda: _attend(torch.ones(3, 3).int()), RuntimeError, "mask must be bool .* or floating, got int32"),
    (lambda: _attend(torch.ones(2, 3).bool()), RuntimeError, "must broadcast to .* = \\[2, 3, 3\\], got \\[2, 3\\]"),
]  # fmt: skip


def _attend(mask):
    return snn.HyperbolicAttention(6, 2)(ops.add_time(torch.zeros(3, 6)), mask=mask)


@pytest.mark.parametrize(("call", "kind", "message"), MISTAKES, ids=[m[2][:40] for m in MISTAKES])
def test_messages(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
