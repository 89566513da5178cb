"""The rules: each fires where its condition is proved, and its counter-example shows why it must not elsewhere."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from graphs import counts, trace

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.hyperbolic import HYPERBOLIC, recognise, simplify
from stonefx.passes.hyperbolic.rules import RULES
from stonefx.passes.pipeline import run_verified
from stonefx.passes.refusal import Refusal
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier

sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))
import poincare as p

C = 1.3
FAST = Context(numerics="fast", grad=True)
STRICT = Context(grad=True)


def rows(*lengths, seed=0, dtype=torch.float64):
    """Rows of given lengths, in units of the radius."""
    x = torch.randn(len(lengths), 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x / x.norm(dim=-1, keepdim=True) * torch.tensor(lengths)[:, None] * C**-0.5).to(dtype)


POINTS = rows(0.0, 0.1, 0.5, 0.9), rows(0.3, 0.2, 0.6, 0.8, seed=1)
TANGENTS = rows(1e-3, 0.5, 3.0, 9.0)


def rewritten(function, *inputs, context=STRICT):
    before = trace(lambda _, *given: function(*given), *inputs)
    after = copy.deepcopy(before)
    return before, after, HYPERBOLIC.run(after, context)


def check(before, after, sites, *inputs, tolerance=1e-8):
    for site in sites:
        if site.status == "rewritten":
            assert Verifier({}).check(before, after, site) is None
    results = []
    for graph in (before, after):
        leaves = [value.clone().requires_grad_() for value in inputs]
        value = graph(*leaves)
        results.append(
            [
                value,
                *torch.autograd.grad((value * value.detach().cos()).sum(), leaves, materialize_grads=True),
            ]
        )
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def operators(graph):
    return {name: count for name, count in counts(graph).items() if hasattr(torch.ops.stone, name)}


def hypll_expmap0(v):
    return p.expmap0_hypll(v, C)


def hypll_logmap0(x):
    return p.logmap0_hypll(x, C)


# name -> function, inputs, target, operators that are left
FIRES = {
    "projected map at the origin": (
        lambda v: p.project(p.expmap0(v, C), C),
        (TANGENTS,),
        "project_merge",
        {"expmap0": 1},
    ),
    "projected sum": (
        lambda x, y: p.project(p.mobius_add(x, y, C), C),
        POINTS,
        "project_merge",
        {"mobius_add": 1},
    ),
    "projected product": (
        lambda x, y: p.project(p.mobius_matvec(x, y, C), C),
        (POINTS[1], rows(0.1, 0.5, 0.9, 0.2, seed=2)),
        "project_merge",
        {"mobius_matvec": 1},
    ),
    "projected map at a point": (
        lambda x, v: p.project(p.expmap(x, v, C), C),
        (POINTS[0], POINTS[1]),
        "project_merge",
        {"expmap": 1},
    ),
    "projected twice": (
        lambda x: p.project_hie(p.project(x, C), C),
        (TANGENTS,),
        "project_merge",
        {"project": 1},
    ),
    "there, into the ball, and back": (
        lambda v: p.logmap0(p.project(p.expmap0(v, C), C), C),
        (TANGENTS,),
        "log_exp_cancel",
        {},
    ),
    "there and back with a limit": (
        lambda v: p.logmap0_kgemb(p.expmap0(v, C), C),
        (TANGENTS,),
        "log_exp_cancel",
        {},
    ),
    "there and back of a row that is short": (
        lambda v: hypll_logmap0(hypll_expmap0(p.project(v, C))),
        (POINTS[0],),
        "log_exp_cancel",
        {"project": 1},
    ),
    "distance of a map at the origin": (
        lambda v: p.dist0(p.expmap0(v, C), C),
        (TANGENTS,),
        "log_exp_cancel",
        {},
    ),
    "scaled by less than 1, twice": (
        lambda x: p.mobius_scalar_mul(p.mobius_scalar_mul(x, C), C),
        (POINTS[0][1:],),
        "mobius_scalar_mul",
        {"mobius_scalar_mul": 1},
    ),
}


@pytest.mark.parametrize("name", FIRES)
def test_fires(name):
    function, inputs, target, left = FIRES[name]
    before, after, sites = rewritten(function, *inputs)
    assert {site.status for site in sites} == {"rewritten"}
    assert target in [site.target for site in sites]
    assert operators(after) == left
    check(before, after, sites, *inputs)


def test_a_cap_is_finite_at_zero_and_far():
    v = torch.cat([torch.zeros(1, 5, dtype=torch.float64), TANGENTS, 1e3 * TANGENTS])
    _, after, _ = rewritten(FIRES["there, into the ball, and back"][0], v)
    v.requires_grad_()
    value = after(v)
    (grad,) = torch.autograd.grad(value.sum(), v)
    assert value.isfinite().all()
    assert grad.isfinite().all()
    assert value.norm(dim=-1).max() <= 3.2 / C**0.5


def scaled(r):
    def function(x):
        n = p.norm(x).clamp_min(1e-15)
        u = (r * p.artanh(C**0.5 * n, p.GEOOPT)).clamp(-15, 15)
        return torch.tanh(u) * x / (C**0.5 * n)

    return function


# name -> function, inputs, the operators that must stay
COUNTER_EXAMPLES = {
    "0.1 (100 x) does not come back": (
        lambda x: scaled(0.1)(scaled(100.0)(x)),
        (POINTS[0][1:],),
        {"mobius_scalar_mul": 2},
    ),
    "without a limit, a long row comes back infinite": (
        lambda v: hypll_logmap0(hypll_expmap0(v)),
        (TANGENTS,),
        {"expmap0": 1, "logmap0": 1},
    ),
    "of another curvature": (
        lambda v: p.logmap0(p.expmap0(v, 2.0), C),
        (POINTS[0],),
        {"expmap0": 1, "logmap0": 1},
    ),
    "a sum whose denominator is offset": (
        lambda x, y: p.mobius_add_offset(-x, p.mobius_add_offset(x, y, C), C),
        POINTS,
        {"mobius_add": 2},
    ),
    "a sum of which another row is taken": (
        lambda x, y: p.mobius_add(-y, p.mobius_add(x, y, C), C),
        POINTS,
        {"mobius_add": 2},
    ),
    "a NaN of the row that is added": (
        lambda x, y: p.mobius_add(-x, p.mobius_add(x, y, C), C),
        POINTS,
        {"mobius_add": 2},
    ),
    "a point beyond the ball": (
        lambda x: p.klein_to_poincare(p.poincare_to_klein(x, C), C),
        (POINTS[0],),
        {"klein_to_poincare": 1, "poincare_to_klein": 1},
    ),
    "a sum that is projected between": (
        lambda x, y: p.mobius_add(-x, p.project(p.mobius_add(x, y, C), C), C),
        POINTS,
        {"mobius_add": 2},
    ),
    "a result that is read before it is projected": (
        lambda x, y: (lambda z: p.project(z, C) + z)(p.mobius_add(x, y, C)),
        POINTS,
        {"mobius_add": 1, "project": 1},
    ),
    "a map whose norms are guarded apart": (
        lambda v: p.project(p.expmap0_normalized_without_clamp(v, C), C),
        (TANGENTS,),
        {"expmap0": 1, "project": 1},
    ),
}


@pytest.mark.parametrize("name", COUNTER_EXAMPLES)
def test_counter_examples(name):
    function, inputs, stay = COUNTER_EXAMPLES[name]
    _, after, _ = rewritten(function, *inputs)
    assert operators(after) == stay
    torch.testing.assert_close(after(*inputs), function(*inputs), rtol=1e-8, atol=1e-8)


UNDONE = {
    "log of exp": (lambda v: hypll_logmap0(hypll_expmap0(v)), (POINTS[0],), "log_exp_cancel"),
    "distance of exp": (lambda v: p.dist0_hypll(hypll_expmap0(v), C), (POINTS[0],), "log_exp_cancel"),
    "added and taken": (lambda x, y: p.mobius_add(-x, p.mobius_add(x, y, C), C), POINTS, "mobius_cancel"),
    "to Klein and back": (
        lambda x: p.klein_to_poincare(p.poincare_to_klein(x, C), C),
        (POINTS[0],),
        "model_conversion",
    ),
    "from Klein and back": (
        lambda x: p.poincare_to_klein(p.klein_to_poincare(x, C), C),
        (POINTS[0],),
        "model_conversion",
    ),
}


@pytest.mark.parametrize("name", UNDONE)
def test_fast_takes_away_what_undoes_itself(name):
    function, inputs, target = UNDONE[name]
    before, after, (site,) = rewritten(function, *inputs, context=FAST)
    assert (site.target, site.status) == (target, "rewritten")
    assert operators(after) == {}
    check(before, after, [site], *inputs)
    _, _, sites = rewritten(function, *inputs)
    assert [site.target for site in sites if site.target == target] == []


def described(sites):
    return [(site.target, site.status, site.nodes, site.guards, str(site.reason)) for site in sites]


def priced_out(item, inner, grad, machine):
    return recognise.Price(1.0, 0.0, 1) if item.rule else PRICE(item, inner, grad, machine)


PRICE = recognise.price
REFUSALS = {
    "verification": lambda patch, sites: replace(
        FAST,
        denied={site.key: Refusal("verification", problem="as a test has it") for site in sites if site.rule},
    ),
    "price": lambda patch, sites: patch.setattr(recognise, "price", priced_out) or FAST,
}


@pytest.mark.parametrize("way", REFUSALS)
@pytest.mark.parametrize("name", [*FIRES, *UNDONE])
def test_a_refused_rule_leaves_what_is_there_without_it(name, way, monkeypatch):
    function, inputs, *_ = {**FIRES, **UNDONE}[name]
    _, _, sites = rewritten(function, *inputs, context=FAST)
    ruled = {site.rule for site in sites} - {""}
    assert ruled
    with monkeypatch.context() as patch:
        context = REFUSALS[way](patch, sites)
        _, refused, found = rewritten(function, *inputs, context=context)
    # By price no rule is left; verification denies those that came last, and leaves what they were made of.
    left = [rule for rule in RULES if way == "verification" and rule.name not in ruled]
    monkeypatch.setattr(simplify, "RULES", left)
    _, without, expected = rewritten(function, *inputs, context=FAST)
    assert described(found) == described(expected)
    assert operators(refused) == operators(without)
    torch.testing.assert_close(refused(*inputs), function(*inputs), rtol=1e-8, atol=1e-8)


def test_a_rule_whose_site_fails_verification_leaves_its_parts():
    """Through the pipeline: the same target at the same node is denied to the rule, and not to its part."""
    function, inputs, *_ = FIRES["scaled by less than 1, twice"]

    class Strict(Verifier):
        def failures(self, before, after, sites):
            return {
                site.key: "as a test has it" for site in sites if site.status == "rewritten" and site.rule
            }

    graph = trace(lambda _, *given: function(*given), *inputs)
    sites = run_verified(HYPERBOLIC, graph, STRICT, Strict({}))
    assert [(site.target, site.status) for site in sites] == 2 * [("mobius_scalar_mul", "rewritten")]
    assert operators(graph) == {"mobius_scalar_mul": 2}


def test_a_rule_that_needs_a_value_that_is_read_elsewhere_leaves_its_parts():
    def function(v):
        u = p.expmap0(v, C)
        n = u.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
        y = u / n * p.geoopt_artan_k(n, C)
        return y, n

    _, after, sites = rewritten(lambda v: function(v)[0] * function(v)[1], TANGENTS)
    assert ("log_exp_cancel", "rewritten") in [(site.target, site.status) for site in sites]
    before, after, sites = rewritten(lambda v: (lambda y, n: y * n)(*function(v)), TANGENTS)
    assert [(site.target, site.status) for site in sites] == [
        ("expmap0", "rewritten"),
        ("logmap0", "refused"),
    ]
    assert operators(after) == {"expmap0": 1}
    check(before, after, sites, TANGENTS)


@pytest.mark.parametrize("context", [STRICT, FAST], ids=["strict", "fast"])
def test_an_offset_is_kept_in_either_mode(context):
    function = COUNTER_EXAMPLES["a sum whose denominator is offset"][0]
    _, after, _ = rewritten(function, *POINTS, context=context)
    assert operators(after) == {"mobius_add": 2}


def other_factor(x, v):
    n = p.norm(v).clamp_min(1e-15)
    return p.mobius_add(x, torch.tanh(C**0.5 * p.factor(v, C) * n / 2) * v / (C**0.5 * n), C)


def other_length(x, y):
    w = p.mobius_add(-x, y, C)
    n = p.norm(w).clamp_min(1e-15)
    return 2 / (C**0.5 * p.factor(y, C)) * torch.atanh(C**0.5 * n) * w / n


@pytest.mark.parametrize(("function", "target"), [(other_factor, "expmap"), (other_length, "logmap")])
def test_the_factor_of_another_point_makes_no_map(function, target):
    _, after, sites = rewritten(function, *POINTS)
    assert target not in [site.target for site in sites]
    torch.testing.assert_close(after(*POINTS), function(*POINTS), rtol=1e-9, atol=1e-9)


def test_a_conformal_factor_that_is_read_elsewhere_stays():
    def function(x, v):
        factor = p.factor(x, C)
        n = p.norm(v).clamp_min(1e-15)
        return p.mobius_add(x, torch.tanh(C**0.5 * factor * n / 2) * v / (C**0.5 * n), C) + factor

    before, after, sites = rewritten(function, *POINTS)
    torch.testing.assert_close(after(*POINTS), function(*POINTS), rtol=1e-9, atol=1e-9)
    check(before, after, sites, *POINTS)


def test_every_rule_says_what_it_needs():
    assert all((rule.needs and "=" in rule.name) or " is " in rule.name for rule in RULES)
