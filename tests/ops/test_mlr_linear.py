"""The fully connected layer of Hyperbolic Neural Networks++ against its printed formula."""

import re

import pytest
import torch
from operator_cases import overload, points, relative, requiring
from test_mlr import random, spelled_hnnpp

from stonefx import ops


def spelled(x, z, r, c):
    w = torch.sinh(c.sqrt() * spelled_hnnpp(x, z, r, c)) / c.sqrt()
    return w / (1 + torch.sqrt(1 + c * w.square().sum(-1, keepdim=True)))


def operands():
    return points(6, 5), 0.3 * random(5, 4), 0.3 * random(4, seed=2), torch.tensor(0.8, dtype=torch.float64)


def test_values_and_gradients():
    got, expected = requiring(operands()), requiring(operands())
    y, z = overload("hnnpp_linear")(*got), spelled(*expected)
    torch.testing.assert_close(y, z, rtol=1e-12, atol=1e-13)
    grad = random(6, 4, seed=3)
    y.backward(grad)
    z.backward(grad)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrow_dtypes(dtype):
    args = [a.to(dtype) for a in operands()[:3]]
    got = ops.hnnpp_linear(*args, 0.8)
    assert got.dtype == dtype
    exact = spelled(*(a.double() for a in args), torch.tensor(0.8, dtype=torch.float64))
    assert relative(got, exact) < 16 * torch.finfo(dtype).eps


def test_long_weights_stay_in_the_ball():
    """sinh overflows; the limit is a point of the boundary whose coordinates keep their ratios."""
    x = torch.tensor([[0.5, 0.0], [0.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[400.0, 400.0, -399.9], [0.0, 0.0, 0.0]])
    y = ops.hnnpp_linear(x, weight, torch.zeros(3))
    assert y.isfinite().all() and not y[1].any()
    ratio = torch.exp(torch.tensor(-0.1 * 2 * 1.0986))
    torch.testing.assert_close(-y[0, 2] / y[0, 0], ratio, rtol=1e-3, atol=0)
    y.sum().backward()
    assert x.grad.isfinite().all()


def test_results_are_scaled_to_the_largest_radius():
    x, z, r, c = operands()
    y = ops.hnnpp_linear(x, 5 * z, r, c, max_radius=0.9)
    radius = c.sqrt() * y.norm(dim=-1)
    free = ops.hnnpp_linear(x, 5 * z, r, c)
    assert (radius <= 0.9 + 1e-12).all() and (radius > 0.899).any()
    torch.testing.assert_close(y / y.norm(dim=-1, keepdim=True), free / free.norm(dim=-1, keepdim=True))


def test_errors():
    message = (
        "stone::hnnpp_linear: expected x [*batch, in], weight [in, out] and bias [out], got [2, 3], [4, 3] and [4]; "
        "weight is the transpose of nn.Linear.weight"
    )
    with pytest.raises(RuntimeError, match=re.escape(message)):
        ops.hnnpp_linear(torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(RuntimeError, match="max_radius must be at least 0, got -1"):
        ops.hnnpp_linear(torch.zeros(2, 3), torch.zeros(3, 4), torch.zeros(4), max_radius=-1.0)
