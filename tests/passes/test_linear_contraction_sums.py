"""Products of one value with batches of matrices, added up, become one product."""

import pytest
import torch
from graphs import run, trace
from torch import nn

import stonefx
from stonefx.passes.linear import LINEAR_CONTRACTIONS
from stonefx.passes.normalize import NORMALIZE
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier

GROUPS, ROWS, INPUTS, OUTPUTS = 3, 50, 16, 24


def weights(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return nn.Parameter(torch.randn(shape, generator=generator).to(dtype))

    return {
        "a": draw(GROUPS, INPUTS, OUTPUTS),
        "b": draw(GROUPS, INPUTS, OUTPUTS),
        "b_t": draw(GROUPS, OUTPUTS, INPUTS),
        "shared": draw(INPUTS, OUTPUTS),
        "bias": draw(GROUPS, 1, OUTPUTS),
        "one": draw(OUTPUTS),
        "down": draw(GROUPS, INPUTS, 4),
        "up": draw(GROUPS, 4, OUTPUTS),
        "full": draw(GROUPS, ROWS, OUTPUTS),
    }


SPELLINGS = {
    "bmm": lambda w, x: torch.bmm(x, w.a) + torch.bmm(x, w.b),
    "difference": lambda w, x: torch.bmm(x, w.a) - 0.25 * torch.bmm(x, w.b),
    "factors": lambda w, x: torch.rsub(-(x @ w.a) / 3, 2 * (x @ w.b), alpha=0.5),
    "alpha": lambda w, x: torch.add(torch.bmm(x, w.a), torch.bmm(x, w.b), alpha=-2),
    "baddbmm": lambda w, x: torch.baddbmm(w.bias, x, w.a, beta=2, alpha=0.5) + torch.baddbmm(w.one, x, w.b),
    "constants": lambda w, x: (x @ w.a + w.bias) + (w.one - x @ w.b) * 2 + 1.5,
    "a constant for every row": lambda w, x: (x @ w.a + w.full) + x @ w.b,
    "einsum": lambda w, x: torch.einsum("gni,gio->gno", x, w.a) + torch.einsum("abc,adc->abd", x, w.b_t),
    "two spellings": lambda w, x: torch.einsum("gni,goi->gno", x, w.b_t) + torch.bmm(x, w.a),
    "one matrix for all groups": lambda w, x: x @ w.shared + torch.bmm(x, w.a),
    "three terms": lambda w, x: torch.bmm(x, w.a) + (torch.bmm(x, w.b) - x @ w.b_t.mT),
    "an adapter": lambda w, x: torch.bmm(x, w.a) + 0.5 * torch.bmm(torch.bmm(x, w.down), w.up),
    "twice the same": lambda w, x: torch.bmm(x, w.a).add(x @ w.a),
    "another result": lambda w, x: (
        torch.einsum("gni,gio->ngo", x, w.a) + torch.einsum("gni,goi->ngo", x, w.b_t)
    ),
    "groups that are summed": lambda w, x: (
        torch.einsum("gni,gio->no", x, w.a) + torch.tensordot(x, w.b, dims=([0, 2], [0, 1]))
    ),
    "something else": lambda w, x: torch.bmm(x, w.a) + x.sin().repeat(1, 1, 2)[..., :24] + torch.bmm(x, w.b),
}
LOOK_ALIKES = {
    "two values": lambda w, x: torch.bmm(x, w.a) + torch.bmm(x.sin(), w.b),
    "a product of products": lambda w, x: torch.bmm(x, w.a) * torch.bmm(x, w.b),
    "an activation": lambda w, x: torch.bmm(x, w.a).relu() + torch.bmm(x, w.b),
    "other rows": lambda w, x: torch.bmm(x, w.a) + torch.bmm(x, w.b)[:, :1],
    "a weight made at run time": lambda w, x: torch.bmm(x, w.a) + torch.bmm(x, w.b * x.mean()),
    "groups in another order": lambda w, x: torch.bmm(x, w.a) + torch.bmm(x.flip(0), w.b),
    "a sum that is not of products": lambda w, x: torch.bmm(x, w.a) + x.sum(-1, keepdim=True),
    "written to": lambda w, x: torch.bmm(x, w.a).mul_(2) + torch.bmm(x, w.b),
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


def products(module):
    names = ("bmm", "baddbmm", "matmul", "einsum", "tensordot", "linear")
    return sum(_name(node) in names and _reads_input(node) for node in module.graph.nodes)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_becomes_one_product(name, dtype):
    function = SPELLINGS[name]
    x = torch.randn(GROUPS, ROWS, INPUTS).to(dtype)
    (module, held), (before, _) = traced(function, x, dtype=dtype), traced(function, x, dtype=dtype)
    (site,) = LINEAR_CONTRACTIONS.run(module, Context())
    assert (site.target, site.status) == ("linear_chain", "rewritten"), site.reason
    values = [value.detach() for value in held.values()]
    names = [node.name for node in before.graph.nodes if node.op == "placeholder"]
    assert Verifier(dict(zip(names, values, strict=False))).failures(before, module, [site]) == {}
    new, old = run(module, values, x), run(before, values, x)
    truth = exact(function, held, x)
    assert new.shape == old.shape and new.stride() == old.stride()
    assert relative(new, truth) <= site.bound
    assert relative(new, truth) <= relative(old, truth) + torch.finfo(dtype).eps
    assert site.flops_after < site.flops_before
    assert products(module) == 1


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_stay(name):
    module, _ = traced(LOOK_ALIKES[name], torch.randn(GROUPS, ROWS, INPUTS))
    code = module.code
    assert [site.status for site in LINEAR_CONTRACTIONS.run(module, Context())] in ([], ["refused"])
    assert module.code == code


def test_what_is_refused_is_reported():
    module, _ = traced(LOOK_ALIKES["written to"], torch.randn(GROUPS, ROWS, INPUTS))
    assert [site.reason for site in LINEAR_CONTRACTIONS.run(module, Context())] == []
    module, _ = traced(SPELLINGS["bmm"], torch.randn(GROUPS, ROWS, INPUTS))
    (site,) = LINEAR_CONTRACTIONS.run(module, Context(keep=("b",)))
    assert site.reason == "the weight 'b' is to be kept as it is"
    (site,) = LINEAR_CONTRACTIONS.run(module, Context(grad=True))
    assert site.reason.startswith("gradients are wanted of a, b: merging would train")


def test_the_number_of_rows_may_vary():
    function = SPELLINGS["constants"]
    module, held = traced(function, torch.randn(GROUPS, ROWS, INPUTS), dynamic=True)
    environment = next(iter(module.graph.nodes)).meta["val"].fake_mode.shape_env
    guards = [str(guard.expr) for guard in environment.guards]
    (site,) = LINEAR_CONTRACTIONS.run(module, Context())
    assert site.status == "rewritten", site.reason
    assert [str(guard.expr) for guard in environment.guards] == guards
    x = torch.randn(GROUPS, 7, INPUTS)
    assert (
        relative(run(module, [v.detach() for v in held.values()], x), exact(function, held, x)) <= site.bound
    )


class Experts(nn.Module):
    """Two sets of experts, and an adapter to one of them."""

    def __init__(self):
        super().__init__()
        held = weights()
        for name in ("a", "b", "down", "up"):
            self.register_parameter(name, held[name])

    def forward(self, x):
        return torch.relu(x @ self.a + torch.bmm(x, self.b) + torch.bmm(torch.bmm(x, self.down), self.up))


def test_through_optimize_with_gradients():
    model = Experts().eval()
    x = torch.randn(GROUPS, ROWS, INPUTS)
    fast = stonefx.optimize(model, x)
    (total,) = fast.report.sites
    assert total.status == "rewritten"
    assert total.source.partition(":")[0].endswith("test_linear_contraction_sums.py")
    wide = Experts().double()
    torch.testing.assert_close(fast(x).double(), wide(x.double()), rtol=1e-5, atol=1e-5)
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(fast(leaf).square().sum(), leaf)
    truth = x.double().requires_grad_()
    (expected,) = torch.autograd.grad(wide(truth).square().sum(), truth)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)


def test_through_compile_the_weights_stay_fresh():
    model, x = Experts().eval(), torch.randn(GROUPS, ROWS, INPUTS)
    fresh = torch.compile(model, backend="stone")
    with torch.no_grad():
        torch.testing.assert_close(fresh(x), model(x), rtol=1e-5, atol=1e-4)
        model.b.mul_(2)
        torch.testing.assert_close(fresh(x), model(x), rtol=1e-5, atol=1e-4)
