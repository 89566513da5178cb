"""Identities of the four models as properties of random points, tangent vectors and curvatures, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stonefx.geometry import klein, lorentz, poincare, sphere

CURVATURE = st.sampled_from([1e-3, 0.25, 1.0, 7.0, 1e3])
DIM = st.sampled_from([1, 2, 3, 8, 33])
SEED = st.integers(0, 2**20)
few = settings(max_examples=25, deadline=None, derandomize=True)


def ball(seed, dim, c, count=3, radius=0.9, rows=6):
    """`count` sets of points with `sqrt(c) ||x||` up to `radius`."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, rows, dim, generator=generator, dtype=torch.float64)
    lengths = torch.rand(count, rows, 1, generator=generator, dtype=torch.float64) * radius
    return (x / x.norm(dim=-1, keepdim=True) * lengths / c**0.5).unbind()


def close(got, expected, rtol=1e-9, atol=1e-10):
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


class Model:
    """One model: its functions, and points of the Poincaré ball brought to it."""

    def __init__(self, module, bring):
        self.module, self.bring = module, bring

    def points(self, seed, dim, c, **kwargs):
        return [self.bring(x, c) for x in ball(seed, dim, c, **kwargs)]


MODELS = {
    "poincare": Model(poincare, lambda x, c: x),
    "klein": Model(klein, poincare.to_klein),
    "lorentz": Model(lorentz, poincare.to_lorentz),
    "sphere": Model(
        sphere, lambda x, c: sphere.project(torch.cat([torch.full_like(x[..., :1], 0.5 / c**0.5), x], -1), c)
    ),
}
EVERY = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
WITH_TANGENTS = pytest.mark.parametrize(
    "model", [m for n, m in MODELS.items() if n != "klein"], ids=[n for n in MODELS if n != "klein"]
)
HYPERBOLIC = pytest.mark.parametrize(
    "model", [m for n, m in MODELS.items() if n != "sphere"], ids=[n for n in MODELS if n != "sphere"]
)


@WITH_TANGENTS
@given(seed=SEED, dim=DIM, c=CURVATURE)
@few
def test_log_undoes_exp_and_its_length_is_the_distance(model, seed, dim, c):
    x, y, _ = model.points(seed, dim, c)
    v = model.module.logmap(x, y, c)
    scale = c**-0.5
    close(model.module.expmap(x, v, c), y, atol=1e-9 * scale)
    if model.module is poincare:
        length = poincare.conformal_factor(x, c) * v.norm(dim=-1)
    elif model.module is lorentz:
        length = lorentz.inner(v, v).clamp_min(0).sqrt()
    else:
        length = v.norm(dim=-1)
    close(length, model.module.dist(x, y, c), rtol=1e-7, atol=1e-9 * scale)


@EVERY
@given(seed=SEED, dim=DIM, c=CURVATURE, t=st.floats(0, 1))
@few
def test_geodesics_join_their_ends_at_constant_speed(model, seed, dim, c, t):
    x, y, _ = model.points(seed, dim, c)
    scale = c**-0.5
    close(model.module.geodesic(x, y, 0.0, c), x, atol=1e-13 * scale)
    close(model.module.geodesic(x, y, 1.0, c), y, atol=1e-13 * scale)
    point, whole = model.module.geodesic(x, y, t, c), model.module.dist(x, y, c)
    close(model.module.dist(x, point, c), t * whole, rtol=1e-8, atol=1e-8 * scale)
    close(model.module.dist(point, y, c), (1 - t) * whole, rtol=1e-8, atol=1e-8 * scale)


@EVERY
@given(seed=SEED, dim=DIM, c=CURVATURE)
@few
def test_distances_are_a_metric(model, seed, dim, c):
    x, y, z = model.points(seed, dim, c)
    xy, yz, xz = (model.module.dist(a, b, c) for a, b in ((x, y), (y, z), (x, z)))
    assert (xz <= xy + yz + 1e-9 * c**-0.5).all()
    close(model.module.dist(y, x, c), xy, rtol=1e-12, atol=0)
    assert torch.equal(model.module.dist(x, x, c), torch.zeros_like(xy))


@given(seed=SEED, dim=DIM, c=CURVATURE)
@few
def test_conversions_are_isometries_and_undo_each_other(seed, dim, c):
    x, y, _ = ball(seed, dim, c)
    expected, scale = poincare.dist(x, y, c), c**-0.5
    for module, to in ((klein, poincare.to_klein), (lorentz, poincare.to_lorentz)):
        close(module.dist(to(x, c), to(y, c), c), expected, rtol=1e-10, atol=1e-11 * scale)
        close(module.to_poincare(to(x, c), c), x, rtol=1e-12, atol=0)
    close(klein.to_lorentz(poincare.to_klein(x, c), c), poincare.to_lorentz(x, c), rtol=1e-11, atol=0)
    close(lorentz.to_klein(poincare.to_lorentz(x, c), c), poincare.to_klein(x, c), rtol=1e-12, atol=0)


