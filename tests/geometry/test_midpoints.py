"""Midpoints against high precision, from the origin to the last radius that float64 holds; and what is refused."""

import math

import mpmath as mp
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stonefx.geometry import klein, lorentz, poincare

EPS = torch.finfo(torch.float64).eps
MIDPOINTS = {
    "gyromidpoint": poincare.gyromidpoint,
    "einstein_midpoint": klein.einstein_midpoint,
    "centroid": lorentz.centroid,
}
EACH = pytest.mark.parametrize("name", MIDPOINTS)


def space_of(name, row, c):
    """The space components on the hyperboloid of a point, exactly."""
    row, c = [mp.mpf(value) for value in row], mp.mpf(c)
    if name == "centroid":
        return row[1:]
    gap = 1 - c * sum(value * value for value in row)
    return [2 * value / gap if name == "gyromidpoint" else value / mp.sqrt(gap) for value in row]


def time_of(space, c):
    return mp.sqrt(1 / mp.mpf(c) + sum(value * value for value in space))


def exact(name, points, weights, c):
    """The space components of the midpoint."""
    spaces = [space_of(name, row, c) for row in points.tolist()]
    shares = [mp.mpf(weight) for weight in weights.tolist()]
    time = sum(w * time_of(space, c) for w, space in zip(shares, spaces, strict=True))
    total = [
        sum(w * value for w, value in zip(shares, values, strict=True))
        for values in zip(*spaces, strict=True)
    ]
    length = mp.sqrt(mp.mpf(c) * (time * time - sum(value * value for value in total)))
    return [value / length for value in total]


def error(name, points, weights, c):
    """The distance of the midpoint from the exact one, in units of 1 / sqrt(c)."""
    return off(name, MIDPOINTS[name](points, weights, c), points, weights, c)


def off(name, midpoint, points, weights, c):
    """The distance of a point from the exact midpoint, in units of 1 / sqrt(c)."""
    with mp.workdps(120):
        got = space_of(name, midpoint.tolist(), c)
        expected = exact(name, points, weights, c)
        product = time_of(got, c) * time_of(expected, c) - sum(
            a * b for a, b in zip(got, expected, strict=True)
        )
        return float(mp.acosh(max(mp.mpf(1), c * product)))


def at(name, radii, angles, c):
    """Points of the plane by their distance from the origin, in units of 1 / sqrt(c), and their angle."""
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    if name == "centroid":
        return torch.cat([radii.cosh()[:, None], radii.sinh()[:, None] * directions], -1) / math.sqrt(c)
    lengths = (radii / 2).tanh() if name == "gyromidpoint" else radii.tanh()
    return lengths[:, None] * directions / math.sqrt(c)


