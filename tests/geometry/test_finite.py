"""Finite values and gradients everywhere, points inside their model, and the bounds on conditioning."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stonefx.geometry import klein, lorentz, poincare, sphere

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
CURVATURES = (1e-2, 1.0, 50.0)


def ball_points(dtype, c):
    """Rows from 0 to beyond the boundary, with opposite and equal rows."""
    rows = [
        [0.0, 0.0],
        [1e-30, 0.0],
        [0.3, -0.4],
        [-0.3, 0.4],
        [0.999, 0.0],
        [-1.0, 0.0],
        [0.6, 0.8],
        [0.8, 0.8],
    ]
    return (torch.tensor(rows, dtype=torch.float64) / math.sqrt(c)).to(dtype)


def inside(x, c):
    return bool((c * x.double().square().sum(-1) < 1).all())


def finite_with_gradients(function, *operands):
    leaves = [o.detach().clone().requires_grad_() for o in operands]
    result = function(*leaves)
    assert result.isfinite().all()
    result.sum().backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)
    return result.detach()


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_whole_ball(dtype, c):
    x = ball_points(dtype, c)
    pairs = x.repeat_interleave(len(x), 0), x.repeat(len(x), 1)
    in_ball = [
        p[(c * torch.stack(pairs).double().square().sum(-1) < 1 - 8 * torch.finfo(dtype).eps).all(0)]
        for p in pairs
    ]
    scales = torch.tensor([0.0, 1e-30, 1.0, 30.0], dtype=torch.float64)[:, None, None]
    tangents = (scales * in_ball[1].double()).to(dtype)
    for module in (poincare, klein):
        finite_with_gradients(lambda a, b, m=module: m.dist(a, b, c), *pairs)
        assert inside(finite_with_gradients(lambda a, b, m=module: m.geodesic(a, b, 0.3, c), *in_ball), c)
        assert inside(finite_with_gradients(lambda a, m=module: m.project(a, c), x), c)
    assert inside(finite_with_gradients(lambda a: poincare.expmap0(a, c), tangents), c)
    assert inside(finite_with_gradients(lambda a, v: poincare.expmap(a, v, c), in_ball[0], tangents), c)
    assert inside(finite_with_gradients(lambda a: poincare.mobius_scalar_mul(5.0, a, c), x), c)
    assert inside(finite_with_gradients(lambda a, b: klein.add(a, b, c), *in_ball), c)
    assert inside(finite_with_gradients(lambda a: poincare.to_klein(a, c), x), c)
    assert inside(finite_with_gradients(lambda a: klein.to_poincare(a, c), x), c)
    for function in (poincare.logmap, poincare.mobius_add):
        finite_with_gradients(lambda a, b, f=function: f(a, b, c), *pairs)
    if (
        dtype != torch.float16
    ):  # the derivative of 1 / (1 - c ||x||^2) at the boundary is above its largest number
        finite_with_gradients(lambda a, b: poincare.parallel_transport(a, b, a, c), *pairs)
        finite_with_gradients(lambda a: poincare.conformal_factor(a, c), x)
        finite_with_gradients(lambda a: poincare.to_lorentz(a, c), x)
    for function in (poincare.dist0, poincare.logmap0):
        finite_with_gradients(lambda a, f=function: f(a, c), x)
    assert poincare.conformal_factor(x, c).isfinite().all() and poincare.to_lorentz(x, c).isfinite().all()
    finite_with_gradients(lambda a: poincare.gyromidpoint(a, c=c), torch.stack(pairs, -2))
    finite_with_gradients(lambda a: klein.einstein_midpoint(a, c=c), torch.stack(pairs, -2))


@pytest.mark.parametrize("dim", [1, 2, 5, 64])
@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_points_never_leave_the_balls(dtype, c, dim):
    """Rows near the boundary, opposite ones among them: rounding must not carry a result across."""
    generator = torch.Generator().manual_seed(dim)

    def rows(count):
        x = torch.randn(count, dim, generator=generator, dtype=torch.float64)
        gap = 10.0 ** torch.empty(count, 1, dtype=torch.float64).uniform_(-16, 0, generator=generator)
        return poincare.project((x / x.norm(dim=-1, keepdim=True) * (1 - gap) / math.sqrt(c)).to(dtype), c)

    x, y, z = rows(600), rows(600), rows(600)
    y[:100] = -x[:100]
    matrix = torch.randn(dim, dim, generator=generator, dtype=torch.float64).to(dtype)
    for result in (
        poincare.mobius_add(x, y, c),
        poincare.mobius_scalar_mul(3.0, x, c),
        poincare.mobius_matvec(matrix, x, c),
        poincare.expmap0(100 * x, c),
        poincare.expmap(x, z, c),
        poincare.geodesic(x, y, 0.4, c),
        poincare.gyromidpoint(torch.stack([x, y, z], -2), c=c),
        poincare.to_klein(x, c),
        klein.add(x, y, c),
        klein.scalar_mul(3.0, x, c),
        klein.geodesic(x, y, 0.4, c),
        klein.einstein_midpoint(torch.stack([x, y, z], -2), c=c),
        klein.to_poincare(x, c),
    ):
        assert result.isfinite().all() and inside(result, c)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_hyperboloid(dtype):
    space = torch.tensor([[0.0, 0.0], [1e-30, 0.0], [3.0, -4.0], [-3e3, 4e3], [0.0, 5e6]], dtype=dtype)
    x = lorentz.project(torch.cat([torch.zeros_like(space[:, :1]), space], -1))
    pairs = x.repeat_interleave(len(x), 0), x.repeat(len(x), 1)
    for function in (lorentz.dist, lorentz.logmap, lambda a, b: lorentz.geodesic(a, b, 0.3)):
        finite_with_gradients(function, *pairs)
    finite_with_gradients(lorentz.parallel_transport, *pairs, pairs[1])
    assert inside(finite_with_gradients(lorentz.to_poincare, x), 1.0)
    assert inside(finite_with_gradients(lorentz.to_klein, x), 1.0)
    far = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1e4, -3e30]], dtype=dtype)
    point = lorentz.expmap0(far)
    assert point.isfinite().all() and (point[:, 0] >= 1).all()


def test_the_sphere():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])
    pairs = x.repeat_interleave(4, 0), x.repeat(4, 1)
    for function in (sphere.dist, sphere.logmap, lambda a, b: sphere.geodesic(a, b, 0.3), sphere.expmap):
        finite_with_gradients(function, *pairs)
    assert torch.equal(sphere.project(torch.zeros(2)), torch.zeros(2))


@pytest.mark.parametrize("module", [poincare, klein])
def test_gradients_of_distances_where_they_have_a_kink(module):
    x = torch.tensor([[0.3, 0.4], [0.0, 0.0]], requires_grad=True)
    y = x.detach().clone().requires_grad_()
    module.dist(x, y).sum().backward()
    assert torch.equal(x.grad, torch.zeros(2, 2)) and torch.equal(y.grad, torch.zeros(2, 2))


def jacobian(function, x):
    return torch.func.jacrev(function)(x)


@example(seed=0, c=1.0, radius=3.7e-139)
@given(seed=st.integers(0, 2**20), c=st.sampled_from([0.1, 1.0, 10.0]), radius=st.floats(0.0, 0.948))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_conditioning_in_the_inner_ball(seed, c, radius):
    """For c R^2 < 0.9: maps at the origin have condition at most 1 / (1 - c R^2), gradients the square of that.

    Condition is the largest over the smallest stretch; the square bounds the gradient of every function below, of a
    result or operand in the ball of radius R. Distances are measured in units of 1 / sqrt(c).
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.nn.functional.normalize(torch.randn(2, 5, generator=generator, dtype=torch.float64), dim=-1)
    x, y = x * radius / c**0.5, y * radius / c**0.5
    bound = 1 / (1 - radius**2)
    v = poincare.logmap0(x, c)
    for function, at in ((poincare.expmap0, v), (poincare.logmap0, x), (poincare.to_klein, x)):
        stretches = torch.linalg.svdvals(jacobian(lambda a, f=function: f(a, c), at))
        assert stretches[0] / stretches[-1] <= bound * (2 if function is poincare.to_klein else 1) + 1e-9
        assert stretches[0] <= 2 * bound**2 * (1 + 1e-9)
    translation = torch.linalg.svdvals(jacobian(lambda a: poincare.mobius_add(-x, a, c), y))
    assert translation[0] / translation[-1] <= 1 + 1e-7 and translation[0] <= bound**2 * (1 + 1e-9)
    gradient = torch.func.grad(lambda a: poincare.dist(a, y, c))(x)
    assert gradient.norm() <= 2 * bound + 1e-9
