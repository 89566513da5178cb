"""Products with batches of matrices, one behind the other, become one product."""

from itertools import pairwise

import pytest
import torch
from graphs import counts, run, trace
from torch import nn
from torch.nn import functional as F

import stonefx
from stonefx.passes.linear import LINEAR_CONTRACTIONS
from stonefx.passes.normalize import NORMALIZE
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier

GROUPS, ROWS, INPUTS, MIDDLE, OUTPUTS = 3, 5, 4, 32, 6


def weights(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return nn.Parameter(torch.randn(shape, generator=generator).to(dtype))

    return {
        "up": draw(GROUPS, INPUTS, MIDDLE),
        "down": draw(GROUPS, MIDDLE, OUTPUTS),
        "down_t": draw(GROUPS, OUTPUTS, MIDDLE),
        "first": draw(GROUPS, 1, MIDDLE),
        "second": draw(OUTPUTS),
        "shared": draw(OUTPUTS, MIDDLE),
        "heads": draw(GROUPS, MIDDLE, 8),
    }


SPELLINGS = {
    "bmm": lambda w, x: torch.bmm(torch.bmm(x, w.up), w.down),
    "baddbmm": lambda w, x: torch.baddbmm(w.second, torch.baddbmm(w.first, x, w.up), w.down),
    "beta and alpha": lambda w, x: torch.baddbmm(
        w.second, torch.baddbmm(w.first, x, w.up, beta=0.5, alpha=2), w.down, beta=-1, alpha=0.5
    ),
    "matmul": lambda w, x: (x @ w.up + w.first) @ w.down + w.second,
    "transposed weight": lambda w, x: torch.bmm(torch.bmm(x, w.up), w.down_t.mT),
    "weight on the left": lambda w, x: (w.down_t @ (x @ w.up).mT).transpose(1, 2),
    "einsum": lambda w, x: torch.einsum("gnm,gom->gno", torch.einsum("gni,gim->gnm", x, w.up), w.down_t),
    "einsum with an ellipsis": lambda w, x: torch.einsum(
        "...m,...mo->...o", torch.einsum("...i,...im->...m", x.transpose(0, 1), w.up), w.down
    ).transpose(0, 1),
    "a constant in between": lambda w, x: (2 - torch.bmm(x, w.up) / 3 + w.first).bmm(w.down),
    "dropout and copies": lambda w, x: (
        F.dropout(torch.bmm(x, w.up).contiguous(), 0.5, False).clone().bmm(w.down)
    ),
    "one matrix for all groups": lambda w, x: F.linear(torch.bmm(x, w.up), w.shared, w.second),
    "groups that come with the weight": lambda w, x: (x[0] @ w.up + w.first) @ w.down,
    "groups that are summed": lambda w, x: torch.einsum("gnm,gmo->no", torch.bmm(x, w.up) + w.first, w.down),
    "several axes summed": lambda w, x: torch.tensordot(torch.bmm(x, w.up), w.down, dims=([0, 2], [0, 1])),
    "three products": lambda w, x: torch.bmm(x, w.up).bmm(w.down_t.mT).bmm(w.down_t[..., :7]) + w.second[0],
}
LOOK_ALIKES = {
    "an activation in between": lambda w, x: torch.bmm(torch.bmm(x, w.up).relu(), w.down),
    "a product with itself": lambda w, x: torch.bmm(torch.bmm(x, w.up), torch.bmm(x, w.up).mT),
    "a sum along the rows": lambda w, x: torch.bmm(torch.bmm(x, w.up).cumsum(1), w.down),
    "a weight made at run time": lambda w, x: torch.bmm(torch.bmm(x, w.up), w.down * x.mean()),
    "a bias for each row": lambda w, x: torch.bmm(torch.bmm(x, w.up) + x[..., :1], w.down),
    "a diagonal": lambda w, x: torch.einsum("ggm,gmo->gmo", torch.bmm(x[:, :3], w.up), w.down),
    "another dtype": lambda w, x: torch.bmm(torch.bmm(x, w.up).double(), w.down.double()),
}


def traced(function, x, dynamic=False, dtype=torch.float32):
    held = weights(dtype)
    module = trace(function, x, weights=held, dynamic=dynamic)
    NORMALIZE.run(module, Context())
    return module, held


def exact(function, held, x):
    namespace = type("Weights", (), {name: value.detach().double() for name, value in held.items()})
    return function(namespace, x.double())


def relative(value, truth):
    return ((value.double() - truth).abs().max() / truth.abs().max()).item()


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_merged(name):
    function = SPELLINGS[name]
    x = torch.randn(GROUPS, ROWS, INPUTS)
    (module, held), (before, _) = traced(function, x), traced(function, x)
    products = ("bmm", "baddbmm", "matmul", "einsum", "tensordot", "linear")
    (site,) = LINEAR_CONTRACTIONS.run(module, Context())
    assert (site.target, site.status) == ("linear_chain", "rewritten"), site.reason
    values = [value.detach() for value in held.values()]
    names = [node.name for node in before.graph.nodes if node.op == "placeholder"]
    assert Verifier(dict(zip(names, values, strict=False))).failures(before, module, [site]) == {}
    new, old = run(module, values, x), run(before, values, x)
    truth = exact(function, held, x)
    assert new.shape == old.shape and new.stride() == old.stride()
    assert relative(new, truth) <= site.bound
    assert site.max_error is not None and site.max_error <= site.bound
    assert site.flops_after < site.flops_before
    assert sum(_reads_input(node) for node in module.graph.nodes if _name(node) in products) == 1


def _name(node):
    return node.target.overloadpacket.__name__ if hasattr(node.target, "overloadpacket") else ""


def _reads_input(node):
    """Whether a node depends on the input, and is no part of a fold."""
    stack, seen = [node], set()
    while stack:
        current = stack.pop()
        if current.op == "placeholder" and "weight" not in current.meta:
            return True
        if current not in seen:
            seen.add(current)
            stack += current.all_input_nodes
    return False


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_stay(name):
    x = torch.randn(GROUPS, ROWS, INPUTS)
    module, _ = traced(LOOK_ALIKES[name], x)
    code = module.code
    assert [site.status for site in LINEAR_CONTRACTIONS.run(module, Context())] in ([], ["refused"])
    assert module.code == code


def test_the_number_of_rows_may_vary():
    function = SPELLINGS["matmul"]
    module, held = traced(function, torch.randn(GROUPS, ROWS, INPUTS), dynamic=True)
    environment = next(iter(module.graph.nodes)).meta["val"].fake_mode.shape_env
    guards = [str(guard.expr) for guard in environment.guards]
    (site,) = LINEAR_CONTRACTIONS.run(module, Context())
    assert site.status == "rewritten", site.reason
    assert [str(guard.expr) for guard in environment.guards] == guards
    x = torch.randn(GROUPS, 11, INPUTS)
    assert (
        relative(run(module, [v.detach() for v in held.values()], x), exact(function, held, x)) <= site.bound
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_no_less_accurate(dtype):
    function = SPELLINGS["baddbmm"]
    x = torch.randn(GROUPS, ROWS, INPUTS).to(dtype)
    (module, held), (before, _) = traced(function, x, dtype=dtype), traced(function, x, dtype=dtype)
    (site,) = LINEAR_CONTRACTIONS.run(module, Context())
    assert site.status == "rewritten", site.reason
    values = [value.detach() for value in held.values()]
    truth = exact(function, held, x)
    old, new = run(before, values, x), run(module, values, x)
    assert new.dtype == dtype
    assert relative(new, truth) <= relative(old, truth) + torch.finfo(dtype).eps / 2


def test_gradients_of_the_input_agree_and_those_of_the_weights_forbid_the_merge():
    function = SPELLINGS["baddbmm"]
    x = torch.randn(GROUPS, ROWS, INPUTS, requires_grad=True)
    module, held = traced(function, x)
    code = module.code
    (site,) = LINEAR_CONTRACTIONS.run(module, Context(grad=True))
    assert site.status == "refused" and site.reason.startswith("gradients are wanted of ")
    assert module.code == code
    LINEAR_CONTRACTIONS.run(module, Context())
    values = [value.detach() for value in held.values()]
    (new,) = torch.autograd.grad(module(*values, x).square().sum(), x)
    wide = x.detach().double().requires_grad_()
    (truth,) = torch.autograd.grad(exact(function, held, wide).square().sum(), wide)
    assert relative(new, truth) < 1e-5


def test_what_costs_more_is_refused_with_both_costs():
    held = {"up": torch.randn(2, 64, 2), "down": torch.randn(2, 2, 64)}
    module = trace(lambda w, x: x.bmm(w.up).bmm(w.down), torch.randn(2, 4096, 64), weights=held)
    code = module.code
    (site,) = LINEAR_CONTRACTIONS.run(module, Context())
    assert site.status == "refused"
    assert site.code == "no_faster" and site.figures["after"] >= site.figures["before"] > 0
    assert site.reason.startswith("merging [2, 64, 2] then [2, 2, 64] would be no faster: predicted ")
    assert module.code == code


def test_a_run_is_cut_where_that_is_fastest():
    widths = [64, 512, 64, 2, 64]
    held = {f"w{place}": torch.randn(2, *pair) for place, pair in enumerate(pairwise(widths))}
    function = lambda w, x: x.bmm(w.w0).bmm(w.w1).bmm(w.w2).bmm(w.w3)  # noqa: E731
    x = torch.randn(2, 4096, 64)
    module = trace(function, x, weights=held)
    (site,) = [site for site in LINEAR_CONTRACTIONS.run(module, Context()) if site.status == "rewritten"]
    assert "then [2, 2, 64] became [2, 64, 2], [2, 2, 64]; predicted " in site.reason
    assert counts(module)["bmm"] == 2
    value = run(module, list(held.values()), x)
    wide = function(type("W", (), {name: value.double() for name, value in held.items()}), x.double())
    assert relative(value, wide) <= 1e-5


def test_a_value_that_is_read_twice_is_said_to_be():
    held = {"up": torch.randn(2, 64, 2), "down": torch.randn(2, 2, 64)}

    def function(w, x):
        hidden = x.bmm(w.up)
        return hidden.bmm(w.down), hidden.sum()

    module = trace(function, torch.randn(2, 512, 64), weights=held)
    (site,) = LINEAR_CONTRACTIONS.run(module, Context())
    assert (site.status, site.code) == ("refused", "shared")
    assert site.reason.startswith("the intermediate 'bmm' is used in 2 places (bmm_1, ")


def test_a_product_that_several_matrices_read_is_said_to_be():
    held = {"up": torch.randn(2, 64, 2), "one": torch.randn(64, 2), "two": torch.randn(64, 2)}

    def function(w, x):
        hidden = x.bmm(w.up)
        return F.linear(hidden, w.one).relu() * F.linear(hidden, w.two)

    module = trace(function, torch.randn(2, 512, 64), weights=held)
    (site,) = LINEAR_CONTRACTIONS.run(module, Context())
    assert (site.status, site.code, site.output) == ("refused", "shared", "linear")


class Experts(nn.Module):
    """A map up and down again for each group of features, without an activation."""

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.randn(4, 16, 128))
        self.bias = nn.Parameter(torch.randn(4, 1, 128))
        self.down = nn.Parameter(torch.randn(4, 128, 16))

    def forward(self, x):
        groups = x.unflatten(-1, (4, 16)).movedim(-2, 0)
        return torch.baddbmm(self.bias, groups, self.up).bmm(self.down).movedim(0, -2).flatten(-2)


@pytest.mark.parametrize("door", ["optimize", "compile"])
def test_both_doors_merge_experts_and_see_new_weights(door):
    model, x = Experts().eval(), torch.randn(9, 64)
    fast = stonefx.optimize(model, (x,)) if door == "optimize" else torch.compile(model, backend="stone")
    with torch.no_grad():
        first = fast(x)
        report = fast.report if door == "optimize" else stonefx.last_report()
        assert relative(first, model.double()(x.double())) < 1e-5
        model.float()
        (site,) = report.rewritten()
        assert "test_linear_contractions.py" in site.source
        if door == "compile":
            model.up.mul_(2)
            assert relative(fast(x), model.double()(x.double())) < 1e-5
