"""torch.func through the functions: grad, vjp, jvp, vmap and their compositions, against plain autograd."""

import pytest
import torch

from stonefx.geometry import klein, lorentz, poincare, sphere

X = torch.tensor([[0.1, 0.2, -0.3], [0.4, -0.1, 0.2]], dtype=torch.float64)
Y = torch.tensor([[-0.2, 0.3, 0.1], [0.0, 0.5, 0.3]], dtype=torch.float64)
FUNCTIONS = {
    "poincare.expmap0": lambda x, y: poincare.expmap0(x, 0.7),
    "poincare.mobius_add": lambda x, y: poincare.mobius_add(x, y, 0.7),
    "poincare.dist": lambda x, y: poincare.dist(x, y, 0.7),
    "poincare.logmap": lambda x, y: poincare.logmap(x, y, 0.7),
    "lorentz.dist": lambda x, y: lorentz.dist(x, y, 0.7),
    "klein.geodesic": lambda x, y: klein.geodesic(x, y, 0.3, 0.7),
    "sphere.expmap": lambda x, y: sphere.expmap(x, y, 0.7),
    "poincare.gyromidpoint": lambda x, y: poincare.gyromidpoint(torch.stack([x, y], -2), c=0.7),
}
EACH = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def by_autograd(function, x, y):
    return torch.autograd.functional.jacobian(lambda a: function(a, y), x)


@EACH
def test_reverse_and_forward_jacobians(function):
    for x, y in zip(X, Y, strict=True):
        expected = by_autograd(function, x, y)
        torch.testing.assert_close(torch.func.jacrev(function)(x, y), expected)
        torch.testing.assert_close(torch.func.jacfwd(function)(x, y), expected, rtol=1e-10, atol=1e-12)


@EACH
def test_gradients_of_each_sample(function):
    def loss(x, y):
        return function(x, y).square().sum()

    got = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(X, Y)
    leaves = [t.clone().requires_grad_() for t in (X, Y)]
    loss(*leaves).backward()
    for one, leaf in zip(got, leaves, strict=True):
        expected = torch.zeros_like(one) if leaf.grad is None else leaf.grad
        torch.testing.assert_close(one, expected, rtol=1e-10, atol=1e-12)


@EACH
def test_second_derivatives(function):
    def loss(x):
        return function(x, Y[0]).square().sum()

    expected = torch.autograd.functional.hessian(loss, X[0])
    for second in (torch.func.jacrev(torch.func.jacrev(loss)), torch.func.hessian(loss)):
        torch.testing.assert_close(second(X[0]), expected, rtol=1e-10, atol=1e-12)


def test_numbers_and_curvatures_of_each_row():
    c = torch.tensor([[0.3], [1.2]], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([[0.25], [0.5]], dtype=torch.float64, requires_grad=True)
    together = poincare.geodesic(X, Y, t, c)
    for i in range(2):
        torch.testing.assert_close(
            together[i], poincare.geodesic(X[i], Y[i], t[i].item(), c[i].item()), rtol=1e-13, atol=0
        )
    together.sum().backward()
    assert (c.grad != 0).all() and (t.grad != 0).all()


@pytest.mark.parametrize("c", [0.0, -1.0, float("nan")])
def test_curvatures_that_are_no_curvature(c):
    for function in (poincare.dist0, lorentz.logmap0, klein.to_poincare, sphere.project):
        with pytest.raises(ValueError, match="the curvature c must be positive and finite, got"):
            function(X, c)


def test_messages():
    with pytest.raises(ValueError, match="geodesic: t must be finite, got inf"):
        poincare.geodesic(X, Y, float("inf"))
    with pytest.raises(
        RuntimeError, match=r"poincare_geodesic: t must be 0-dim or broadcast to \[\*batch, 1\]"
    ):
        poincare.geodesic(X, Y, torch.zeros(2, dtype=torch.float64))
    with pytest.raises(
        RuntimeError, match=r"stone::logmap: x and y must have one dtype, got float64 and float32"
    ):
        poincare.logmap(X, Y.float())
    with pytest.raises(RuntimeError, match=r"poincare_transport: x and v must have one last dimension"):
        poincare.parallel_transport(X, Y, Y[:, :2])
    with pytest.raises(RuntimeError, match=r"lorentz_dist: x must have a time component .* got \[2, 0\]"):
        lorentz.dist(X[:, :0], X[:, :0])
    with pytest.raises(RuntimeError, match=r"stone::project: eps must be at least 0, got -1; leave it out"):
        poincare.project(X, eps=-1.0)
    with pytest.raises(ValueError, match=r"centroid: points must be \[\*batch, n, dim\], got \[3\]; stack"):
        lorentz.centroid(X[0])


def test_inference_tensors_do_not_come_back():
    """A curvature that was first used in inference mode can be saved for a backward later."""
    with torch.inference_mode():
        poincare.dist0(X, 0.123456)
    x = X.clone().requires_grad_()
    poincare.dist0(x, 0.123456).sum().backward()
    assert x.grad.isfinite().all()
