"""Rows with their time: what is proved of points, values and gradients, slice assignment, sizes that vary."""

import copy
import math

import pytest
import torch
from graphs import counts, trace
from torch.nn import functional as F

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.normalize import NORMALIZE
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier

C = 1.3


def rows(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def squares(x):
    return (x * x).sum(-1, keepdim=True)


def lifted(x, c=C):
    return torch.cat([torch.sqrt(squares(x) + 1 / c), x], -1)


def inner(u, v):
    uv = u * v
    return -uv[..., 0] + uv[..., 1:].sum(-1)


def dist(u, v, c=C):
    return torch.acosh((-c * inner(u, v)).clamp_min(1.0)) / c**0.5


def rewritten(function, *inputs, grad=False):
    before = trace(lambda _, *given: function(*given), *inputs)
    NORMALIZE.run(before, Context())
    after = copy.deepcopy(before)
    return before, after, HYPERBOLIC.run(after, Context(grad=grad))


def check(before, after, sites, *inputs, tolerance=1e-9):
    assert {(site.status, site.reason) for site in sites} == {("rewritten", "")}
    for site in sites:
        assert Verifier({}).check(before, after, site) is None
    results = []
    for graph in (before, after):
        leaves = [value.clone().requires_grad_() for value in inputs]
        value = graph(*leaves)
        weight = rows(*value.shape, seed=9, dtype=value.dtype)
        results.append([value, *torch.autograd.grad((value * weight).sum(), leaves)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def hgcn_project(x, c):
    """As the library writes into slices; a stored time is multiplied by zero there."""
    y = x.narrow(-1, 1, x.size(-1) - 1)
    mask = torch.ones_like(x)
    mask[:, 0] = 0
    vals = torch.zeros_like(x)
    vals[:, 0:1] = torch.sqrt(torch.clamp(1 / c + torch.norm(y, p=2, dim=1, keepdim=True) ** 2, min=1e-7))
    return vals + mask * x


def hgcn_expmap0(u, c=C):
    k = 1.0 / c
    x = u.narrow(-1, 1, u.size(-1) - 1).view(-1, u.size(-1) - 1)
    x_norm = torch.norm(x, p=2, dim=1, keepdim=True).clamp(min=1e-15)
    theta = (x_norm / k**0.5).clamp(-15, 15)
    res = torch.ones_like(u)
    res[:, 0:1] = k**0.5 * torch.cosh(theta)
    res[:, 1:] = k**0.5 * torch.sinh(theta) * x / x_norm
    return hgcn_project(res, c)


def test_slice_assignment():
    u = rows(6, 5)
    before, after, sites = rewritten(hgcn_expmap0, u, grad=True)
    assert "lorentz_expmap0" in [site.target for site in sites]
    check(before, after, sites, u)


def test_a_stored_time_that_is_multiplied_by_zero_stays():
    x = rows(6, 5)
    _, after, sites = rewritten(lambda x: hgcn_project(x, C), x)
    assert sites == []
    x[0, 0] = math.nan
    assert after(x)[0, 0].isnan()


@pytest.mark.parametrize("carry", ["none", "view", "choice", "pairs"])
def test_points_that_the_graph_makes(carry):
    x, y = rows(6, 4), rows(6, 4, seed=1)
    carries = {
        "none": lambda u, v: (u, v),
        "view": lambda u, v: (u.reshape(2, 3, 5), v.reshape(2, 3, 5)),
        "choice": lambda u, v: (u[2:5], v[:3]),
        "pairs": lambda u, v: (u[:, None].float(), v[None].float()),
    }
    x, y = (x.float(), y.float()) if carry == "pairs" else (x, y)

    def function(x, y):
        return dist(*carries[carry](lifted(x), lifted(y)))

    before, after, sites = rewritten(function, x, y, grad=True)
    target = "lorentz_cdist" if carry == "pairs" else "lorentz_dist"
    assert sorted(site.target for site in sites) == ["add_time", "add_time", target]
    check(before, after, sites, x, y, tolerance=1e-4 if carry == "pairs" else 1e-9)
    assert counts(after)[target] == 1


def test_stored_times_are_not_taken_for_those_of_points():
    x, y = rows(6, 5), rows(6, 5, seed=1)
    before, after, (site,) = rewritten(dist, x, y)
    assert (site.target, site.status, site.code) == ("lorentz_dist", "refused", "stored_time")
    assert (
        "'arg0_1', 'arg1_1' hold times that nothing in the graph ties to their space components"
        in site.reason
    )
    assert "project" in site.reason.cure
    assert str(after.graph) == str(before.graph)


def test_points_of_another_curvature_are_no_points():
    def function(x, y):
        return dist(lifted(x, 2.0), lifted(y, 2.0), 1.0)

    _, _, sites = rewritten(function, rows(6, 4), rows(6, 4, seed=1))
    assert [site.target for site in sites if site.status == "rewritten"] == ["add_time", "add_time"]


def test_a_block_of_layers_that_work_on_space_components():
    """Linear, ReLU and a distance to a learned point, as Hypformer and HyperCore stack them."""

    def function(x, weight, y):
        h = lifted(F.relu(F.linear(lifted(x), weight)))
        return dist(h, lifted(y))

    inputs = rows(6, 4), rows(4, 5, seed=1), rows(6, 4, seed=2)
    before, after, sites = rewritten(function, *inputs, grad=True)
    assert sorted(site.target for site in sites) == ["add_time"] * 3 + ["lorentz_dist"]
    check(before, after, sites, *inputs)


def test_pairs_in_double():
    x, y = rows(6, 4), torch.cat([rows(5, 4, seed=1), torch.zeros(1, 4, dtype=torch.float64)])
    before, after, sites = rewritten(lambda x, y: dist(lifted(x)[:, None], lifted(y)[None]), x, y)
    assert [s.status for s in sites if s.target == "lorentz_cdist"] == ["rewritten"]
    check(before, after, sites, x, y)


@pytest.mark.parametrize("dynamic", [False, True])
def test_sizes_that_vary(dynamic):
    x = rows(6, 5, dtype=torch.float32)

    def function(_, x):
        s = x.narrow(-1, 1, x.shape[-1] - 1)
        return torch.cat([torch.sqrt(squares(s) + 1 / C), s], -1)

    graph = trace(function, x, dynamic=dynamic)
    before = copy.deepcopy(graph)
    (site,) = HYPERBOLIC.run(graph, Context())
    assert (site.target, site.status) == ("lorentz_project", "rewritten")
    for other in (x, rows(3, 5, dtype=torch.float32)):
        if dynamic or other is x:
            torch.testing.assert_close(graph(other), before(other))


def test_a_row_of_one_space_component_is_none():
    _, _, sites = rewritten(
        lambda x: torch.cat([torch.sqrt(squares(x[:, 1:]) + 1), x[:, 1:]], -1), rows(6, 2)
    )
    assert sites == []


def test_rescaled_rows_train():
    """HyboNet's layer with its learned scale."""

    def function(y, scale):
        time = y.narrow(-1, 0, 1).sigmoid() * scale.exp() + 1.1
        space = y.narrow(-1, 1, y.shape[-1] - 1)
        factor = (time * time - 1) / squares(space).clamp_min(1e-8)
        return torch.cat([time, space * factor.sqrt()], dim=-1)

    inputs = rows(6, 5), torch.tensor(1.7, dtype=torch.float64)
    before, after, sites = rewritten(function, *inputs, grad=True)
    assert [site.target for site in sites] == ["lorentz_rescale"]
    check(before, after, sites, *inputs)


def test_a_point_with_its_time_turned_is_a_step_of_a_product():
    """As Lorentz products of all pairs are written: no look-alike of a point."""

    def products(_, x, y):
        turned = x.clone()
        turned.narrow(-1, 0, 1).mul_(-1)
        return turned @ y.mT

    def lifted(x):
        return torch.cat([torch.sqrt(1 + x.pow(2).sum(-1, keepdim=True)), x], -1)

    given = [torch.randn(n, 4) for n in (3, 5)]
    graph = trace(lambda _, x, y: products(_, lifted(x), lifted(y)), *given)
    expected = graph(*given)
    sites = HYPERBOLIC.run(graph, Context())
    assert [(site.target, site.status) for site in sites] == [("add_time", "rewritten")] * 2
    torch.testing.assert_close(graph(*given), expected)
