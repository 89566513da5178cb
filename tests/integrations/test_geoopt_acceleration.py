"""geoopt's functions on stonefx's operators: nearer to float64 than geoopt's own float32, with geoopt's guards."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch import nn

import stonefx
from stonefx.integrations.geoopt import acceleration

geoopt = pytest.importorskip("geoopt", exc_type=ImportError)

from geoopt.layers.stereographic import Distance2StereographicHyperplanes  # noqa: E402
from geoopt.manifolds.stereographic import math as ball_math  # noqa: E402
from geoopt_calls import CALLS, rows  # noqa: E402

ACCELERATED = sorted({name.partition(" ")[0] for name in CALLS} & acceleration.BALL.keys())


def run(call, operands):
    operands = [operand.detach().clone().requires_grad_() for operand in operands]
    result = call(*operands)
    weight = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    found = torch.autograd.grad((result * weight).sum(), operands, allow_unused=True)
    return result.detach(), *found


def regime(name):
    """Points and a tangent vector whose coordinates float32 holds, in float64, and the curvature."""
    k = torch.tensor(-1.3).double()
    x, y, v = (row.float().double() for row in rows(torch.float64, k))
    if name == "near the boundary":
        x, y = (0.995 * row / (row.norm(dim=-1, keepdim=True) * 1.3**0.5) for row in (x, y))
    if name == "near each other":
        y = x + 1e-4 * v
    return [row.float().double() for row in (x, y, v)] + [k]


def errors(found, wanted):
    """Of the value and of each gradient but the curvature's, over the largest entry."""
    return [
        ((one.double() - other).abs().max() / (other.abs().max() + 1e-30)).item()
        for one, other in zip(found[:-1], wanted[:-1], strict=True)
        if other is not None
    ]


@pytest.mark.parametrize("where", ["inside", "near the boundary", "near each other"])
# The margin of a projection depends on the dtype, and planes are covered in pairs: both have tests of their own.
@pytest.mark.parametrize("name", [name for name in ACCELERATED if name not in ("project", "dist2plane")])
def test_float32_is_nearer_to_float64_than_geoopts(name, where):
    exact = regime(where)
    wanted = run(CALLS[name], exact)
    single = [operand.float() for operand in exact[:3]] + [exact[3]]
    theirs = errors(run(CALLS[name], single), wanted)
    with stonefx.accelerate("geoopt", name):
        ours = errors(run(CALLS[name], single), wanted)
    # Products and sums that remain in float32 lose a few bits in either; conditioning shows in geoopt's own error.
    for mine, other in zip(ours, theirs, strict=True):
        assert mine <= 1.5e-6 + 1.5 * min(other, 1e-3), (name, where, ours, theirs)


