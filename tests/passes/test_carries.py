"""Maps on either side of an operation on the other axes are merged, whatever comes beside it."""

import math

import pytest
import torch
from carry_models import CARRIES, LOOK_ALIKES, Between
from graphs import counts, run, trace

import stonefx
from stonefx.passes.linear import LINEAR_CHAINS
from stonefx.passes.normalize import NORMALIZE
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier


def made(name, dtype=torch.float32, bias=True, table=CARRIES, outputs=4):
    torch.manual_seed(0)
    carry = table[name]
    model = Between(carry, outputs=outputs, bias=bias).eval().to(dtype)
    beside = [each.to(dtype) if each.is_floating_point() else each for each in carry.beside()]
    return model, [torch.randn(*carry.shape, 16, dtype=dtype), *beside]


def traced(model, inputs, dynamic):
    module = trace(model, *inputs, dynamic=dynamic)
    NORMALIZE.run(module, Context())
    return module


def relative(value, exact):
    return ((value.double() - exact).abs().max() / exact.abs().max()).item()


def check_rewritten(model, inputs, dynamic, operator):
    """One call of an operator is left, no guard is new, and the graph is as right as it was; gives the graph."""
    module, before = (traced(model, inputs, dynamic) for _ in range(2))
    environment = next(iter(module.graph.nodes)).meta["val"].fake_mode.shape_env
    guards = [str(guard.expr) for guard in environment.guards]
    (site,) = [site for site in LINEAR_CHAINS.run(module, Context()) if site.status == "rewritten"]
    assert counts(module)[operator] == 1, site.reason
    assert [str(guard.expr) for guard in environment.guards] == guards
    names = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    values = dict(zip(names, model.parameters(), strict=False))
    assert Verifier(values).failures(before, module, [site]) == {}
    old, new = run(before, model, *inputs), run(module, model, *inputs)
    assert new.shape == old.shape and new.dtype == old.dtype and new.stride() == old.stride()
    exact = exactly(model, inputs)
    assert relative(new, exact) <= max(site.bound, 4 * relative(old, exact))
    return module


def exactly(model, inputs):
    inputs = [each.double() if each.is_floating_point() else each for each in inputs]
    with torch.no_grad():
        return model.double()(*inputs)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", CARRIES)
def test_the_maps_become_one(name, bias, dynamic):
    dtype = torch.float64 if bias == dynamic else torch.float32
    model, inputs = made(name, dtype, bias)
    check_rewritten(model, inputs, dynamic, "linear")


@pytest.mark.parametrize("door", ["optimize", "compile"])
@pytest.mark.parametrize("name", CARRIES)
def test_both_doors_give_what_the_model_gives(name, door):
    model, inputs = made(name)
    if door == "optimize":
        fast = stonefx.optimize(model, tuple(inputs))
        report = fast.report
    else:
        torch._dynamo.reset()
        fast = torch.compile(model, backend="stone", options={"inner": "eager"})
        with torch.no_grad():
            fast(*inputs)
        report = stonefx.last_report()
    assert "rewritten" in [site.status for site in report.sites if site.target == "linear_chain"], report
    for planted in (0.0, math.nan, math.inf):
        x = inputs[0].clone()
        x.view(-1)[7] = planted
        with torch.no_grad():
            want, got = model(x, *inputs[1:]), fast(x, *inputs[1:])
        assert torch.equal(got.isfinite(), want.isfinite())
        torch.testing.assert_close(
            got.nan_to_num(0, 0, 0),
            want.nan_to_num(0, 0, 0),
            rtol=1e-4,
            atol=1e-4 * float(want.nan_to_num(0, 0, 0).abs().max()),
        )


@pytest.mark.parametrize("name", CARRIES)
def test_gradients_of_the_inputs(name):
    model, inputs = made(name, torch.float64)
    model.requires_grad_(False)
    module = traced(model, inputs, False)
    LINEAR_CHAINS.run(module, Context())
    inputs = [each.requires_grad_() if each.is_floating_point() else each for each in inputs]
    wanted = [each for each in inputs if each.requires_grad]
    expected = torch.autograd.grad(model(*inputs).sin().sum(), wanted, allow_unused=True)
    found = torch.autograd.grad(module(*model.parameters(), *inputs).sin().sum(), wanted, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_keep_both_maps(name):
    model, inputs = made(name, table=LOOK_ALIKES)
    module = traced(model, inputs, False)
    LINEAR_CHAINS.run(module, Context())
    assert counts(module)["linear"] == 2
    torch.testing.assert_close(run(module, model, *inputs), run(traced(model, inputs, False), model, *inputs))
