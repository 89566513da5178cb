"""The models of the suite "papers": recognised, and right in values and gradients through both doors."""

import copy

import pytest
import torch

import stonefx
from stonefx.benchmarks.suites import SUITES
from stonefx.benchmarks.suites.papers import MODELS

# What calls without gradients, and calls with them, strict and fast, find in each.
WITHOUT = {
    "HIE distance": {"poincare_cdist"},
    "HIE head": {"expmap0", "project_merge", "poincare_mlr"},
    "four tangent": {"logmap0", "expmap0", "log_exp_cancel"},
    "HGCN": {"project_merge", "project", "logmap0", "log_exp_cancel", "mobius_matvec"},
    "MERU": {"lorentz_expmap0", "lorentz_cdist"},
    "Hypformer": {"add_time"},
    "RotH": {"project_merge", "mobius_add", "poincare_dist"},
    "Poincaré": {"poincare_dist"},
}
FAST = WITHOUT
STRICT = WITHOUT | {
    "HIE distance": {"mobius_add"},  # its artanh is a function of its own
    "four tangent": {"expmap0"},
    "HGCN": {"project_merge", "project"},
    "RotH": {"project_merge", "mobius_add"},
}


def made(name):
    torch.manual_seed(0)
    model, inputs = next(small for key, (_, small) in MODELS.items() if key.startswith(name))()
    return model, inputs


def values_and_gradients(forward, inputs):
    rows = [each.clone().requires_grad_(each.is_floating_point()) for each in inputs]
    wanted = [each for each in rows if each.requires_grad]
    y = forward(*rows)
    if not wanted:
        return [y.detach()]
    return [y.detach(), *torch.autograd.grad(y.sum(), wanted)]


def exact(model, inputs):
    doubled = [each.double() if each.is_floating_point() else each for each in inputs]
    return values_and_gradients(copy.deepcopy(model).double(), doubled)


def check(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def found_in(report):
    return {
        site.target for site in report.sites if site.status == "rewritten" and site.pass_name == "hyperbolic"
    }


def test_every_model_has_its_row():
    assert [next(key for key in WITHOUT if name.startswith(key)) for name in MODELS] == list(WITHOUT)


@pytest.mark.parametrize("name", WITHOUT)
def test_optimize_without_gradients(name):
    model, inputs = made(name)
    fast = stonefx.optimize(model, inputs)
    with torch.no_grad():
        found = fast(*inputs)
    check([found], exact(model, inputs)[:1])
    assert found_in(fast.report) >= WITHOUT[name], fast.report


@pytest.mark.parametrize("name", WITHOUT)
@pytest.mark.parametrize("numerics", ["strict", "fast"])
def test_training_through_compile(name, numerics):
    torch.compiler.reset()
    model, inputs = made(name)
    run = torch.compile(model, backend="stone", options={"inner": "eager", "numerics": numerics})
    check(values_and_gradients(run, inputs), exact(model, inputs))
    expected = {"strict": STRICT, "fast": FAST}[numerics][name]
    assert found_in(stonefx.last_report()) >= expected, stonefx.last_report()


def test_the_suite_has_two_cases_a_model():
    names = [case.name for case in SUITES["papers"]("cpu")]
    assert len(names) == 2 * len(MODELS) == len(set(names))
