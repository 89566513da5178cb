"""Shapes: batches of any depth, none and empty ones, broadcasting, strides, vmap, autocast."""

import pytest
import torch
from operator_cases import (
    HYPERBOLIC,
    LOW_RANK,
    NAMES,
    ROW_MAPS,
    arguments,
    declared,
    has_gradient,
    overload,
    points,
    without_bias,
)

from stonefx import ops


def agree(name, *args):
    got = overload(f"{name}_forward")(*args)
    torch.testing.assert_close(got, declared(name).reference(*args), rtol=1e-12, atol=1e-14)
    assert got.is_contiguous()
    return got


@pytest.mark.parametrize("batch", [(), (1,), (70,), (2, 3, 4), (0,), (3, 0, 2), (33000,)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_batches(name, batch):
    args = list(arguments(name, batch=batch, dim=5, c=torch.tensor(0.5, dtype=torch.float64)))
    got = agree(name, *args)
    assert got.shape == (*batch, 6 if name in LOW_RANK else 5)


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_rows_without_entries(name):
    x = torch.empty(3, 0, dtype=torch.float64)
    args = (x, x, torch.tensor(1.0)) if name == "mobius_add" else (x, torch.tensor(1.0))
    assert overload(f"{name}_forward")(*args).shape == (3, 0)
    assert overload(f"{name}_backward")(x, *args)[-1].shape == (3, 1)


@pytest.mark.parametrize("shape", [(), (1,), (4, 1), (3, 4, 1), (3, 1, 1), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("name", HYPERBOLIC)
def test_curvature_shapes(name, shape):
    c = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    agree(name, *arguments(name, batch=(3, 4), c=c))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", HYPERBOLIC)
def test_curvature_of_any_floating_dtype(name, dtype):
    c = torch.tensor([[0.5], [0.25], [1.0], [0.75], [0.125]])
    args = arguments(name, torch.float32, c=c)
    assert torch.equal(overload(name)(*args[:-1], c.to(dtype)), overload(name)(*args))


BROADCASTS = [
    ((4, 6), (6,)),
    ((6,), (4, 6)),
    ((4, 1, 6), (1, 5, 6)),
    ((2, 1, 3, 1, 6), (1, 4, 1, 5, 6)),
    ((2, 3, 6), (3, 6)),
    ((1, 6), (1, 6)),
    ((2, 1, 1, 6), (2, 3, 4, 6)),
]


@pytest.mark.parametrize(("left", "right"), BROADCASTS, ids=str)
def test_broadcast_sums(left, right):
    x, y = points(*left), points(*right, seed=3)
    got = agree("mobius_add", x, y, torch.tensor(0.8, dtype=torch.float64))
    grad = torch.randn_like(got)
    c = torch.tensor(0.8, dtype=torch.float64)
    for one, other in zip(
        overload("mobius_add_backward")(grad, x, y, c),
        declared("mobius_add").backward_reference(grad, x, y, c),
        strict=True,
    ):
        torch.testing.assert_close(one, other.expand(one.shape), rtol=1e-12, atol=1e-13)


def test_too_many_alternating_groups_are_refused():
    x, y = points(*[2, 1] * 4, 3), points(*[1, 2] * 4, 3)
    with pytest.raises(RuntimeError, match=r"more than 6 alternating groups.*\.expand"):
        overload("mobius_add_forward")(x, y, torch.tensor(1.0))


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_strides_do_not_matter(name):
    args = arguments(name, batch=(6,), dim=8)
    transposed = tuple(a.t().contiguous().t() for a in args)
    sliced = tuple(torch.stack([a, a], -1)[..., 0] for a in args)
    expected = overload(name)(*args)
    grad = torch.randn(1, 1, dtype=torch.float64).expand_as(expected)
    gradients = overload(f"{name}_backward")(grad.contiguous(), *args)
    for other in (transposed, sliced):
        assert torch.equal(overload(name)(*other), expected)
        for a, b in zip(overload(f"{name}_backward")(grad, *other), gradients, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("in_dims", [(0, None), (1, None), (0, 0), (None, 0)], ids=str)
@pytest.mark.parametrize("name", ROW_MAPS)
def test_vmap_of_row_maps(name, in_dims):
    x = points(3, 3, 3) if in_dims[0] is not None else points(3, 3)
    c = torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64) if in_dims[1] == 0 else torch.tensor(0.6)
    got = torch.vmap(overload(name), in_dims)(x, c)
    torch.testing.assert_close(
        got, torch.vmap(declared(name).reference, in_dims)(x, c), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("in_dims", [(0, None, None), (None, 1, None), (None, None, 0), (0, 1, 0)], ids=str)
def test_vmap_of_sums(in_dims):
    x = points(4, 5, 3) if in_dims[0] is not None else points(5, 3)
    y = points(5, 4, 3, seed=1) if in_dims[1] is not None else points(5, 3, seed=1)
    c = torch.linspace(0.1, 1, 4, dtype=torch.float64) if in_dims[2] == 0 else torch.tensor(0.6)
    got = torch.vmap(overload("mobius_add"), in_dims)(x, y, c)
    expected = torch.vmap(declared("mobius_add").reference, in_dims)(x, y, c)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("in_dims", [(0, None, None, None), (1, 0, None, 0), (None, 0, 0, None)], ids=str)
def test_vmap_of_low_rank_linear(in_dims):
    shapes = ((5, 7), (3, 7), (6, 3), (6,))
    args = []
    for shape, dim in zip(shapes, in_dims, strict=True):
        tensor = torch.randn(4, *shape, dtype=torch.float64)
        args.append(tensor[0] if dim is None else tensor.movedim(0, dim))
    got = torch.vmap(overload("low_rank_linear"), in_dims)(*args)
    expected = torch.vmap(declared("low_rank_linear").reference, in_dims)(*args)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mapped", ["gradient", "rows", "last"])
@pytest.mark.parametrize("name", NAMES)
def test_vmap_of_backward(name, mapped):
    args = without_bias(name, arguments(name, batch=(4,), c=torch.tensor(0.6, dtype=torch.float64)))
    grad = torch.randn_like(overload(name)(*args))
    operands = [grad, *args]
    index = {"gradient": 0, "rows": 1, "last": has_gradient(operands)[-1]}[mapped]
    factors = torch.linspace(0.5, 1, 3, dtype=torch.float64).reshape(-1, *[1] * operands[index].dim())
    operands[index] = operands[index] * factors
    in_dims = tuple(0 if i == index else None for i in range(len(operands)))
    got = torch.vmap(overload(f"{name}_backward"), in_dims)(*operands)
    expected = torch.vmap(declared(name).backward_reference, in_dims)(*operands)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", LOW_RANK)
def test_linear_maps_follow_autocast(name):
    x, *others = arguments(name, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = getattr(ops, name)(x, *others)
        with_grad = getattr(ops, name)(x.requires_grad_(), *others)
        expected = declared(name).reference(x, *others)
    assert got.dtype == with_grad.dtype == torch.bfloat16 and torch.equal(got, with_grad)
    torch.testing.assert_close(got.float(), expected.float(), rtol=4 * 2**-8, atol=4 * 2**-8)
    with_grad.sum().backward()
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_hyperbolic_maps_keep_their_dtype_under_autocast(name):
    args = arguments(name, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(overload(name)(*args), overload(f"{name}_forward")(*args))


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_threads_divide_the_rows(name):
    args = arguments(name, torch.float32, batch=(3001,), dim=64, c=torch.rand(3001, 1) + 0.1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = overload(name)(*args)
        torch.set_num_threads(2)
        assert torch.equal(overload(name)(*args), alone)
    finally:
        torch.set_num_threads(threads)
