"""Maps around a masked mean are merged, however the mask comes to the shape of what it scales."""

import copy
import math

import pytest
import torch
from carry_models import WIDTH, Between, Carry
from graphs import counts, run
from test_carried_constants import Pooled
from test_carries import check_rewritten, exactly, relative, traced
from torch import nn

import stonefx
from stonefx.passes.linear import LINEAR_CHAINS
from stonefx.passes.site import Context

# A value, and its mask of whole numbers: the value, scaled by the mask.
SCALED = {
    "expanded to the shape": lambda t, m: t * m.unsqueeze(-1).expand(t.size()).float(),
    "the mask first": lambda t, m: m.unsqueeze(-1).expand(t.size()).to(t.dtype) * t,
    "expanded as the value": lambda t, m: t * m.unsqueeze(-1).expand_as(t).type_as(t),
    "expanded along the features alone": lambda t, m: t * m[..., None].expand(-1, -1, WIDTH).to(t),
    "broadcast": lambda t, m: t * torch.broadcast_to(m[..., None], t.shape),
    "viewed": lambda t, m: torch.multiply(t, m.view(*m.shape, 1).expand_as(t)),
    "repeated": lambda t, m: t * m[..., None].repeat(1, 1, t.shape[-1]).to(t.dtype),
    "tiled": lambda t, m: t * torch.tile(m[..., None], (1, 1, WIDTH)),
    "interleaved": lambda t, m: t * m[..., None].repeat_interleave(WIDTH, -1),
    "times ones": lambda t, m: t * (m[..., None] * torch.ones_like(t)),
    "added to zeros": lambda t, m: t * (torch.zeros(t.shape, dtype=t.dtype) + m[..., None]),
    "where": lambda t, m: torch.where(m.bool().unsqueeze(-1), t, 0),
    "where, expanded": lambda t, m: torch.where(m.bool()[..., None].expand_as(t), t, torch.zeros_like(t)),
    "filled": lambda t, m: t.masked_fill(~m.bool()[..., None].expand(t.shape), 0),
    "filled where equal": lambda t, m: t.masked_fill(m[..., None].expand(t.shape) == 0, 0.0),
    "channels first": lambda t, m: (t.mT * m.unsqueeze(1).expand(-1, WIDTH, -1).to(t)).mT,
    "channels first, repeated": lambda t, m: (t.mT * m.unsqueeze(1).repeat(1, WIDTH, 1)).mT,
    "weights by place": lambda t, m: (
        t
        * torch.ones_like(m).cumsum(1)[:1, :, None].expand(t.size()).to(t.dtype)
        * m.unsqueeze(-1).expand(t.size())
    ),
    "softmax of expanded scores": lambda t, m: (
        t * torch.where(m.bool()[..., None].expand_as(t), 0.0, -math.inf).to(t).softmax(1).nan_to_num(0.0)
    ),
}
# The sum, the value and the mask: the mean.
DIVIDED = {
    "clamped, expanded": lambda s, t, m: s / m.unsqueeze(-1).expand(t.size()).float().sum(1).clamp(min=1e-9),
    "a count": lambda s, t, m: s / m.sum(1, keepdim=True),
    "a count of the expanded": lambda s, t, m: s / m[..., None].expand_as(t).sum(1, dtype=t.dtype),
    "a count of what is true": lambda s, t, m: torch.true_divide(s, m.bool().sum(-1)[:, None]),
    "at least one": lambda s, t, m: torch.divide(s, m.sum(1, keepdim=True).clamp(min=1)),
    "the larger": lambda s, t, m: s / torch.maximum(m.sum(1, keepdim=True), torch.ones(1, dtype=torch.long)),
    "a root": lambda s, t, m: s / m[..., None].expand_as(t).to(t).sum(1).sqrt(),
    "a sum with a small number": lambda s, t, m: s / (m[..., None].expand_as(t).to(t).sum(1) + 1e-8),
    "an inverse": lambda s, t, m: s * m.sum(1, keepdim=True).to(t).reciprocal(),
    "a power": lambda s, t, m: s * m.sum(1, keepdim=True).to(t) ** -1,
    "expanded": lambda s, t, m: s / m.sum(1).view(-1, 1).expand_as(s),
    "a size": lambda s, t, m: s / t.shape[1],
}
FORMS = [
    *((scaled, list(DIVIDED)[place % len(DIVIDED)]) for place, scaled in enumerate(SCALED)),
    *(("expanded to the shape", divided) for divided in DIVIDED),
]


