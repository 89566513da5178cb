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


def dot(u, v):
    return -u[..., :1] * v[..., :1] + (u[..., 1:] * v[..., 1:]).sum(-1, keepdim=True)


def tangent_at(p, v, c=C):
    return v + c * dot(p, v) * p


def exponential(p, v, c=C):
    n = dot(v, v).clamp_min(1e-15).sqrt() * c**0.5
    return torch.cosh(n) * p + torch.sinh(n) / n * v


def logarithm(p, q, c=C):
    z = -c * dot(p, q)
    w = q - z * p
    return torch.acosh(z.clamp_min(1.0)) / c**0.5 * w / dot(w, w).clamp_min(1e-8).sqrt()


def apart(*shape, seed=0):
    """Points further from each other than arcosh loses digits."""
    return rows(*shape, seed=seed) + 1.0


def projected(p, c=C):
    return torch.cat([torch.sqrt(squares(p[..., 1:]) + 1 / c), p[..., 1:]], -1)


AT_A_POINT = {
    "a projected vector": (
        lambda x, y, v: (lambda p: exponential(p, tangent_at(p, v)))(lifted(x)),
        {"add_time": 1, "lorentz_expmap": 1},
    ),
    "its negative": (
        lambda x, y, v: (lambda p: exponential(p, -tangent_at(p, v)))(lifted(x)),
        {"add_time": 1, "lorentz_expmap": 1},
    ),
    "a part of the way": (
        lambda x, y, v: (lambda p: exponential(p, logarithm(p, lifted(y)) * 0.3))(lifted(x)),
        {"add_time": 2, "lorentz_logmap": 1, "lorentz_dist": 1, "lorentz_expmap": 1},
    ),
    "projected again": (
        lambda x, y, v: (lambda p: projected(exponential(p, tangent_at(p, v))))(lifted(x)),
        {"add_time": 1, "lorentz_expmap": 1},
    ),
    "the logarithm": (
        lambda x, y, v: logarithm(lifted(x), lifted(y)),
        {"add_time": 2, "lorentz_logmap": 1, "lorentz_dist": 1},
    ),
    "twice the logarithm": (
        lambda x, y, v: 2 * logarithm(lifted(x), lifted(y)),
        {"add_time": 2, "lorentz_logmap": 1, "lorentz_dist": 1},
    ),
}


@pytest.mark.parametrize("name", AT_A_POINT)
def test_maps_at_a_point_that_the_graph_makes(name):
    function, expected = AT_A_POINT[name]
    inputs = rows(6, 4), apart(6, 4, seed=1), rows(6, 5, seed=2)
    before, after, sites = rewritten(function, *inputs, grad=True)
    for site in sites:
        if site.status == "rewritten":
            assert Verifier({}).check(before, after, site) is None, site
    ours = {k: v for k, v in counts(after).items() if hasattr(torch.ops.stone, k)}
    assert {k: v for k, v in ours.items() if k != "add_time"} == {
        k: v for k, v in expected.items() if k != "add_time"
    }, [(s.target, s.status, s.reason) for s in sites]
    results = []
    for graph in (before, after):
        leaves = [value.clone().requires_grad_() for value in inputs]
        value = graph(*leaves)
        weight = rows(*value.shape, seed=9)
        results.append(
            [
                value,
                *torch.autograd.grad(
                    (value * weight).sum(), leaves, materialize_grads=True, allow_unused=True
                ),
            ]
        )
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


NOT_PROVED = {
    "a stored point": lambda x, p, v: exponential(p, tangent_at(p, v)),
    "a vector that is tangent nowhere": lambda x, p, v: exponential(lifted(x), v),
    "a vector that is tangent elsewhere": lambda x, p, v: exponential(
        lifted(x), tangent_at(lifted(x + 1), v)
    ),
    "a vector that is tangent by another curvature": lambda x, p, v: exponential(
        lifted(x), tangent_at(lifted(x), v, 1.1)
    ),
    "a vector that is turned": lambda x, p, v: exponential(lifted(x), v - C * dot(lifted(x), v) * lifted(x)),
    "another curvature of the map": lambda x, p, v: exponential(lifted(x), tangent_at(lifted(x), v), 1.1),
    "two stored points": lambda x, p, v: logarithm(p, v),
    "one stored point": lambda x, p, v: logarithm(lifted(x), p),
    "points of two curvatures": lambda x, p, v: logarithm(lifted(x), lifted(x + 1, 1.1)),
}


@pytest.mark.parametrize("name", NOT_PROVED)
def test_maps_at_a_point_that_is_not_proved_stay(name):
    x, y, v = rows(6, 4), apart(6, 4, seed=1), rows(6, 5, seed=2)
    p = torch.cat([1.5 * torch.sqrt(squares(y) + 1), y], -1)
    before, after, sites = rewritten(NOT_PROVED[name], x, p, v, grad=True)
    done = [site.target for site in sites if site.status == "rewritten"]
    assert not {"lorentz_expmap", "lorentz_logmap"} & set(done), sites
    refused = {site.target: site.code for site in sites if site.status == "refused"}
    if "vector" in name:
        assert refused["lorentz_expmap"] == "not_tangent", sites
    for value, expected in zip([after(x, p, v)], [before(x, p, v)], strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9, equal_nan=True)


LOOKS_LIKE = {
    "cosh of twice the length": lambda p, v, n: torch.cosh(2 * n) * p + torch.sinh(n) / n * v,
    "cosh and sinh of two lengths": lambda p, v, n: torch.cosh(n) * p + torch.sinh(1.5 * n) / n * v,
    "twice the point": lambda p, v, n: 2 * torch.cosh(n) * p + torch.sinh(n) / n * v,
    "sinh that is not divided": lambda p, v, n: torch.cosh(n) * p + torch.sinh(n) * v,
    "sinh over the square": lambda p, v, n: torch.cosh(n) * p + torch.sinh(n) / n**2 * v,
    "the denominator bounded": lambda p, v, n: torch.cosh(n) * p + torch.sinh(n) / n.clamp_max(0.5) * v,
    "a long least length": lambda p, v, n: (lambda m: torch.cosh(m) * p + torch.sinh(m) / m * v)(
        n.clamp_min(0.1)
    ),
    "the times of another": lambda p, v, n: torch.cat(
        [torch.cosh(n) * p[..., :1], torch.cosh(n) * p[..., 1:] + torch.sinh(n) / n * v[..., 1:]], -1
    ),
}


@pytest.mark.parametrize("name", LOOKS_LIKE)
def test_what_looks_like_a_map_at_a_point_stays(name):
    def function(x, v):
        p = lifted(x)
        u = tangent_at(p, v)
        return LOOKS_LIKE[name](p, u, dot(u, u).clamp_min(1e-15).sqrt() * C**0.5)

    inputs = rows(6, 4), rows(6, 5, seed=2)
    before, after, sites = rewritten(function, *inputs, grad=True)
    assert "lorentz_expmap" not in [site.target for site in sites if site.status == "rewritten"]
    torch.testing.assert_close(after(*inputs), before(*inputs), rtol=1e-9, atol=1e-9)
