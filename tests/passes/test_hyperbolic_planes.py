"""Class scores in graphs: one operator with the original's gradients, and nothing of pairs and coordinates is left."""

import pytest
import torch
from graphs import trace

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.site import Context


def mobius_add(x, y, c=1.0):
    xx, yy = (v.square().sum(-1, keepdim=True) for v in (x, y))
    xy = (x * y).sum(-1, keepdim=True)
    return ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / (1 + 2 * c * xy + c**2 * xx * yy + 1e-5)


def scores(x, p, a, c=1.0):
    w = mobius_add(-p, x.unsqueeze(-2), c)
    length = a.norm(dim=-1)
    argument = 2 * c**0.5 * (w * a).sum(-1) / (length * (1 - c * w.square().sum(-1)))
    return 2 / (1 - c * p.square().sum(-1)) * length / c**0.5 * torch.asinh(argument)


def single_planes(x, p, a):
    """A plane for each point: no pairs."""
    w = mobius_add(-p, x)
    return torch.asinh(2 * (w * a).sum(-1) / (a.norm(dim=-1) * (1 - w.square().sum(-1))))


def plane_taken_from(x, p, a):
    """The sum in the other order: the distance to another plane."""
    w = mobius_add(-x.unsqueeze(-2), p)
    return torch.asinh(2 * (w * a).sum(-1) / (a.norm(dim=-1) * (1 - w.square().sum(-1))))


def halved(x, p, a):
    w = mobius_add(-p, x.unsqueeze(-2))
    return torch.asinh((w * a).sum(-1) / (a.norm(dim=-1) * (1 - w.square().sum(-1))))


def rows(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return 0.7 * x / x.norm(dim=-1, keepdim=True)


def made(function, *given, **options):
    graph = trace(lambda _, *tensors: function(*tensors), *given, **options)
    return graph, HYPERBOLIC.run(graph, Context())


def targets(sites):
    return sorted((site.target, site.status) for site in sites if site.target != "conformal_factor")


@pytest.mark.parametrize("batch", [(6,), (2, 3)], ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
def test_gradients_are_those_of_the_original(batch, dynamic):
    given = [rows(*batch, 9, seed=0), rows(4, 9, seed=1), rows(4, 9, seed=2)]
    graph, sites = made(scores, *given, dynamic=dynamic)
    assert targets(sites) == [("poincare_mlr", "rewritten")]
    assert "poincare_planes" in str(graph.graph)
    mine, theirs = ([each.clone().requires_grad_() for each in given] for _ in range(2))
    value, expected = graph(*mine), scores(*theirs)
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-11)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    value.backward(grad)
    expected.backward(grad)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-9)


def test_nothing_of_all_pairs_and_coordinates_is_left():
    graph, _ = made(scores, rows(6, 9, seed=0), rows(4, 9, seed=1), rows(4, 9, seed=2))
    sizes = [
        node.meta["val"].numel()
        for node in graph.graph.nodes
        if isinstance(node.meta.get("val"), torch.Tensor)
    ]
    assert max(sizes) == 6 * 9


@pytest.mark.parametrize("function", [single_planes, plane_taken_from, halved], ids=lambda f: f.__name__)
def test_what_is_no_score_keeps_its_sum(function):
    given = [rows(4, 9, seed=0), rows(4, 9, seed=1), rows(4, 9, seed=2)]
    graph, sites = made(function, *given)
    assert ("poincare_mlr", "rewritten") not in targets(sites)
    assert "_planes" not in str(graph.graph)
    torch.testing.assert_close(graph(*given), function(*given), rtol=1e-11, atol=1e-11)


def test_log_of_a_signed_number_is_no_arcosh():
    """`log(z + sqrt(1 + z^2))` with a root in z, which is negative: a distance has no sign, and this has."""

    def signed(x, y, c):
        z = c**0.5 * (x * y).sum(-1)
        return torch.log(z + torch.sqrt(1 + z**2))

    given = [rows(6, 9, seed=0), rows(6, 9, seed=1), torch.tensor(0.5, dtype=torch.float64)]
    graph, _ = made(signed, *given)
    torch.testing.assert_close(graph(*given), signed(*given))
