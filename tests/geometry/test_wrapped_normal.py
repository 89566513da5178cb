"""The wrapped normal distribution: samples, densities and gradients, in every model."""

import math

import mpmath as mp
import pytest
import torch

from stonefx.geometry import WrappedNormal, lorentz
from stonefx.geometry.models import MODELS
from stonefx.geometry.wrapped_normal import log_sinh_ratio

C = 0.7
EACH = pytest.mark.parametrize("model", MODELS)


def point(model, *space):
    return MODELS[model].from_lorentz(lorentz.project(torch.tensor([0.0, *space], dtype=torch.float64), C), C)


@EACH
def test_the_density_is_one_of_the_plane(model):
    """Its integral over the hyperbolic plane, in polar coordinates about the origin, is 1."""
    normal = WrappedNormal(point(model, 0.4, -0.3), torch.tensor([0.5, 0.8]).double(), C, model)
    radii = torch.linspace(0, 9, 1500, dtype=torch.float64)
    angles = torch.linspace(0, 2 * math.pi, 240, dtype=torch.float64)[:-1]
    directions = torch.stack([torch.zeros_like(angles), angles.cos(), angles.sin()], -1)
    points = lorentz.expmap0(radii[:, None, None] * directions, C)
    densities = normal.log_prob(MODELS[model].from_lorentz(points, C)).exp()
    # A circle of radius r is 2 pi sinh(sqrt(c) r) / sqrt(c) long.
    rings = densities.mean(1) * 2 * math.pi * (math.sqrt(C) * radii).sinh() / math.sqrt(C)
    assert float(torch.trapezoid(rings, radii)) == pytest.approx(1, abs=2e-4)


@EACH
def test_samples_are_of_the_density(model):
    torch.manual_seed(0)
    loc = point(model, 0.4, -0.3)
    normal = WrappedNormal(loc, 0.5, C, model)
    samples = normal.sample((20000,))
    lifted = MODELS[model].to_lorentz(samples, C)
    centre = lorentz.centroid(lifted, None, C)
    assert lorentz.dist(centre, MODELS[model].to_lorentz(loc, C), C) < 0.02
    # Minus the mean of the log density is the entropy: of the tangent vectors, and of the volume.
    v = 0.5 * torch.randn(20000, 2, dtype=torch.float64)
    volume = log_sinh_ratio(math.sqrt(C) * v.norm(dim=-1)).mean()
    entropy = 1 + math.log(2 * math.pi * 0.25) + volume
    assert float(-normal.log_prob(samples).mean()) == pytest.approx(float(entropy), abs=0.05)


@EACH
def test_gradients(model):
    x = point(model, -0.2, 0.5)
    loc = point(model, 0.4, -0.3).requires_grad_()
    leaves = (loc, torch.tensor([0.5, 0.8], dtype=torch.float64, requires_grad=True))
    c = torch.tensor(C, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: WrappedNormal(*a, model).log_prob(x), (*leaves, c))

    def sample(*given):
        torch.manual_seed(0)
        return WrappedNormal(*given, model).rsample((3,))

    assert torch.autograd.gradcheck(sample, (*leaves, c))


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_and_dtypes(model, dtype):
    loc = point(model, 0.4, -0.3).to(dtype).expand(3, 1, -1)
    normal = WrappedNormal(loc, torch.full((4, 2), 0.5, dtype=dtype), C, model)
    assert normal.batch_shape == (3, 4) and normal.event_shape == loc.shape[-1:]
    x = normal.rsample((5,))
    assert x.shape == (5, 3, 4, loc.shape[-1]) and x.dtype == dtype
    assert normal.log_prob(x).shape == (5, 3, 4) and normal.log_prob(x[0, 0, 0]).shape == (3, 4)
    wide = normal.expand((2, 3, 4))
    torch.testing.assert_close(wide.log_prob(x[0]), normal.log_prob(x[0]).expand(2, 3, 4))
    assert torch.equal(normal.mean, loc.expand(3, 4, -1))
    per_row = WrappedNormal(loc[:, 0], 0.5, torch.tensor([[0.5], [1.0], [2.0]], dtype=dtype), "lorentz")
    assert per_row.batch_shape == (3,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_volume_to_rounding(dtype):
    radii = torch.tensor([0, 1e-12, 1e-4, 0.0299, 0.0301, 0.5, 3, 50, 1000], dtype=dtype).requires_grad_()
    values = log_sinh_ratio(radii)
    (gradients,) = torch.autograd.grad(values.sum(), radii)
    eps = torch.finfo(dtype).eps
    for r, value, gradient in zip(radii.tolist(), values.tolist(), gradients.tolist(), strict=True):
        with mp.workdps(60):
            exact = mp.log(mp.sinh(r) / r) if r else mp.mpf(0)
            slope = 1 / mp.tanh(r) - 1 / mp.mpf(r) if r else mp.mpf(0)
        assert abs(value - exact) <= 8 * eps * max(1, abs(exact))
        assert abs(gradient - slope) <= 200 * eps


def test_messages():
    zeros = torch.zeros(3)
    with pytest.raises(
        ValueError, match="WrappedNormal: expected model 'lorentz', 'poincare', 'klein', got 'ball'"
    ):
        WrappedNormal(zeros, 1.0, model="ball")
    with pytest.raises(TypeError, match=r"loc must be a tensor of points .* got list"):
        WrappedNormal([0.0, 0.0], 1.0)
    with pytest.raises(RuntimeError, match=r"scale must broadcast to .* = \[3\], got \[2\] with loc \[3\]"):
        WrappedNormal(zeros, torch.ones(2))
    with pytest.raises(ValueError, match="scale"):
        WrappedNormal(zeros, -1.0, validate_args=True)
    with pytest.raises(ValueError, match="positive"):
        WrappedNormal(zeros, 1.0, -1.0)
