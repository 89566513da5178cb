"""The Poincaré ball: identities of the maps, and finite results where rounding meets the boundary."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stonefx.geometry import poincare

CURVATURES = (1e-6, 0.3, 1.0, 1e3)


def tangents(*shape, scale=1.0, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("c", CURVATURES)
def test_logmap0_undoes_expmap0(c):
    v = tangents(50, 6, scale=0.7 / math.sqrt(c))
    torch.testing.assert_close(poincare.logmap0(poincare.expmap0(v, c), c), v, rtol=1e-10, atol=0)


@pytest.mark.parametrize("c", CURVATURES)
def test_points_are_in_the_ball_at_the_length_of_tanh(c):
    v = tangents(50, 6, scale=1 / math.sqrt(c))
    y = poincare.expmap0(v, c)
    expected = torch.tanh(math.sqrt(c) * v.norm(dim=-1))
    torch.testing.assert_close(math.sqrt(c) * y.norm(dim=-1), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("c", CURVATURES)
def test_identities_of_the_sum(c):
    x, y = (poincare.expmap0(tangents(50, 6, scale=0.4 / math.sqrt(c), seed=s), c) for s in (1, 2))
    zero = torch.zeros(6, dtype=torch.float64)
    torch.testing.assert_close(poincare.mobius_add(x, zero, c), x)
    torch.testing.assert_close(poincare.mobius_add(zero, y, c), y)
    torch.testing.assert_close(poincare.mobius_add(-x, x, c), torch.zeros_like(x), rtol=0, atol=1e-15)
    torch.testing.assert_close(
        poincare.mobius_add(-x, poincare.mobius_add(x, y, c), c), y, rtol=1e-9, atol=1e-12
    )


@given(a=st.floats(-3, 3), b=st.floats(-3, 3), c=st.floats(0.01, 10))
@settings(max_examples=60, deadline=None)
def test_sums_along_a_line_add_lengths(a, b, c):
    """In one dimension the ball is the line: logmap0(x + y) = logmap0(x) + logmap0(y)."""
    v, w = (torch.tensor([t / math.sqrt(c)], dtype=torch.float64) for t in (a, b))
    total = poincare.mobius_add(poincare.expmap0(v, c), poincare.expmap0(w, c), c)
    torch.testing.assert_close(total, poincare.expmap0(v + w, c), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("function", [poincare.expmap0, poincare.logmap0])
def test_finite_at_the_origin_with_identity_gradient(function, dtype):
    x = torch.zeros(3, 4, dtype=dtype, requires_grad=True)
    y = function(x, 0.5)
    y.sum().backward()
    assert torch.equal(y, torch.zeros_like(y))
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_the_boundary_stays_finite(dtype):
    v = torch.tensor([[1e4, 0.0], [0.0, -2e4], [30.0, 40.0]], dtype=dtype, requires_grad=True)
    y = poincare.expmap0(v)
    back = poincare.logmap0(y)
    total = poincare.mobius_add(y, -y)
    (back.sum() + total.sum()).backward()
    assert back.isfinite().all() and total.isfinite().all() and v.grad.isfinite().all()
    longest = math.atanh(poincare.boundary(dtype))
    assert (back.norm(dim=-1).double() <= longest * (1 + 4 * torch.finfo(dtype).eps)).all()
    beyond = poincare.logmap0(torch.full((1, 3), 2.0, dtype=dtype))
    assert beyond.isfinite().all()


def test_curvature_of_each_row_and_learned():
    v = tangents(4, 3, scale=0.2)
    c = torch.tensor([[0.1], [0.5], [1.0], [2.0]], dtype=torch.float64, requires_grad=True)
    y = poincare.expmap0(v, c)
    for row, value in enumerate(c.tolist()):
        torch.testing.assert_close(y[row], poincare.expmap0(v[row], value[0]))
    y.norm(dim=-1).sum().backward()
    assert (c.grad < 0).all()


@pytest.mark.parametrize(
    "function", [poincare.expmap0, poincare.logmap0, lambda x, c: poincare.mobius_add(x, x, c)]
)
def test_errors(function):
    with pytest.raises(ValueError, match="the curvature c must be positive and finite, got -1"):
        function(torch.zeros(2, 3), -1.0)
    with pytest.raises(RuntimeError, match="must be float32, float64, bfloat16 or float16, got int64"):
        function(torch.zeros(2, 3, dtype=torch.int64), 1.0)
    with pytest.raises(
        RuntimeError, match=r"c must be 0-dim or broadcast to \[\*batch, 1\] = \[2, 1\], got \[2\]"
    ):
        function(torch.zeros(2, 3), torch.ones(2))
