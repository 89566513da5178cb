"""Results of 32 MiB and more, which are written piece by piece: what smaller calls on parts of their rows give."""

import pytest
import torch

from stonefx import ops
from stonefx.geometry import lorentz, poincare

ROWS, DIM = 4301, 1024  # 33.6 MiB in float64; no whole number of pieces, blocks or chunks
PARTS = [1500, 1, 1299, 1501]
LARGE = 32 << 20


def generator():
    return torch.Generator().manual_seed(0)


WEIGHT = torch.randn(10, DIM // 2, 2, dtype=torch.float64, generator=generator())
MATRIX = 0.03 * torch.randn(DIM, DIM, dtype=torch.float64, generator=generator())

FUNCTIONS = {
    "expmap0": poincare.expmap0,
    "mobius_add": lambda x, y: poincare.mobius_add(x, y),
    "parallel_transport": lambda x, y: poincare.parallel_transport(x, y, x - y),
    "dist": lambda x, y: poincare.dist(x, y),
    "lorentz.expmap0": lorentz.expmap0,
    "add_time": ops.add_time,
    "butterfly": lambda x: ops.butterfly(x, WEIGHT),
    "hyper_butterfly": lambda x: ops.hyper_butterfly(x, WEIGHT),
    "poincare_linear": lambda x: ops.poincare_linear(x, MATRIX),
}


def run(function, *operands):
    """The result, and the gradients of the operands."""
    operands = [operand.detach().requires_grad_() for operand in operands]
    result = function(*operands)
    upstream = torch.linspace(-1, 1, result[0].numel(), dtype=result.dtype).reshape(result.shape[1:])
    return result.detach(), *torch.autograd.grad(result, operands, upstream.expand_as(result))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_are_those_of_smaller_calls(name):
    function = FUNCTIONS[name]
    count = 2 if name in {"mobius_add", "parallel_transport", "dist"} else 1
    scale = 0.5 / DIM**0.5
    operands = [
        scale * torch.randn(ROWS, DIM, dtype=torch.float64, generator=generator().manual_seed(i))
        for i in range(count)
    ]
    whole = run(function, *operands)
    assert any(result.nbytes >= LARGE for result in whole)
    parts = [
        run(function, *rows) for rows in zip(*(operand.split(PARTS) for operand in operands), strict=True)
    ]
    # a matrix product of fewer rows may add its terms up in another order, to a rounding of their sizes
    terms = DIM * torch.finfo(torch.float64).eps if name == "poincare_linear" else 0.0
    for got, expected in zip(whole, map(torch.cat, zip(*parts, strict=True)), strict=True):
        torch.testing.assert_close(
            got, expected, rtol=1e-13, atol=max(1e-16, terms * expected.abs().max().item())
        )


def test_distances_are_those_of_smaller_calls():
    x, y = (0.05 * torch.randn(2050, 3, generator=generator().manual_seed(i)) for i in range(2))
    points = x.expand(2, -1, -1)
    whole = ops.poincare_cdist(points, y)
    assert whole.nbytes >= LARGE
    parts = [ops.poincare_cdist(rows, y) for rows in points.split(500, dim=1)]
    assert torch.equal(whole, torch.cat(parts, dim=1))
