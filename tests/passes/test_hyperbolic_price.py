"""A formula becomes an operator only where that is no slower than what the inner compiler makes of it."""

import pytest
import torch
from graphs import trace
from plain_maps import expmap0, logmap0, norm

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.hyperbolic.formulas import FORMULAS
from stonefx.passes.hyperbolic.price import SAVED
from stonefx.passes.site import Context


def dist0(x):
    return 2 * torch.atanh(x.norm(dim=-1).clamp_max(0.99))


def project(x):
    return torch.where(norm(x) > 0.99, 0.99 * x / norm(x), x)


def sites(function, rows, inner, grad=False):
    x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(0)) / 16
    return HYPERBOLIC.run(trace(lambda _, x: function(x), x), Context(inner=inner, grad=grad))


@pytest.mark.parametrize("rows", [1, 64, 4096])
@pytest.mark.parametrize("function", [expmap0, logmap0, project])
def test_separate_operators_are_always_slower(function, rows):
    (site,) = sites(function, rows, "eager")
    assert (site.status, site.reason) == ("rewritten", "")


@pytest.mark.parametrize(
    ("function", "rows", "status"),
    [
        (expmap0, 64, "refused"),
        (logmap0, 64, "refused"),
        (logmap0, 4096, "rewritten"),
        (dist0, 4096, "refused"),
        (project, 4096, "refused"),
    ],
)
@pytest.mark.parametrize("grad", [False, True])
def test_fused_code_is_left_where_an_operator_would_cut_it(function, rows, status, grad):
    (site,) = sites(function, rows, "inductor", grad)
    assert site.status == status
    assert (f"at {rows} rows" in site.reason) == (status == "refused")


@pytest.mark.parametrize("multiple", [0.5, 1.0, 3.0])
def test_one_function_of_a_norm_is_no_distance(multiple):
    """`atanh(norm(x))` alone is two calls, and so is the operator with its factor."""
    found = sites(lambda x: torch.atanh(x.norm(dim=-1)) * multiple, 64, "eager")
    assert all(site.status == "refused" and "would cost" in site.reason for site in found)


def test_what_was_measured_is_in_the_table():
    assert SAVED.keys() <= FORMULAS.keys()


def dist_by_arcosh(x):
    y = 0.5 * x.flip(0)
    gaps = [(1 - each.pow(2).sum(-1)).clamp_min(1e-5) for each in (x, y)]
    return torch.acosh(1 + 2 * (x - y).pow(2).sum(-1) / (gaps[0] * gaps[1]))


@pytest.mark.parametrize("grad", [False, True])
def test_a_distance_by_arcosh_is_cheap_as_fused_code(grad):
    (site,) = sites(dist_by_arcosh, 4096, "inductor", grad)
    assert (site.target, site.code) == ("poincare_dist", "operator_no_faster")
    (site,) = sites(dist_by_arcosh, 4096, "eager", grad)
    assert (site.target, site.status) == ("poincare_dist", "rewritten")
