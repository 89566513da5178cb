"""The point at given distances from the coordinate hyperplanes, alone: the layer on it is in test_mlr_linear.py."""

import mpmath
import pytest
import torch
from operator_cases import DTYPES, overload
from torch.library import opcheck

from stonefx.ops.rows.point_of_distances import FORMULA, point_of_distances


def distances(rows, dim, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(dim)
    return (scale * torch.randn(rows, dim, generator=generator, dtype=torch.float64)).to(dtype)


def exact(v, c):
    """At 50 digits."""
    with mpmath.workdps(50):
        root = mpmath.sqrt(mpmath.mpf(c))
        w = [mpmath.sinh(root * mpmath.mpf(entry)) / root for entry in v.tolist()]
        whole = 1 + mpmath.sqrt(1 + c * sum(entry * entry for entry in w))
        return torch.tensor([float(entry / whole) for entry in w], dtype=torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("c", [1e-6, 0.7, 1e3])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 30.0, 500.0])
def test_accuracy(scale, c, dtype):
    for dim in (1, 3, 17):
        v = distances(4, dim, torch.float64, scale / c**0.5).to(dtype)
        v = v.where(v.isfinite(), 1.0)
        y = point_of_distances(v, torch.tensor(c, dtype=torch.float64))
        for row, point in zip(v, y, strict=True):
            expected = exact(row, c)
            error = (point.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-300)
            # A subnormal number of float16 has fewer digits.
            smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps / expected.abs().max()
            assert error <= 8 * torch.finfo(dtype).eps + smallest


@pytest.mark.parametrize("max_radius", [1e308, 0.5])
@pytest.mark.parametrize("dim", [1, 5, 8, 1024, 1500])
def test_gradients_against_the_reference(dim, max_radius):
    v, c = distances(6, dim), torch.linspace(0.5, 1.5, 6, dtype=torch.float64)[:, None]
    grad = distances(6, dim, scale=0.3)
    got = overload("point_of_distances_backward")(grad, v, c, max_radius=max_radius)
    expected = FORMULA.gradients(grad, v, c, max_radius=max_radius)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_in_lower_precision(dtype):
    v, c = distances(9, 21, dtype), torch.tensor(0.8)
    grad = distances(9, 21, dtype, 0.5)
    got = overload("point_of_distances_backward")(grad, v, c)
    expected = FORMULA.gradients(grad.double(), v.double(), c.double())
    for one, other in zip(got, expected, strict=True):
        assert (one.double() - other).abs().max() < 8 * torch.finfo(one.dtype).eps * other.abs().max()


@pytest.mark.parametrize("options", [{}, {"max_radius": 0.4}], ids=str)
def test_gradcheck_and_opcheck(options):
    v, c = distances(4, 3).requires_grad_(), torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    function = lambda *args: point_of_distances(*args, **options)  # noqa: E731
    assert torch.autograd.gradcheck(function, (v, c)) and torch.autograd.gradgradcheck(function, (v, c))
    opcheck(overload("point_of_distances"), (v, c), options)
    opcheck(overload("point_of_distances_forward"), (v.detach(), c.detach()), options)


def test_long_distances_depend_on_their_ratios_alone():
    v = torch.tensor([[1e5, 1e5 - 1.0, -3.0], [0.0, 0.0, 0.0], [-400.0, 1.0, 399.0]], requires_grad=True)
    y = point_of_distances(v, torch.tensor(1.0))
    lengths = torch.tensor([1.0, torch.tensor(-1.0).exp(), 0.0])
    torch.testing.assert_close(y[0], lengths / lengths.norm())
    assert torch.equal(y[1], torch.zeros(3))
    assert (y.double().norm(dim=-1) <= 1 + 1e-6).all()
    y.sum().backward()
    assert v.grad.isfinite().all()


def test_no_rows_and_no_entries():
    for shape in ((0, 3), (2, 0)):
        v = torch.zeros(shape, requires_grad=True)
        y = point_of_distances(v, torch.tensor(1.0))
        y.sum().backward()
        assert y.shape == shape and v.grad.shape == shape


def test_bad_arguments_are_named():
    with pytest.raises(
        RuntimeError, match=r"stone::point_of_distances: v must be \[\*batch, dim\] with at least one"
    ):
        point_of_distances(torch.tensor(1.0), torch.tensor(1.0))
    with pytest.raises(
        RuntimeError, match="stone::point_of_distances: max_radius must be at least 0, got -1"
    ):
        point_of_distances(torch.zeros(2, 3), torch.tensor(1.0), max_radius=-1.0)
