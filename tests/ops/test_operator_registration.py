"""Every operator passes torch's own checks, as the operator, its twin and its backward."""

import pytest
import torch
from operator_cases import LOW_RANK, NAMES, arguments, overload, requiring, without_bias
from torch.library import opcheck

import stonefx.ops  # noqa: F401

GUARDS = {
    "expmap0": {"min_norm": 1e-5, "norm_offset": 1e-3, "tanh_limit": 15.0},
    "logmap0": {"square_offset": 1e-6, "min_scaled": 1e-5, "atanh_limit": 0.999},
    "mobius_add": {"min_denominator": 1e-15, "denominator_offset": 1e-5, "max_radius": 0.5},
    "low_rank_linear": {},
    "pifa_linear": {},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("guarded", [False, True], ids=["plain", "guarded"])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name, guarded, dtype):
    options = GUARDS[name] if guarded else {}
    args = arguments(name, dtype)
    opcheck(overload(name), requiring(args), options)
    opcheck(overload(f"{name}_forward"), args, options)
    result = overload(name)(*args, **options)
    backward_args = (torch.randn_like(result), *without_bias(name, args))
    opcheck(overload(f"{name}_backward"), requiring(backward_args), options)


@pytest.mark.parametrize("name", LOW_RANK)
def test_opcheck_without_bias(name):
    args = without_bias(name, arguments(name))
    opcheck(overload(name), requiring(args))
    grad = torch.randn(5, 6, dtype=torch.float64)
    opcheck(overload(f"{name}_backward"), (grad, *args), {"has_bias": False})


@pytest.mark.parametrize("suffix", ["", "_forward", "_backward"])
@pytest.mark.parametrize("name", NAMES)
def test_tags(name, suffix):
    tags = overload(f"{name}{suffix}").tags
    assert torch.Tag.pt2_compliant_tag in tags
    assert torch.Tag.needs_contiguous_strides in tags


@pytest.mark.parametrize("name", NAMES)
def test_twin_has_the_same_schema(name):
    operator, twin = str(overload(name)._schema), str(overload(f"{name}_forward")._schema)
    assert twin == operator.replace(f"stone::{name}(", f"stone::{name}_forward(")