@pytest.mark.parametrize("name", ACCELERATED)
def test_float64_agrees_with_geoopt(name):
    operands = regime("inside")
    wanted = run(CALLS[name], operands)
    with stonefx.accelerate("geoopt", name):
        found = run(CALLS[name], operands)
    for one, other in zip(found, wanted, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_projection_has_the_dtypes_margin():
    k = torch.tensor(-2.0)
    for dtype, margin in ((torch.float32, 4e-3), (torch.float64, 1e-5)):
        x = torch.tensor([[3.0, 4.0], [0.1, 0.2]], dtype=dtype)
        for eps in (-1, 0.1):
            wanted = ball_math.project(x, k=k, eps=eps)
            with stonefx.accelerate("geoopt"):
                found = ball_math.project(x, k=k, eps=eps)
                assert geoopt.PoincareBall(2.0).projx(x).norm(dim=-1)[0].item() == pytest.approx(
                    (1 - margin) / 2**0.5, rel=1e-6
                )
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_values_are_geoopts(dtype):
    """Where geoopt's clamps act, ours act at the same place: the rounded limit of artanh, tanh at 15."""
    edge = 1 - torch.finfo(dtype).eps
    x = torch.tensor([[edge, 0.0]], dtype=dtype)
    far = torch.tensor([[100.0, 0.0]], dtype=dtype)
    k = torch.tensor(-1.0, dtype=dtype)
    cases = [
        lambda: ball_math.dist(x, -x, k=k),
        lambda: ball_math.dist0(x, k=k),
        lambda: ball_math.logmap0(x, k=k),
        lambda: ball_math.expmap0(far, k=k),
        lambda: ball_math.mobius_scalar_mul(torch.tensor(0.25, dtype=dtype), x, k=k),
    ]
    wanted = [case() for case in cases]
    limit = 1 - 2.0**-23 if dtype == torch.float32 else 1 - 1e-7
    with stonefx.accelerate("geoopt"):
        for case, expected in zip(cases, wanted, strict=True):
            torch.testing.assert_close(case(), expected, rtol=1e-6, atol=1e-6)
        assert cases[1]().item() == pytest.approx(2 * math.atanh(limit), rel=1e-6)
        # A geodesic stops where the distance does; geoopt's own float32 point is outside of the ball.
        t = math.tanh(0.25 * math.atanh(limit))
        quarter = ball_math.geodesic(torch.tensor(0.25, dtype=dtype), x, -x, k=k)[0, 0].item()
        assert quarter == pytest.approx((edge - t) / (1 - edge * t), abs=2 * torch.finfo(dtype).eps)
    with stonefx.accelerate("geoopt", bounds="stonefx"):
        assert cases[0]().item() == pytest.approx(4 * math.atanh(edge), rel=1e-2)


@pytest.mark.parametrize("name", ACCELERATED)
def test_nan_stays_in_its_row_and_zero_is_finite(name):
    x, y, v, k = (operand.float() for operand in regime("inside"))
    x[0], x[1], y[1] = float("nan"), 0.0, 0.0
    y[2] = x[2]
    wanted = run(CALLS[name], [x, y, v, k])
    with stonefx.accelerate("geoopt", name):
        found = run(CALLS[name], [x, y, v, k])
    assert torch.equal(found[0].isnan(), wanted[0].isnan())
    for one, other in zip(found[1:4], wanted[1:4], strict=True):
        if other is not None:
            # Where geoopt's gradient is a number, ours is.
            assert not (one.isnan() & ~other.isnan()).any()


class Classifier(nn.Module):
    """geoopt's layer of hyperplanes behind an exponential map."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.ball = geoopt.PoincareBall(1.0)
        self.planes = Distance2StereographicHyperplanes(6, 4, ball=self.ball)
        self.to(dtype)

    def forward(self, x):
        return self.planes(self.ball.expmap0(x))


def test_the_layer_of_hyperplanes_is_one_product():
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    model, exact = Classifier(), Classifier(torch.float64)
    wanted = exact(x.double())
    wanted.square().sum().backward()
    model.planes.points.grad = None
    with stonefx.accelerate("geoopt"):
        for forward in (model, torch.compile(model, backend="eager", fullgraph=True)):
            result = forward(x)
            torch.testing.assert_close(result.double(), wanted, rtol=2e-5, atol=2e-6)
            result.square().sum().backward()
            torch.testing.assert_close(
                model.planes.points.grad.double(), exact.planes.points.grad, rtol=1e-4, atol=1e-4
            )
            model.planes.points.grad = None
    torch._dynamo.reset()


@pytest.mark.parametrize("options", [{"signed": True}, {"scaled": True}, {"signed": True, "scaled": True}])
def test_planes_along_the_last_dimension(options):
    x, p, a, k = (operand[:5] if operand.dim() else operand for operand in regime("inside"))
    wanted = ball_math.dist2plane(x[:, None], p[:3], a[:3], k=k, **options)
    with stonefx.accelerate("geoopt"):
        found = ball_math.dist2plane(x[:, None], p[:3], a[:3], k=k, **options)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


def test_midpoints_with_shared_points_are_a_product():
    x, _, v, k = regime("inside")
    weights = v[:, :1] + torch.linspace(-1, 1, 9).double()  # [9, 9], some below 0
    for options in ({}, {"posweight": True}, {"lincomb": True, "keepdim": True}):
        wanted = ball_math.weighted_midpoint(x.expand(9, 9, 5), weights, k=k, reducedim=[-2], **options)
        with stonefx.accelerate("geoopt"):
            found = ball_math.weighted_midpoint(x[None], weights, k=k, reducedim=[-2], **options)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("bounds", ["library", "stonefx"])
def test_distances_of_all_pairs_are_a_matrix(bounds):
    x, y, _, k = regime("inside")
    x, y = x.requires_grad_(), y[:5]
    weight = torch.linspace(-1, 1, 45).double().view(9, 5)
    found = []
    for accelerated in (False, True):
        with contextlib.ExitStack() as stack:
            if accelerated:
                stack.enter_context(stonefx.accelerate("geoopt", bounds=bounds))
            for other in (y, y[None]):
                matrix = ball_math.dist(x[:, None], other, k=k)
                found.append((matrix, *torch.autograd.grad((matrix * weight).sum(), x)))
    for matrix, gradient in found[1:]:
        torch.testing.assert_close(matrix, found[0][0], rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-10, atol=1e-11)


def test_the_hyperboloid_is_for_those_who_ask():
    manifold = geoopt.Lorentz(k=1.5).double()
    generator = torch.Generator().manual_seed(0)
    x, y = (manifold.projx(torch.randn(6, 4, generator=generator).double()) for _ in range(2))
    u = manifold.proju(x, torch.randn(6, 4, generator=generator).double())
    cases = [
        lambda: manifold.dist(x, y),
        lambda: manifold.expmap(x, u),
        lambda: manifold.logmap(x, y),
        lambda: manifold.projx(x + u),
        lambda: manifold.transp(x, y, u),
        lambda: manifold.inner(None, u, u),
        lambda: manifold.logmap0(y),
    ]
    wanted = [case() for case in cases]
    with stonefx.accelerate("geoopt") as changed:
        assert not any(name.startswith("lorentz") for name in changed.functions)
    with stonefx.accelerate("geoopt", lorentz=True) as changed:
        assert changed.functions["lorentz.dist"] == "lorentz_dist"
        for case, expected in zip(cases, wanted, strict=True):
            torch.testing.assert_close(case(), expected, rtol=1e-7, atol=1e-7)


class Network(nn.Module):
    """Two Möbius layers with biases on the ball, and distances to points on it."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.ball = geoopt.PoincareBall(1.0, learnable=True)
        self.weights = nn.ParameterList(torch.eye(5) + 0.1 * torch.randn(5, 5) for _ in range(2))
        points = (self.ball.random_normal(5, std=0.2) for _ in range(2))
        self.biases = nn.ParameterList(geoopt.ManifoldParameter(p, manifold=self.ball) for p in points)
        centres = self.ball.random_normal(3, 5, std=0.5)
        self.centres = geoopt.ManifoldParameter(centres, manifold=self.ball)
        self.to(dtype)

    def forward(self, x):
        x = self.ball.expmap0(x)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = self.ball.mobius_add(self.ball.mobius_matvec(weight, x), bias)
        return -self.ball.dist(x[:, None], self.centres)


def train(model, forward, steps, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(30, 5, generator=generator).to(dtype)
    label = torch.arange(30) % 3
    optimizer = geoopt.optim.RiemannianAdam(model.parameters(), lr=1e-2, stabilize=10)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(forward(x), label)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)


@pytest.mark.filterwarnings("ignore::stonefx.StonefxWarning")
def test_a_network_trains_as_with_geoopt():
    exact = Network(torch.float64)
    wanted = train(exact, exact, 100, torch.float64).float()
    assert wanted[-1] < 0.8 * wanted[0]
    theirs = Network()
    apart = (train(theirs, theirs, 100) - wanted).abs().max()
    with stonefx.accelerate("geoopt"):
        model = Network()
        assert (train(model, model, 100) - wanted).abs().max() <= max(2e-5, 2 * apart.item())
    model = Network()
    compiled = torch.compile(model, backend="stone", fullgraph=True, options={"inner": "eager"})
    assert (train(model, compiled, 100) - wanted).abs().max() <= max(2e-5, 3 * apart.item())
    torch._dynamo.reset()
