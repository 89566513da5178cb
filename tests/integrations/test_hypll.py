"""HypLL's layers in one graph of stonefx's doors, and its functions on stonefx's operators."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import stonefx
from stonefx.integrations import dynamo
from stonefx.integrations.hypll import acceleration, tracing

pytest.importorskip("hypll", exc_type=ImportError)

import hypll.nn as hnn
from hypll.manifolds.poincare_ball import Curvature, PoincareBall
from hypll.manifolds.poincare_ball.math import diffgeom, linalg
from hypll.optim import RiemannianAdam
from hypll.tensors import ManifoldParameter, TangentTensor

pytestmark = pytest.mark.filterwarnings("ignore::stonefx.StonefxWarning")


@pytest.fixture(autouse=True)
def fresh():
    yield
    torch._dynamo.reset()


class Convolutional(nn.Module):
    """Convolution, activation, pooling, normalization, flattening and a classifier, all of HypLL."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        ball = self.ball = PoincareBall(Curvature(0.1, requires_grad=True))
        self.body = nn.Sequential(
            hnn.HConvolution2d(3, 4, 3, ball, padding=1),
            hnn.HBatchNorm2d(4, ball, use_midpoint=True),
            hnn.HReLU(ball),
            hnn.HMaxPool2d(2, ball, 2),
            hnn.HAvgPool2d(2, ball, (2, 2), use_midpoint=True),
            hnn.HFlatten(),
            hnn.HLinear(16, 5, ball),
        )

    def forward(self, x):
        return self.body(self.ball.expmap(TangentTensor(x, man_dim=1, manifold=self.ball))).tensor


