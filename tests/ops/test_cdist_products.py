"""Distance matrices by one matrix product, `mode="fast"`, against the accurate ones."""

import pytest
import torch
from operator_cases import points
from torch.autograd import gradcheck

from stonefx import ops
from stonefx.geometry import poincare


@pytest.mark.parametrize(
    "c", [0.3, torch.tensor([[[0.2]], [[1.0]]], dtype=torch.float64)], ids=["number", "batch"]
)
@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float64, 1e-12), (torch.float32, 1e-4), (torch.bfloat16, 3e-2), (torch.float16, 5e-3)],
    ids=str,
)
def test_it_agrees_with_the_accurate_mode(dtype, bound, c):
    x, y = points(2, 40, 300, dtype=dtype, seed=1), points(30, 300, dtype=dtype, seed=2)
    fast, accurate = (poincare.cdist(x, y, c, mode=mode) for mode in ("fast", "accurate"))
    assert fast.dtype == dtype and fast.shape == (2, 40, 30)
    torch.testing.assert_close(fast, accurate, rtol=bound, atol=0)
    with torch.autocast("cpu"):
        assert torch.equal(poincare.cdist(x, y, c, mode="fast"), fast)


def test_near_and_equal_points_stay_finite():
    x = points(6, 20, dtype=torch.float32, seed=1, radius=0.99)
    y = x + 1e-6 * points(6, 20, dtype=torch.float32, seed=2)
    for other in (x, y):
        leaves = x.clone().requires_grad_(), other.clone().requires_grad_()
        distances = poincare.cdist(*leaves, mode="fast")
        assert distances.isfinite().all()
        assert (distances.diagonal() < 0.05).all()  # what a distance at the rounding of the norms comes to
        distances.sum().backward()
        assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_guards_act_as_in_the_accurate_mode():
    x, y = points(9, 5, seed=1, radius=0.9999), points(7, 5, seed=2, radius=0.9999)
    options = {"min_alpha": 0.1, "atanh_limit": 0.9, "min_denominator": 0.7, "denominator_offset": 0.01}
    one, other = (ops.poincare_cdist(x, y, 1.0, mode=mode, **options) for mode in ("fast", "accurate"))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=0)


def test_gradients():
    x, y = points(4, 6, seed=1).requires_grad_(), points(3, 6, seed=2).requires_grad_()
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *leaves: poincare.cdist(*leaves, mode="fast"), (x, y, c))


def test_it_compiles_whole():
    x, y = points(8, 16, dtype=torch.float32, seed=1), points(5, 16, dtype=torch.float32, seed=2)
    compiled = torch.compile(
        lambda x, y: poincare.cdist(x, y, mode="fast"), backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(x, y), poincare.cdist(x, y), rtol=1e-4, atol=1e-5)


def test_wrong_input_is_told():
    x = points(3, 4, dtype=torch.float32)
    with pytest.raises(ValueError, match="expected mode 'accurate' or 'fast', got 'exact'"):
        poincare.cdist(x, x, mode="exact")
    with pytest.raises(
        RuntimeError, match=r"poincare_cdist: x \[\*batch, n, dim\] and y \[\*batch, m, dim\] must have"
    ):
        poincare.cdist(x, x[:, :3], mode="fast")
    with pytest.raises(RuntimeError, match="min_alpha"):
        ops.poincare_cdist(x, x, min_alpha=-1.0, mode="fast")