def pooled(form, batch=5, length=12, dtype=torch.float32, bias=True, **changed):
    """A masked mean between maps, a value and a mask."""
    scaled, divided = SCALED[form[0]], DIVIDED[form[1]]
    torch.manual_seed(0)
    carry = Carry(lambda t, m: divided(scaled(t, m).sum(1), t, m))
    model = Between(carry, bias=bias, **changed).eval().to(dtype)
    mask = (torch.arange(length) < torch.randint(1, length + 1, (batch, 1))).long()
    return model, [torch.randn(batch, length, 16, dtype=dtype), mask]


@pytest.mark.parametrize("place", range(len(FORMS)), ids=[" / ".join(form) for form in FORMS])
def test_the_maps_become_one(place):
    dtype = torch.float64 if place % 3 else torch.float32
    model, inputs = pooled(FORMS[place], 1 + place % 3 * 2, dtype=dtype, bias=place % 4 != 1)
    module = check_rewritten(model, inputs, bool(place % 2), "linear")
    if place % 5 == 0:
        x = inputs[0].requires_grad_()
        (expected,) = torch.autograd.grad(model.to(dtype)(x, inputs[1]).sin().sum(), x)
        (found,) = torch.autograd.grad(module(*model.parameters(), x, inputs[1]).sin().sum(), x)
        assert relative(found, expected.double()) < (1e-5 if dtype == torch.float32 else 1e-13)


class Widened(nn.Module):
    """Features, some of them twice: nothing that a map could be merged with."""

    def forward(self, x):
        return torch.cat([x, x[..., : WIDTH - 16]], -1).tanh()


@pytest.mark.parametrize("side", ["before", "behind", "both"])
@pytest.mark.parametrize("divided", ["clamped, expanded", "a count"])
def test_optimized_for_any_batch_and_masks_of_nothing(divided, side):
    model, inputs = pooled(("expanded to the shape", divided), 3)
    model.first = Widened() if side == "behind" else model.first
    model.second = nn.Identity() if side == "before" else model.second
    fast = stonefx.optimize(model, tuple(inputs))
    exact = copy.deepcopy(model).double()
    for batch in (1, 4, 0):
        x, mask = torch.randn(batch, 12, 16), torch.randint(0, 2, (batch, 12))
        mask[:2] = 0
        with torch.no_grad():
            want, got = exact(x.double(), mask), fast(x, mask)
        assert torch.equal(got.isfinite(), want.isfinite())
        torch.testing.assert_close(got.nan_to_num().double(), want.nan_to_num(), rtol=1e-5, atol=1e-5)


