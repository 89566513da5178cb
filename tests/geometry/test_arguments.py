"""What the functions of the geometry say to operands that are no tensors, no numbers, or of the wrong shape."""

import numpy
import pytest
import torch

from stonefx.geometry import klein, lorentz, poincare, sphere

X = torch.tensor([[0.1, 0.2], [0.3, -0.4], [0.0, 0.5]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda bad: poincare.dist0(bad), "dist0: expected x to be a tensor"),
        (lambda bad: poincare.dist(bad, X), "dist: expected x to be a tensor"),
        (lambda bad: poincare.dist(X, bad), "dist: expected y to be a tensor"),
        (lambda bad: poincare.parallel_transport(X, X, bad), "parallel_transport: expected v to be a tensor"),
        (lambda bad: poincare.mobius_scalar_mul(0.5, bad), "mobius_scalar_mul: expected x to be a tensor"),
        (lambda bad: poincare.mobius_matvec(bad, X), "mobius_matvec: expected weight to be a tensor"),
        (lambda bad: poincare.mobius_matvec(torch.eye(2), bad), "mobius_matvec: expected x to be a tensor"),
        (lambda bad: poincare.cdist(X, bad), "cdist: expected y to be a tensor"),
        (lambda bad: sphere.cdist(bad, X), "cdist: expected x to be a tensor"),
        (lambda bad: lorentz.project(bad), "project: expected x to be a tensor"),
        (lambda bad: lorentz.inner(X, bad), "inner: expected y to be a tensor"),
        (lambda bad: klein.to_poincare(bad), "to_poincare: expected x to be a tensor"),
    ],
)
def test_points_that_are_no_tensors(call, message):
    with pytest.raises(
        TypeError, match=f"{message}, got list; convert it, for instance with torch.as_tensor"
    ):
        call(X.tolist())
    with pytest.raises(TypeError, match=f"{message}, got ndarray; convert it"):
        call(X.numpy())
    with pytest.raises(TypeError, match=f"{message}, got NoneType; give the tensor"):
        call(None)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda bad: poincare.dist0(X, bad), "dist0: expected c"),
        (lambda bad: poincare.cdist(X, X, bad), "cdist: expected c"),
        (lambda bad: poincare.mobius_matvec(torch.eye(2), X, bad), "mobius_matvec: expected c"),
        (lambda bad: sphere.cdist(X, X, bad), "cdist: expected c"),
        (lambda bad: lorentz.dist(X, X, bad), "dist: expected c"),
        (lambda bad: klein.geodesic(X, X, bad), "geodesic: expected t"),
        (lambda bad: poincare.mobius_scalar_mul(bad, X), "mobius_scalar_mul: expected r"),
    ],
)
def test_numbers_that_are_none(call, name):
    for bad, shown in (
        ("1", r"'1' \(str\)"),
        (None, "NoneType"),
        ([1.0], r"\[1.0\] \(list\)"),
        (numpy.array(1.0), r"array\(1.\) \(ndarray\)"),
    ):
        with pytest.raises(
            TypeError,
            match=rf"{name} to be a number or a tensor, got {shown}; give a float, or torch.as_tensor",
        ):
            call(bad)


def test_numbers_of_other_kinds():
    for one in (1, True, numpy.float32(1), numpy.float64(1), numpy.int64(1)):
        assert torch.equal(poincare.dist0(X, one), poincare.dist0(X))
        assert torch.equal(poincare.cdist(X, X, one), poincare.cdist(X, X))
        assert torch.equal(sphere.cdist(X, X, one), sphere.cdist(X, X))


