"""Tensors that are filled in parts become one concatenation, with equal values and gradients; all others stay."""

import copy

import pytest
import torch
from graphs import trace

from stonefx.passes.normalize import NORMALIZE
from stonefx.passes.site import Context

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def filled(make, *writes):
    def function(x, y):
        out = make(x)
        for write in writes:
            write(out, x, y)
        return out * x

    return function


def whole(out, x, y):
    out[:, 1:] = y


def first(out, x, y):
    out[:, 0:1] = x[:, :1] + 1


ASSEMBLED = {
    "ones, both parts": filled(torch.ones_like, first, whole),
    "zeros, the second part": filled(torch.zeros_like, whole),
    "empty, both parts, the second first": filled(torch.empty_like, whole, first),
    "a column": filled(torch.ones_like, lambda out, x, y: out.select(1, 0).fill_(3)),
    "a broadcast row": filled(torch.zeros_like, lambda out, x, y: out[:, 1:].copy_(y[0])),
    "a changed copy": filled(torch.clone, lambda out, x, y: out.narrow(-1, 0, 1).mul_(-1)),
    "three parts": filled(
        torch.zeros_like,
        first,
        lambda out, x, y: out[:, 2:4].copy_(y[:, :2]),
        lambda out, x, y: out[:, 4].neg_(),
    ),
    "rows": filled(torch.ones_like, lambda out, x, y: out[2:].copy_(x[:4])),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ASSEMBLED)
def test_assembled(name, dynamic):
    before = trace(lambda _, x, y: ASSEMBLED[name](x, y), X, Y, dynamic=dynamic)
    after = copy.deepcopy(before)
    NORMALIZE.run(after, Context())
    assert not any(
        str(node.target).split(".")[1].endswith("_")
        for node in after.graph.nodes
        if node.op == "call_function"
    )
    results = []
    for graph in (before, after):
        leaves = [value.clone().requires_grad_() for value in (X, Y)]
        value = graph(*leaves)
        grads = torch.autograd.grad(value.square().sum(), leaves, allow_unused=True)
        results.append([value, *grads])
    for one, other in zip(*results, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


def overlapping(x, y):
    out = torch.zeros_like(x)
    out[:, :3] = y[:, :3]
    out[:, 2:] = 1
    return out * 2


def read_between(x, y):
    out = torch.zeros_like(x)
    out[:, 1:] = y
    half = out * 2
    out[:, :1] = x[:, :1]
    return out + half


def changed_source(x, y):
    y, out = y.clone(), torch.zeros_like(x)
    out[:, 1:] = y
    y.mul_(2)
    out[:, :1] = x[:, :1]
    return out + y[:, :1]


def a_view_that_is_read(x, y):
    out = torch.zeros_like(x)
    part = out[:, 1:]
    part.copy_(y)
    return out * 2, part + 1


def both_dimensions(x, y):
    out = torch.zeros_like(x)
    out[:, 1:] = y
    out[0] = 1
    return out * 2


def partly_unfilled(x, y):
    out = torch.empty_like(x)
    out[:, 1:] = y
    return out[:, 1:] * 2


def another_dtype(x, y):
    out = torch.zeros_like(x)
    out[:, 1:] = y.double()
    return out * 2


OTHERS = (
    overlapping,
    read_between,
    changed_source,
    a_view_that_is_read,
    both_dimensions,
    partly_unfilled,
    another_dtype,
)


@pytest.mark.parametrize("function", OTHERS, ids=lambda function: function.__name__)
def test_others_stay(function):
    before = trace(lambda _, x, y: function(x, y), X, Y)
    after = copy.deepcopy(before)
    NORMALIZE.run(after, Context())
    assert any(str(node.target).startswith("aten.copy_") for node in after.graph.nodes)
    one, other = before(X, Y), after(X, Y)
    for left, right in zip(*((r,) if isinstance(r, torch.Tensor) else r for r in (one, other)), strict=True):
        assert torch.equal(left, right)
