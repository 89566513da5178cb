"""Random chains, in random spellings, keep their float64 value within the stated bound."""

import torch
from graphs import counts, run, trace
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import stonefx.ops  # noqa: F401  (registers stone::low_rank_linear)
from stonefx.passes.linear import LINEAR_CHAINS
from stonefx.passes.lower import LOWER
from stonefx.passes.normalize import NORMALIZE
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier

PRODUCTS = {
    "linear": lambda x, weight, bias: F.linear(x, weight, bias),
    "matmul": lambda x, weight, bias: plus(x @ weight.T, bias),
    "einsum": lambda x, weight, bias: plus(torch.einsum("...i,oi->...o", x, weight), bias),
    "addmm": lambda x, weight, bias: (
        torch.addmm(bias, x, weight.t()) if x.dim() == 2 and bias is not None else F.linear(x, weight, bias)
    ),
    "bias first": lambda x, weight, bias: F.linear(x, weight) if bias is None else bias + F.linear(x, weight),
}
BETWEEN = {
    "nothing": lambda x: x,
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "half": lambda x: x * 0.5,
    "shift": lambda x: x - 1,
    "flatten": lambda x: x.flatten(0, -2) if x.dim() > 1 else x,
    "unsqueeze": lambda x: x.unsqueeze(0),
    "reshape": lambda x: x.reshape(1, -1, x.shape[-1]),
    "clone": lambda x: x.clone(),
}
layers = st.tuples(
    st.integers(1, 40), st.booleans(), st.sampled_from(sorted(PRODUCTS)), st.sampled_from(sorted(BETWEEN))
)


def plus(value, bias):
    return value if bias is None else value + bias


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    inputs=st.integers(1, 40),
    chain=st.lists(layers, min_size=2, max_size=5),
    lead=st.lists(st.integers(2, 4), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    dynamic=st.booleans(),
    inner=st.sampled_from(["eager", "inductor"]),
)
def test_random_chains(inputs, chain, lead, dtype, dynamic, inner):
    generator = torch.Generator().manual_seed(0)
    weights, width = {}, inputs
    for index, (outputs, biased, _, _) in enumerate(chain):
        weights[f"{index}.weight"] = torch.randn(outputs, width, generator=generator, dtype=dtype)
        if biased:
            weights[f"{index}.bias"] = torch.randn(outputs, generator=generator, dtype=dtype)
        width = outputs

    def function(w, x):
        held = w if isinstance(w, dict) else vars(w)
        for index, (_, _, product, between) in enumerate(chain):
            x = BETWEEN[between](x) if index else x
            x = PRODUCTS[product](x, held[f"{index}.weight"], held.get(f"{index}.bias"))
        return x

    x = torch.randn(*lead, inputs, generator=generator, dtype=dtype)
    module = trace(function, x, weights=weights, dynamic=dynamic)
    before = trace(function, x, weights=weights, dynamic=dynamic)
    context = Context(inner=inner)
    NORMALIZE.run(module, context)
    NORMALIZE.run(before, context)
    sites = LINEAR_CHAINS.run(module, context)
    # A view of features of width 1 may be read as one of rows, which ends the chain and may begin another.
    whole = [each for each in sites if each.code != "single_feature"]
    assert len(whole) == 1 or len(whole) < len(sites)
    values = {node.name: weights[node.meta["weight"]] for node in before.graph.nodes if "weight" in node.meta}
    assert Verifier(values).failures(before, module, sites) == {}
    LOWER.run(module, context)
    exact = function({name: value.double() for name, value in weights.items()}, x.double())
    result = run(module, list(weights.values()), x)
    assert result.shape == exact.shape
    assert result.dtype == dtype
    bound = sum(each.bound or 0.0 for each in sites) or 64 * len(chain) * torch.finfo(dtype).eps
    assert (result - exact).abs().max() <= bound * exact.abs().max()
    if any(each.status == "rewritten" for each in sites):
        operators = counts(module)
        calls = operators.get("linear", 0) + operators.get("low_rank_linear_forward", 0)
        assert calls < len(chain) + (inner == "inductor")
