"""A carry is taken below a map that adds a constant: `T(W x + b) = W T(x) + b T(1)`."""

import pytest
import torch
from carry_models import CARRIES, Between, Carry, mask
from graphs import counts, run
from test_carries import check_rewritten, made, traced
from torch import nn

import stonefx
from stonefx.passes.linear import LINEAR_CHAINS
from stonefx.passes.linear.algebra.simplify import with_moves_first
from stonefx.passes.linear.plan import decide
from stonefx.passes.site import Context

# Those of the battery that make something else of a constant; a carry is not taken below a view.
ALONG = [
    name
    for name in CARRIES
    if name
    not in {
        *(
            "mean",
            "mean that keeps the axis",
            "roll",
            "flip",
            "repeat_interleave",
            "windows",
            "adaptive pooling",
        ),
        *(
            "pooling",
            "interpolation",
            "nearest",
            "bilinear",
            "index_select",
            "index",
            "two indices",
            "gather",
        ),
        *("pixel shuffle of other axes", "pixel unshuffle of other axes", "channel shuffle of another axis"),
        *(
            "pooling that counts its padding",
            "sampling on a grid",
            "transposed from the right",
            "table at run time",
        ),
    }
]


@pytest.fixture
def sunk(monkeypatch):
    """Every carry is taken below every map that it can be taken below, whatever that costs."""

    def variants(tree):
        yield with_moves_first(tree, True, True) or with_moves_first(tree, True) or tree

    monkeypatch.setattr(decide, "_variants", variants)
    monkeypatch.setattr(decide.Decision, "gains_despite", lambda decision, more: True)


@pytest.mark.parametrize("name", ALONG)
def test_the_constant_follows_the_carry(name, sunk):
    # Every other one is taken on below the maps again, where these are narrower: the constants stay above it.
    outputs = 20 if ALONG.index(name) % 2 else 4
    model, inputs = made(name, torch.float64, outputs=outputs)
    model.requires_grad_(False)
    module = check_rewritten(model, inputs, ALONG.index(name) % 4 > 1, "addcmul")
    inputs = [each.requires_grad_() if each.is_floating_point() else each for each in inputs]
    wanted = [each for each in inputs if each.requires_grad]
    expected = torch.autograd.grad(model(*inputs).sin().sum(), wanted, allow_unused=True)
    found = torch.autograd.grad(module(*model.parameters(), *inputs).sin().sum(), wanted, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["mean", "index", "interpolation"])
def test_a_constant_that_stays_the_same_is_added_once(name, sunk):
    model, inputs = made(name, outputs=20)
    module = traced(model, inputs, True)
    LINEAR_CHAINS.run(module, Context())
    assert "addcmul" not in counts(module)


class Pooled(nn.Module):
    """A map of many tokens, pooled by something computed at run time."""

    def __init__(self, pool):
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 256), nn.Linear(256, 64)
        self.pool = pool

    def forward(self, x, scores):
        return self.outer(self.pool(self.inner(x), scores))


POOLS = {
    "attentive": lambda h, s: (s.softmax(1).unsqueeze(1) @ h).squeeze(1),
    "weights that do not add up to 1": lambda h, s: torch.einsum("bn,bnf->bf", s, h),
    "masked mean": lambda h, s: (h * (s > 0).to(h).unsqueeze(-1)).sum(1) / (s > 0).to(h).sum(1, keepdim=True),
    "masked, filled": lambda h, s: h.masked_fill((s < 0).unsqueeze(-1), 0.0).sum(1),
    "a sum": lambda h, s: h.sum(1),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling_comes_before_the_map(name):
    torch.manual_seed(0)
    model = Pooled(POOLS[name]).eval()
    fast = stonefx.optimize(model, (torch.randn(4, 200, 64), torch.randn(4, 200)), machine="default")
    (site,) = fast.report.rewritten("linear_chain")
    assert site.flops_after <= 2 * 4 * 64 * 64, site.reason  # the map is of one row an example
    for batch in (0, 2, 7):
        x, scores = torch.randn(batch, 200, 64), torch.randn(batch, 200)
        with torch.no_grad():
            exact = Pooled(POOLS[name]).eval().double()
            exact.load_state_dict(model.state_dict())
            want = exact(x.double(), scores.double())
            error = (fast(x, scores) - want).abs().max() if batch else 0.0
            own = (model(x, scores) - want).abs().max() if batch else 0.0
        assert error <= 4 * own + 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_in_half_precision_the_constant_stays_with_its_map(dtype, sunk):
    model, inputs = made("attention weights", dtype)
    module = traced(model, inputs, False)
    LINEAR_CHAINS.run(module, Context())
    assert "addcmul" not in counts(module)


def test_several_carries_in_a_row(sunk):
    carry = Carry(
        lambda h, a, m: (a @ (a @ (h * m.unsqueeze(-1)))).cumsum(1),
        (3, 20),
        lambda: (torch.rand(20, 20) / 20, mask(3, 20)),
    )
    torch.manual_seed(0)
    model = nn.Sequential(Between(carry, outputs=20)).double().eval()
    inputs = [torch.randn(3, 20, 16).double(), *(each.double() for each in carry.beside())]
    module = traced(model[0], inputs, False)
    LINEAR_CHAINS.run(module, Context())
    assert counts(module)["addcmul"] == 1 and counts(module)["linear"] == 1
    torch.testing.assert_close(run(module, model[0], *inputs), model[0](*inputs).detach())


def test_constants_on_both_sides_of_a_carry(sunk):
    """Two maps with constants, a carry below both: each constant varies with what was taken below its map."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 24), nn.Linear(24, 30), nn.Linear(30, 36)

        def forward(self, x, p, q):
            return self.c(q @ (self.b(p @ self.a(x)) + 0.5)) * 3

    torch.manual_seed(0)
    model = Twice().double().eval()
    inputs = [torch.randn(2, 7, 4).double(), torch.randn(2, 5, 7).double(), torch.randn(2, 3, 5).double()]
    module = traced(model, inputs, False)
    LINEAR_CHAINS.run(module, Context())
    assert counts(module)["addcmul"] == 2, module.code
    torch.testing.assert_close(run(module, model, *inputs), model(*inputs).detach())