def test_curvatures_of_distance_matrices_of_the_sphere():
    batches = torch.stack([X, X.flip(0)])
    whole = sphere.cdist(batches, X[:2], torch.tensor([0.5, 2.0]).reshape(2, 1, 1))
    for i, c in enumerate((0.5, 2.0)):
        torch.testing.assert_close(whole[i], sphere.cdist(batches[i], X[:2], c))
    for fits in (torch.ones(1), torch.ones(1, 1), torch.ones(1, 1, 1)):
        assert sphere.cdist(batches, X[:2], fits).shape == (2, 3, 2)
    for wrong in ([2], [3], [3, 1], [2, 1], [2, 3, 1]):
        shown = str(wrong).replace("[", r"\[").replace("]", r"\]")
        with pytest.raises(
            RuntimeError,
            match=rf"cdist: c must be 0-dim or broadcast to \[\*batch, 1, 1\], got {shown} with x \[2, 3, 2\] and y",
        ):
            sphere.cdist(batches, X[:2], torch.ones(wrong))
    with pytest.raises(RuntimeError, match=r"c must be 0-dim or broadcast to"):
        sphere.cdist(X, X, torch.ones(2, 1, 1))


def test_distance_matrices_of_the_sphere_need_two_dimensions():
    with pytest.raises(
        RuntimeError, match=r"cdist: x must be \[\*batch, points, dim\] .* got \[2\]; use x.unsq"
    ):
        sphere.cdist(X[0], X)
    with pytest.raises(
        RuntimeError, match=r"cdist: y must be \[\*batch, points, dim\] .* got \[2\]; use y.unsq"
    ):
        sphere.cdist(X, X[0])


def test_margins_that_are_none():
    for project in (poincare.project, klein.project):
        for eps in (1.0, 2.0, float("inf")):
            with pytest.raises(
                RuntimeError, match=rf"project: eps must be in \[0, 1\), got {eps}; rows are shortened"
            ):
                project(X, eps=eps)
        assert torch.equal(project(X, eps=0.0), X)
        assert project(10 * X, eps=0.999).norm(dim=-1).max() < 0.00101


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_products_with_a_matrix_under_autocast(dtype):
    weight = torch.tensor([[1.0, 0.5], [-0.2, 0.7], [0.3, 0.1]], requires_grad=True)
    expected = poincare.mobius_matvec(weight, X, 0.7)
    with torch.autocast("cpu", dtype):
        result = poincare.mobius_matvec(weight, X, 0.7)
        short = poincare.mobius_matvec(weight, X.to(dtype), 0.7)
        assert poincare.mobius_matvec(weight.double(), X.double()).dtype == torch.float64
    assert torch.equal(result, expected)
    assert short.dtype == torch.float32
    assert torch.equal(short, poincare.mobius_matvec(weight, X.to(dtype).float(), 0.7))
    (gradient,) = torch.autograd.grad(result.sum(), weight)
    assert torch.equal(gradient, torch.autograd.grad(expected.sum(), weight)[0])


def test_products_with_a_matrix_on_the_meta_device():
    assert poincare.mobius_matvec(torch.empty(3, 2, device="meta"), X.to("meta")).shape == (3, 3)


def test_compiled_functions_take_what_others_take():
    for function in (
        lambda x: poincare.mobius_matvec(torch.eye(2), x),
        lambda x: poincare.cdist(x, x),
        lambda x: sphere.cdist(x, x),
        lambda x: poincare.gyromidpoint(x),
        lambda x: poincare.dist0(x, x.shape[0]),
    ):
        compiled = torch.compile(function, fullgraph=True, backend="eager", dynamic=True)
        torch.testing.assert_close(compiled(X), function(X))


def test_largest_distances_are_those_of_the_docstrings():
    for dtype, apart, factor, vector in (
        (torch.float32, 34.7, 1.7e7, 8.32),
        (torch.float64, 74.9, 9.0e15, 18.4),
        (torch.bfloat16, 12.5, 256, 2.77),
        (torch.float16, 16.6, 2048, 3.81),
    ):
        one = torch.tensor([1.0, 0.0], dtype=dtype)
        assert float(poincare.dist(one, -one)) == pytest.approx(apart, rel=4e-3)
        assert float(poincare.dist0(one)) == pytest.approx(apart / 2, rel=4e-3)
        assert float(poincare.conformal_factor(one)) == pytest.approx(factor, rel=2e-2)
        assert float(poincare.logmap0(one).norm()) == pytest.approx(vector, rel=4e-3)
        assert float(poincare.cdist(one[None], -one[None])) == pytest.approx(74.9, rel=4e-3)