@given(seed=SEED, dim=DIM, c=CURVATURE, r=st.floats(-2, 2))
@few
def test_gyrogroup(seed, dim, c, r):
    x, y, z = ball(seed, dim, c, radius=0.7)
    scale = c**-0.5
    for add in (poincare.mobius_add, klein.add):
        close(add(-x, add(x, y, c), c), y, atol=1e-11 * scale)
        # gyr[x, y] z = -(x + y) + (x + (y + z)) has the norm of z
        gyrated = add(-add(x, y, c), add(x, add(y, z, c), c), c)
        close(gyrated.norm(dim=-1), z.norm(dim=-1), rtol=1e-8, atol=1e-11 * scale)
    close(poincare.dist0(poincare.mobius_scalar_mul(r, x, c), c), abs(r) * poincare.dist0(x, c), rtol=1e-9)
    close(poincare.mobius_scalar_mul(2.0, x, c), poincare.mobius_add(x, x, c), atol=1e-12 * scale)
    close(
        poincare.to_klein(poincare.mobius_add(x, y, c), c),
        klein.add(poincare.to_klein(x, c), poincare.to_klein(y, c), c),
        atol=1e-11 * scale,
    )
    close(
        poincare.logmap(x, y, c),
        poincare.logmap0(poincare.mobius_add(-x, y, c), c) * (1 - c * x.square().sum(-1, keepdim=True)),
        atol=1e-11 * scale,
    )


@given(seed=SEED, c=CURVATURE, t=st.floats(-1, 2))
@few
def test_klein_geodesics_are_straight_and_inside(seed, c, t):
    x, y, _ = (p * 0.9 for p in ball(seed, 4, c))
    point = klein.geodesic(x, y, t, c)
    direction, gone = y - x, point - x
    share = (gone * direction).sum(-1, keepdim=True) / direction.square().sum(-1, keepdim=True)
    close(gone, share * direction, atol=1e-12 * c**-0.5)
    assert (c * point.square().sum(-1) < 1).all()


@given(seed=SEED, dim=DIM, c=CURVATURE)
@few
def test_transports_preserve_inner_products_and_undo_each_other(seed, dim, c):
    x, y, v = ball(seed, dim, c)
    w = v.roll(1, 0)
    there = [poincare.parallel_transport(x, y, e, c) for e in (v, w)]
    factors = [poincare.conformal_factor(p, c).square() for p in (x, y)]
    before, after = factors[0] * (v * w).sum(-1), factors[1] * (there[0] * there[1]).sum(-1)
    close(after, before, rtol=1e-8, atol=1e-9 / c)
    close(poincare.parallel_transport(y, x, there[0], c), v, atol=1e-9 * c**-0.5)
    # the direction of the geodesic goes over into the direction in which it arrives
    arriving = -poincare.logmap(y, x, c)
    close(
        poincare.parallel_transport(x, y, poincare.logmap(x, y, c), c),
        arriving,
        rtol=1e-8,
        atol=1e-9 * c**-0.5,
    )

    p, q = poincare.to_lorentz(x, c), poincare.to_lorentz(y, c)
    a, b = (lorentz.logmap(p, poincare.to_lorentz(e, c), c) for e in (v, w))
    carried = [lorentz.parallel_transport(p, q, e, c) for e in (a, b)]
    close(lorentz.inner(*carried), lorentz.inner(a, b), rtol=1e-6, atol=1e-7 / c)
    close(lorentz.inner(carried[0], q), torch.zeros_like(carried[0][..., 0]), rtol=0, atol=1e-7 / c)


@given(seed=SEED, dim=DIM, c=CURVATURE)
@few
def test_midpoints_are_equidistant_and_the_same_in_every_model(seed, dim, c):
    x, y, z = ball(seed, dim, c)
    pair = torch.stack([x, y], -2)
    middle = poincare.gyromidpoint(pair, c=c)
    close(middle, poincare.geodesic(x, y, 0.5, c), atol=1e-11 * c**-0.5)
    points, weights = torch.stack([x, y, z], -2), torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    expected = poincare.gyromidpoint(points, weights, c)
    for module, to, midpoint in (
        (klein, poincare.to_klein, klein.einstein_midpoint),
        (lorentz, poincare.to_lorentz, lorentz.centroid),
    ):
        close(module.to_poincare(midpoint(to(points, c), weights, c), c), expected, atol=1e-11 * c**-0.5)


@HYPERBOLIC
def test_models_agree_with_geodesics_of_the_ball(model):
    c = 0.8
    x, y, _ = ball(5, 3, c)
    point = model.module.geodesic(model.bring(x, c), model.bring(y, c), 0.3, c)
    close(point, model.bring(poincare.geodesic(x, y, 0.3, c), c), rtol=1e-11)
