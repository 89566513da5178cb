"""The operators inside torch.compile: one graph, the node kept, values and gradients those of eager."""

import pytest
import torch
from operator_cases import NAMES, arguments, requiring

from stonefx import ops


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def around(name):
    function = getattr(ops, name)
    return lambda *args: function(torch.sin(args[0]), *args[1:]).cos()


@pytest.mark.parametrize(
    ("name", "backend"),
    [(n, "aot_eager") for n in NAMES] + [("expmap0", "inductor"), ("mobius_add", "inductor")],
)
def test_inference_and_training_in_one_graph(name, backend):
    args = arguments(name, torch.float32)
    function = around(name)
    compiled = torch.compile(function, backend=backend, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*args), function(*args))
    eager, traced = requiring(args), requiring(args)
    function(*eager).sum().backward()
    compiled(*traced).sum().backward()
    for one, other in zip(traced, eager, strict=True):
        if not other.requires_grad:
            continue
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("name", ["expmap0", "mobius_add"])
def test_batches_that_vary_compile_once(name):
    count = 0

    def backend(gm, _):
        nonlocal count
        count += 1
        return gm.forward

    compiled = torch.compile(around(name), backend=backend, fullgraph=True, dynamic=True)
    c = torch.tensor(0.5)
    for batch in (3, 5, 9):
        args = arguments(name, torch.float32, batch=(batch,), c=c)
        torch.testing.assert_close(compiled(*args), around(name)(*args))
    assert count == 1


def test_a_number_as_curvature_compiles():
    compiled = torch.compile(
        lambda x: ops.expmap0(x, 0.5, min_norm=1e-15), fullgraph=True, backend="aot_eager"
    )
    x = torch.randn(4, 3)
    torch.testing.assert_close(compiled(x), ops.expmap0(x, 0.5))


def test_inductor_hands_over_contiguous_rows():
    x = torch.randn(6, 4)
    compiled = torch.compile(lambda t: ops.expmap0((t * 2).t(), torch.tensor(0.5)), fullgraph=True)
    torch.testing.assert_close(compiled(x), ops.expmap0((x * 2).t(), 0.5))