# What looks like it: factors that differ from feature to feature, or are drawn for each.
LOOK_ALIKES = {
    "a factor a feature": lambda t, m: t * (m[..., None].expand_as(t) * torch.arange(WIDTH)),
    "summed along the features": lambda t, m: t * m[..., None].expand_as(t).to(t).cumsum(-1),
    "drawn for each": lambda t, m: t * torch.bernoulli(m[..., None].expand_as(t).to(t) / 2),
    "of the value": lambda t, m: t * (m[..., None].expand_as(t) * t.sigmoid()),
    "repeated next to itself": lambda t, m: t * m[:, : t.shape[1]].repeat(1, 2)[..., :WIDTH].unsqueeze(1),
    "filled with one": lambda t, m: t.masked_fill(m[..., None].expand_as(t) == 0, 1.0),
    "with features of its own": lambda t, m: t * m[..., None].expand_as(t).mul(torch.arange(WIDTH) % 2),
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_keep_both_maps(name):
    torch.manual_seed(0)
    model = Between(Carry(lambda t, m: LOOK_ALIKES[name](t, m).sum(1))).eval()
    module = traced(model, [torch.randn(3, 12, 16), torch.randint(0, 2, (3, 12))], False)
    LINEAR_CHAINS.run(module, Context())
    assert counts(module)["linear"] == 2


def test_a_mask_that_is_changed_afterwards_is_read_as_it_was():
    def between(t, m):
        factor = m.unsqueeze(-1).expand(t.size()).to(t.dtype)
        m.zero_()
        return (t * factor).sum(1)

    torch.manual_seed(0)
    model = Between(Carry(between)).double().eval()
    inputs = [torch.randn(3, 12, 16).double(), torch.randint(0, 2, (3, 12))]
    module = traced(model, [each.clone() for each in inputs], False)
    sites = LINEAR_CHAINS.run(module, Context())
    assert {site.code for site in sites if site.status == "refused"} == {"input_changed"}
    want = model(inputs[0], inputs[1].clone())
    torch.testing.assert_close(run(module, model, inputs[0], inputs[1].clone()), want.detach())


def test_a_factor_without_gradient_gets_none():
    def between(t, s):
        with torch.no_grad():
            factor = s.unsqueeze(-1).expand(t.size()) * 2
        return (t * factor).sum(1)

    torch.manual_seed(0)
    model = Between(Carry(between)).double().eval().requires_grad_(False)
    x, s = torch.randn(3, 12, 16).double(), torch.randn(3, 12).double()
    module = traced(model, [x, s], False)
    (site,) = [site for site in LINEAR_CHAINS.run(module, Context()) if site.code == "gradient_mode"]
    assert "no_grad region" in site.reason


def long_model(sums, bias=True):
    """Many tokens, pooled by a weight each."""
    torch.manual_seed(0)
    model = Pooled(sums).eval()
    if not bias:
        model.inner.bias = model.outer.bias = None
    return model, [torch.randn(4, 200, 64), torch.randint(0, 2, (4, 200))]


SUMS = {
    "places before features": lambda t, m: (t * m[..., None]).sum(1),
    "kept": lambda t, m: (t * m[..., None].to(t)).sum(1, keepdim=True),
    "expanded": lambda t, m: (m[..., None].expand_as(t).to(t) * t).sum(-2),
    "one mask for all": lambda t, m: (t * m[:1, :, None]).sum(1),
    "a mask of fewer axes": lambda t, m: (t * m[0, :, None]).sum(1),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", SUMS)
def test_a_weighted_sum_is_one_product_before_the_map(name, bias):
    model, inputs = long_model(SUMS[name], bias)
    module = traced(model, inputs, name != "kept")
    (site,) = LINEAR_CHAINS.run(module, Context())
    assert counts(module)["linear"] == 1 and "matmul" in counts(module), site.reason
    assert site.flops_after <= 2 * 4 * 64 * 64  # the map is of one row an example
    own, found = model(*inputs).detach(), run(module, model, *inputs)
    broken = inputs[0].clone()
    broken[1, 7, 3], broken[2, 0, 5] = math.nan, math.inf
    with torch.no_grad():
        want = model(broken, inputs[1])
    assert torch.equal(run(module, model, broken, inputs[1]).isfinite(), want.isfinite())
    exact = exactly(model, inputs)
    assert found.shape == own.shape and relative(found, exact) <= max(site.bound, 4 * relative(own, exact))


NO_PRODUCTS = {
    "filled, which drops what is no number": lambda t, m: t.masked_fill(m[..., None] == 0, 0.0).sum(1),
    "divided": lambda t, m: (t / (1 + m[..., None])).sum(1),
    "one factor for all places": lambda t, m: (t * m[:, :1, None]).sum(1),
}


@pytest.mark.parametrize("name", NO_PRODUCTS)
def test_other_sums_stay_sums(name):
    model, inputs = long_model(NO_PRODUCTS[name], bias=False)
    module = traced(model, inputs, False)
    LINEAR_CHAINS.run(module, Context())
    assert "matmul" not in counts(module) and counts(module)["linear"] == 1
    torch.testing.assert_close(run(module, model, *inputs), model(*inputs).detach(), rtol=1e-4, atol=1e-4)