def clusters(radius):
    """Radii, angles and weights: one point, the same twice, unevenly, points about 1 apart, points all around."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    weights = torch.rand(6, generator=generator, dtype=torch.float64)
    radii = torch.full((6,), float(radius), dtype=torch.float64)
    angles = torch.full((6,), 0.9, dtype=torch.float64)
    yield radii[:1], angles[:1], torch.ones(1, dtype=torch.float64)
    yield radii[:2], angles[:2], torch.ones(2, dtype=torch.float64)
    yield radii[:2], angles[:2], torch.tensor([0.3, 0.7], dtype=torch.float64)
    yield (radii + 0.3 * noise[0]).abs(), angles + noise[1] * math.exp(-radius), weights
    yield radii * weights, 3 * noise[1], weights.flip(0)


# What rounding the points themselves does: e^r on the hyperboloid and in the Poincaré ball, e^2r in the Klein ball.
# The balls end where a point can no longer be told from the boundary.
RADII = {"centroid": (0, 1e-8, 1, 5, 15, 20, 30, 35), "gyromidpoint": (0, 1e-8, 1, 5, 15),
         "einstein_midpoint": (0, 1e-8, 1, 5, 7.5)}  # fmt: skip


@pytest.mark.parametrize("c", [0.3, 1.0, 5.0])
@EACH
def test_high_precision(name, c):
    for radius in RADII[name]:
        for radii, angles, weights in clusters(radius):
            points = at(name, radii, angles, c)
            rounding = 3 * EPS * math.exp(radius * (2 if name == "einstein_midpoint" else 1))
            assert error(name, points, weights, c) <= rounding, radius
            leaves = points.requires_grad_(), weights.requires_grad_()
            gradients = torch.autograd.grad(MIDPOINTS[name](*leaves, c).sum(), leaves)
            assert all(gradient.isfinite().all() for gradient in gradients), radius


@pytest.mark.parametrize("c", [0.3, 5.0])
@EACH
def test_several_midpoints_of_the_same_points(name, c):
    """They are made by other sums than one midpoint is."""
    for radius in RADII[name]:
        for radii, angles, weights in clusters(radius):
            points = at(name, radii, angles, c)
            rows = torch.stack([weights, weights.flip(0), weights.square(), torch.ones_like(weights)])
            midpoints = MIDPOINTS[name](points, rows, c)
            rounding = 3 * EPS * math.exp(radius * (2 if name == "einstein_midpoint" else 1))
            for midpoint, row in zip(midpoints, rows, strict=True):
                assert off(name, midpoint, points, row, c) <= rounding, radius
            leaves = points.requires_grad_(), rows.requires_grad_()
            gradients = torch.autograd.grad(MIDPOINTS[name](*leaves, c).sum(), leaves)
            assert all(gradient.isfinite().all() for gradient in gradients), radius


class Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that an operation gives."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.entries = max(self.entries, result.numel())
        return result


@EACH
@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_attention_needs_no_memory_for_weights_times_coordinates(name, batch):
    generator = torch.Generator().manual_seed(0)
    rows = 0.1 * torch.randn(*batch, 12, 16, generator=generator, dtype=torch.float64)
    points = (lorentz.project(rows) if name == "centroid" else rows).requires_grad_()
    weights = torch.rand(*batch, 20, 12, generator=generator, dtype=torch.float64).requires_grad_()
    shared = points.unsqueeze(-3) if batch else points
    with Largest() as largest:
        midpoints = MIDPOINTS[name](shared, weights)
        gradients = torch.autograd.grad(midpoints.square().sum(), (points, weights))
    assert largest.entries <= math.prod(batch) * 20 * 16
    apart = torch.stack([MIDPOINTS[name](points, row) for row in weights.unbind(-2)], -2)
    torch.testing.assert_close(midpoints, apart)
    for gradient, expected in zip(
        gradients, torch.autograd.grad(apart.square().sum(), (points, weights)), strict=True
    ):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("radius", [15.0, 20.0, 35.0, 60.0, 170.0])
def test_the_centroid_of_a_point_is_the_point(radius):
    point = lorentz.expmap0(torch.tensor([0, 0.6, 0.8], dtype=torch.float64) * radius)
    for points in (point[None], torch.stack([point, point])):
        points = points.clone().requires_grad_()
        middle = lorentz.centroid(points)
        torch.testing.assert_close(middle, point, rtol=1e-6, atol=0)
        (gradient,) = torch.autograd.grad(middle[1], points)
        assert gradient.isfinite().all()
        # Moving all the points along the first axis moves their centroid by as much.
        assert float(gradient[:, 1].sum()) == pytest.approx(1, rel=1e-5)


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_point_near_the_boundary_in_short_dtypes(name, dtype):
    """The same point twice is that point, to the rounding of its dtype."""
    for length in (0.5, 0.99, 0.9999):
        point = at(name, *torch.tensor([[2 * math.atanh(length)], [0.9]], dtype=torch.float64), 1.0).to(dtype)
        middle = MIDPOINTS[name](point.expand(2, -1))
        expected = lorentz.project(point[0]) if name == "centroid" else point[0]
        torch.testing.assert_close(middle, expected, rtol=4 * torch.finfo(dtype).eps, atol=0)


@EACH
def test_gradients(name):
    generator = torch.Generator().manual_seed(1)
    points = at(name, *torch.rand(2, 8, generator=generator, dtype=torch.float64).mul(3).unbind(), 0.7)
    points = points.reshape(2, 4, -1)
    points[0, 0] = 0  # the origin; a centroid takes the time from the space components
    weights = torch.rand(2, 4, generator=generator, dtype=torch.float64)
    c = torch.tensor([[0.7], [0.4]], dtype=torch.float64)
    leaves = [each.requires_grad_() for each in (points, weights, c)]
    assert torch.autograd.gradcheck(MIDPOINTS[name], leaves)
    assert torch.autograd.gradgradcheck(MIDPOINTS[name], leaves, atol=1e-6)
    # Opposite points, and points that all are the origin, whose sum is 0.
    for rows in (torch.stack([points[1, 0], -points[1, 0]]), torch.zeros_like(points[0])):
        assert torch.autograd.gradcheck(MIDPOINTS[name], rows.detach().requires_grad_())


@EACH
def test_batches_weights_and_curvatures(name):
    points = torch.rand(2, 3, 4, 3, dtype=torch.float64) * 0.3
    weights, c = torch.rand(3, 4, dtype=torch.float64), torch.tensor([[[0.5]], [[2.0]]], dtype=torch.float64)
    together = MIDPOINTS[name](points, weights, c)
    for i in range(2):
        for j in range(3):
            alone = MIDPOINTS[name](points[i, j], weights[j], float(c[i]))
            torch.testing.assert_close(together[i, j], alone, rtol=1e-13, atol=1e-15)
    # Several midpoints of the same points, weights that are integers, and weights times a number.
    several = MIDPOINTS[name](points[0, 0], weights)
    torch.testing.assert_close(several[1], MIDPOINTS[name](points[0, 0], weights[1]))
    for factor in (1e-200, 1e200):
        torch.testing.assert_close(MIDPOINTS[name](points[0, 0], factor * weights), several)
    none = torch.zeros(3, 0, dtype=torch.float64)
    assert torch.equal(MIDPOINTS[name](points[0, 0, :0], none), MIDPOINTS[name](points[0, 0], 0 * weights))
    twice = MIDPOINTS[name](points, torch.tensor([2, 0, 2, 2]))
    torch.testing.assert_close(twice, MIDPOINTS[name](points[..., [0, 2, 3], :]))
    torch.testing.assert_close(MIDPOINTS[name](points, 1e-200 * weights, c), together)


@EACH
def test_without_points_or_weights_a_midpoint_is_the_origin(name):
    points = (torch.rand(2, 3, 4) * 0.3).requires_grad_()
    weights = torch.zeros(3, requires_grad=True)
    origin = torch.zeros(2, 4)
    if name == "centroid":
        origin[:, 0] = 2.0
    middle = MIDPOINTS[name](points, weights, 0.25)
    assert torch.equal(middle, origin)
    assert all(g.isfinite().all() for g in torch.autograd.grad(middle.sum(), (points, weights)))
    assert torch.equal(MIDPOINTS[name](points[:, :0], None, 0.25), origin)


@EACH
def test_messages(name):
    midpoint, points = MIDPOINTS[name], torch.zeros(5, 3, 2)
    given = r"with points \[5, 3, 2\]"
    for dtype in (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn):
        shown = str(dtype).removeprefix("torch.")
        with pytest.raises(
            RuntimeError,
            match=f"{name}: points must be float32, float64, bfloat16 or float16, got {shown}; convert",
        ):
            midpoint(points.to(dtype))
    with pytest.raises(ValueError, match=rf"{name}: points must be \[\*batch, n, dim\], got \[2\]; stack"):
        midpoint(points[0, 0])
    with pytest.raises(TypeError, match=f"{name}: expected points to be a tensor, got list; convert it"):
        midpoint(points.tolist())
    with pytest.raises(TypeError, match=f"{name}: expected weights to be a tensor, got list; convert it"):
        midpoint(points, [1.0, 1.0, 1.0])
    with pytest.raises(RuntimeError, match=f"{name}: weights must be real numbers, .* got complex64"):
        midpoint(points, torch.ones(3) + 0j)
    for wrong in ([2], [5], [4, 3], [5, 3, 1]):
        shown = str(wrong).replace("[", r"\[").replace("]", r"\]")
        with pytest.raises(
            RuntimeError,
            match=rf"{name}: weights must broadcast with \[\*batch, n\] = \[5, 3\], got {shown} {given}",
        ):
            midpoint(points, torch.ones(wrong))
    for wrong in ([3], [5], [3, 1], [5, 3, 1]):
        shown = str(wrong).replace("[", r"\[").replace("]", r"\]")
        with pytest.raises(
            RuntimeError,
            match=rf"{name}: c must be 0-dim or broadcast to \[\*batch, 1\] = \[5, 1\], got {shown} {given}",
        ):
            midpoint(points, None, torch.ones(wrong))
    with pytest.raises(RuntimeError, match=f"{name}: c must be float32, .* got int64"):
        midpoint(points, None, torch.tensor(1))
    with pytest.raises(TypeError, match=f"{name}: expected c to be a number or a tensor, got '1'"):
        midpoint(points, None, "1")
    with pytest.raises(
        RuntimeError, match=f"{name}: points and weights must be on one device, got cpu and meta"
    ):
        midpoint(points, torch.ones(3, device="meta"))