class Embedded(nn.Module):
    """An embedding on the ball, a layer without a bias, and distances to a point."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.ball = PoincareBall(Curvature(1.0))
        self.table = hnn.HEmbedding(10, 6, self.ball)
        self.layer = hnn.HLinear(6, 4, self.ball, bias=False)

    def forward(self, index):
        x = self.layer(self.table(index))
        return self.ball.dist(x, x[torch.zeros(1, dtype=torch.long)])


CASES = {
    "convolutional": (
        Convolutional,
        lambda: torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
    ),
    "embedded": (Embedded, lambda: torch.tensor([1, 5, 9, 2])),
}


def plain(parameter):
    return parameter.tensor if isinstance(parameter, ManifoldParameter) else parameter


def gradients(model, result):
    wanted = [plain(parameter) for parameter in model.parameters() if plain(parameter).requires_grad]
    weight = torch.linspace(-1, 1, result.numel()).view(result.shape)
    found = torch.autograd.grad((result * weight).sum(), wanted, allow_unused=True)
    return [torch.zeros(1) if gradient is None else gradient for gradient in found]


@pytest.mark.parametrize("case", CASES)
def test_compiled_layers_are_one_graph_with_eager_values(case):
    kind, inputs = CASES[case]
    model, x = kind(), inputs()
    wanted = model(x)
    compiled = torch.compile(model, backend="stone", fullgraph=True, options={"inner": "eager"})
    result = compiled(x)
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients(model, result), gradients(model, wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert "hypll: traced in a form that fits one graph: ManifoldParameter" in stonefx.last_report().notes
    with pytest.raises(Exception, match="_is_view"):
        torch.compile(model, backend="eager")(x)
    with pytest.raises(Exception, match="_is_view"):
        torch.compile(model, backend="stone", options={"integrations": ()})(x)


@pytest.mark.parametrize("case", CASES)
def test_optimized_layers_train_as_the_original(case):
    kind, inputs = CASES[case]
    model, x = kind(), inputs()
    # Otherwise what is computed of the curvature and the weights alone is folded, and they are freed.
    fast = stonefx.optimize(model, x, release=False)
    assert isinstance(fast, kind)
    assert not any("not part of the model" in note for note in fast.report.notes)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)
    before = [plain(parameter).detach().clone() for parameter in model.parameters()]
    losses = []
    for each in (fast, model):
        optimizer = RiemannianAdam(each.parameters(), lr=1e-2)
        losses.append([])
        for _ in range(4):
            optimizer.zero_grad()
            loss = (each(x) - 0.3)[1:].square().mean()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
        if each is fast:
            for parameter, value in zip(model.parameters(), before, strict=True):
                assert torch.equal(plain(parameter), value)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < losses[0][0]


def test_manifold_tensors_are_arguments_of_compiled_models():
    ball = PoincareBall(Curvature(1.0))
    model = nn.Sequential(hnn.HLinear(6, 4, ball), hnn.HReLU(ball))
    x = ball.expmap(TangentTensor(torch.linspace(-1, 1, 18).view(3, 6), manifold=ball))
    compiled = torch.compile(model, backend="stone", fullgraph=True, options={"inner": "eager"})
    result = compiled(x)
    torch.testing.assert_close(result.tensor, model(x).tensor, rtol=1e-5, atol=1e-6)
    assert result.manifold is ball and result.man_dim == 1
    with pytest.raises(stonefx.CaptureError, match=r"is a ManifoldTensor(.|\n)*manifolds apart by identity"):
        stonefx.optimize(model, (x,))


def test_another_source_is_left_alone_and_said(monkeypatch):
    monkeypatch.setattr(tracing, "_INIT", "another")
    monkeypatch.setattr(dynamo, "_MADE", {})
    compiled = torch.compile(Embedded(), backend="stone", options={"inner": "eager"})
    with pytest.raises(Exception, match="_is_view"):
        compiled(torch.tensor([1, 2]))


def rows(shape, seed, dtype=torch.float32):
    row = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.7 * row / row.norm(dim=1, keepdim=True) / 1.3**0.5).to(dtype)


Z, R = rows((5, 4), 7), rows((1, 4), 8)[0] / 4
# Along dimension 1, which for matrices is the last.
CALLS = {
    "mobius_add": lambda x, y, v, c, dim: diffgeom.mobius_add(x, y, c, dim),
    "project": lambda x, y, v, c, dim: diffgeom.project(3 * x, c, dim, 0.1),
    "expmap0": lambda x, y, v, c, dim: diffgeom.expmap0(v, c, dim),
    "logmap0": lambda x, y, v, c, dim: diffgeom.logmap0(x, c, dim),
    "expmap": lambda x, y, v, c, dim: diffgeom.expmap(x, v, c, dim),
    "logmap": lambda x, y, v, c, dim: diffgeom.logmap(x, y, c, dim),
    "transp": lambda x, y, v, c, dim: diffgeom.transp(x, y, v, c, dim),
    "dist": lambda x, y, v, c, dim: diffgeom.dist(x, y, c, dim, keepdim=True),
    "inner": lambda x, y, v, c, dim: diffgeom.inner(x, y, v, c, dim, keepdim=True),
    "euc_to_tangent": lambda x, y, v, c, dim: diffgeom.euc_to_tangent(x, v, c, dim),
    "poincare_hyperplane_dists": lambda x, y, v, c, dim: linalg.poincare_hyperplane_dists(
        x, Z.to(x), R.to(x), c, dim
    ),
    "poincare_fully_connected": lambda x, y, v, c, dim: linalg.poincare_fully_connected(
        x, Z.to(x), None, c, dim
    ),
}


def run(call, operands, dim):
    operands = [operand.detach().clone().requires_grad_() for operand in operands]
    result = call(*operands, dim)
    weight = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    return result.detach(), *torch.autograd.grad((result * weight).sum(), operands, allow_unused=True)


@pytest.mark.parametrize("shape", [(6, 5), (3, 5, 2), (2, 5, 2, 3)], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_functions_are_nearer_to_float64_than_hypll(name, shape):
    single = [rows(shape, 0), rows(shape, 1), rows(shape, 2) / 3, torch.tensor(1.3)]
    wanted = run(CALLS[name], [operand.double() for operand in single], 1)
    theirs = run(CALLS[name], single, 1)
    with stonefx.accelerate("hypll", name) as changed:
        assert name in changed.functions
        ours = run(CALLS[name], single, 1)
    assert ours[0].shape == wanted[0].shape
    for mine, other, exact in zip(ours, theirs, wanted, strict=True):
        if exact is not None:
            scale = exact.abs().max() + 1e-30
            mine, other = (((each - exact).abs().max() / scale).item() for each in (mine, other))
            # That of the curvature is one sum of terms of either sign.
            assert mine <= (1e-6 if exact.dim() else 1e-5) + 1.5 * other
    again = run(CALLS[name], single, 1)
    assert torch.equal(again[0], theirs[0])


def test_distance_matrices():
    x, y, c = rows((6, 5), 0)[None], rows((4, 5), 1)[None], torch.tensor(1.3)
    wanted = diffgeom.cdist(x.double(), y.double(), c.double())
    with stonefx.accelerate("hypll", "cdist"):
        torch.testing.assert_close(diffgeom.cdist(x, y, c).double(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_layers_run_on_operators_in_eager_and_compiled(case):
    kind, inputs = CASES[case]
    model, x = kind(), inputs()
    wanted = model(x)
    with stonefx.accelerate("hypll"):
        result = model(x)
        torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-5)
        for one, other in zip(gradients(model, result), gradients(model, wanted), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        compiled = torch.compile(model, backend="stone", fullgraph=True, options={"inner": "eager"})
        torch.testing.assert_close(compiled(x), wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(model(x), wanted)


def test_manifold_parameters_are_copied_while_it_is_on():
    layer = Embedded().layer
    with stonefx.accelerate("hypll", "ManifoldParameter.__deepcopy__"):
        made = copy.deepcopy(layer)
    assert type(made.z) is ManifoldParameter
    assert made.z.tensor is not layer.z.tensor
    assert torch.equal(made.z.tensor, layer.z.tensor)
    assert made.manifold is not layer.manifold
    with pytest.raises(TypeError, match="man_dim"):
        copy.deepcopy(layer)


def test_every_name_is_documented_by_a_test():
    tested = {*CALLS, "cdist", "PoincareBall.fully_connected", "ManifoldParameter.__deepcopy__"}
    with stonefx.accelerate("hypll") as changed:
        assert (
            set(changed.functions)
            == tested
            == {*acceleration.FUNCTIONS, *list(tested - set(CALLS) - {"cdist"})}
        )
