"""The text of every error, the same from the kernel and from the fake."""

import re

import pytest
import torch
from operator_cases import NAMES, ROW_MAPS, arguments, overload, without_bias
from torch._subclasses.fake_tensor import FakeTensorMode

from stonefx import ops

ONE = torch.tensor(1.0)


def f(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


PIFA = (
    "stone::pifa_linear: expected x [*batch, in], pivot [rank, in], interpolation [out - rank, rank], index [out] and "
    "bias [out], got "
)
FACTORED = "stonefx.nn.PifaLinear.from_factors makes them of a factored weight"
CASES = [
    (
        "expmap0",
        (f(2, 3, dtype=torch.int64), ONE),
        "stone::expmap0: x must be float32, float64, bfloat16 or float16, got int64; convert it, for instance with "
        "x.float()",
    ),
    (
        "logmap0",
        (f(2, dtype=torch.complex64), ONE),
        "stone::logmap0: y must be float32, float64, bfloat16 or float16, got complex64; convert it, for instance "
        "with y.float()",
    ),
    (
        "expmap0",
        (f(), ONE),
        "stone::expmap0: x must be [*batch, dim] with at least one dimension, got a 0-dim tensor; use "
        "x.unsqueeze(-1)",
    ),
    (
        "expmap0",
        (f(2, 3), torch.tensor(1)),
        "stone::expmap0: c must be float32, float64, bfloat16 or float16, got int64; convert it, for instance with "
        "c.float()",
    ),
    (
        "expmap0",
        (f(8, 3), f(8)),
        "stone::expmap0: c must be 0-dim or broadcast to [*batch, 1] = [8, 1], got [8]; a curvature for each row "
        "needs a last dimension of 1: c.unsqueeze(-1)",
    ),
    (
        "logmap0",
        (f(8, 3), f(4, 1)),
        "stone::logmap0: c must be 0-dim or broadcast to [*batch, 1] = [8, 1], got [4, 1]; a curvature for each row "
        "needs a last dimension of 1: c.unsqueeze(-1)",
    ),
    (
        "logmap0",
        (f(3), f(4, 1)),
        "stone::logmap0: c must be 0-dim or broadcast to [*batch, 1] = [1], got [4, 1]; a curvature for each row "
        "needs a last dimension of 1: c.unsqueeze(-1)",
    ),
    (
        "mobius_add",
        (f(2, 3), f(2, 3, dtype=torch.float64), ONE),
        "stone::mobius_add: x and y must have one dtype, got float32 and float64; convert one of them with .to()",
    ),
    (
        "mobius_add",
        (f(2, 3), f(2, 4), ONE),
        "stone::mobius_add: x and y must have one last dimension and batch dimensions that broadcast, got [2, 3] and "
        "[2, 4]; reshape or unsqueeze one of them",
    ),
    (
        "mobius_add",
        (f(2, 3), f(5, 3), ONE),
        "stone::mobius_add: x and y must have one last dimension and batch dimensions that broadcast, got [2, 3] and "
        "[5, 3]; reshape or unsqueeze one of them",
    ),
    (
        "low_rank_linear",
        (f(2, 8), f(3, 7), f(6, 3), None),
        "stone::low_rank_linear: expected x [*batch, in], a [rank, in], b [out, rank] and bias [out], got [2, 8], "
        "[3, 7], [6, 3] and none; a and b are laid out as nn.Linear.weight is",
    ),
    (
        "low_rank_linear",
        (f(2, 8), f(3, 8), f(6, 3), f(5)),
        "stone::low_rank_linear: expected x [*batch, in], a [rank, in], b [out, rank] and bias [out], got [2, 8], "
        "[3, 8], [6, 3] and [5]; a and b are laid out as nn.Linear.weight is",
    ),
    (
        "low_rank_linear",
        (f(2, 8), f(3, 8, dtype=torch.bfloat16), f(6, 3), None),
        "stone::low_rank_linear: x and a must have one dtype, got float32 and bfloat16; convert one of them with "
        ".to()",
    ),
    (
        "pifa_linear",
        (f(2, 8), f(3, 8), f(3, 3), torch.arange(6), None),
        "stone::pifa_linear: index must be int32, got int64; convert it with index.int()",
    ),
    (
        "pifa_linear",
        (f(2, 8), f(3, 8), f(3, 3), torch.arange(5, dtype=torch.int32), f(6)),
        f"{PIFA}[2, 8], [3, 8], [3, 3], [5] and [6]; {FACTORED}",
    ),
    (
        "pifa_linear",
        (f(2, 8), f(3, 7), f(3, 3), torch.arange(6, dtype=torch.int32), None),
        f"{PIFA}[2, 8], [3, 7], [3, 3], [6] and none; {FACTORED}",
    ),
    (
        "pifa_linear",
        (f(2, 8), f(3, 8), f(3, 3, dtype=torch.float64), torch.arange(6, dtype=torch.int32), None),
        "stone::pifa_linear: x and interpolation must have one dtype, got float32 and float64; convert one of them "
        "with .to()",
    ),
]


@pytest.mark.parametrize(("name", "args", "message"), CASES)
def test_messages_of_kernel_and_fake(name, args, message):
    exact = "^" + re.escape(message) + "$"
    for suffix in ("", "_forward"):
        with pytest.raises(RuntimeError, match=exact):
            overload(name + suffix)(*args)
    with FakeTensorMode() as mode, pytest.raises(RuntimeError, match=re.escape(message)):
        overload(name)(*(None if a is None else mode.from_tensor(a) for a in args))


@pytest.mark.parametrize("name", NAMES)
def test_devices_must_agree(name):
    args = list(arguments(name, torch.float32))
    args[1] = args[1].to("meta")
    labels = {"mobius_add": "x and y", "low_rank_linear": "x and a", "pifa_linear": "x and pivot"}.get(
        name, "x and c"
    )
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(RuntimeError) as caught:
        overload(name)(*args)
    assert f"stone::{name}: {labels} must be on one device, got cpu and meta; move one" in str(
        caught.value
    ) or ("found two different devices" in str(caught.value))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_another_shape(name):
    args = without_bias(name, arguments(name))
    message = f"stone::{name}_backward: grad must have the shape of the result, "
    with pytest.raises(RuntimeError, match=re.escape(message)):
        overload(f"{name}_backward")(torch.zeros(2, 2, dtype=torch.float64), *args)


@pytest.mark.parametrize("value", [-1.0, float("nan")])
@pytest.mark.parametrize("name", ROW_MAPS)
def test_guards_must_not_be_negative(name, value):
    message = f"stone::{name}: min_norm must be at least 0, got {value:g}; leave it out for none"
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        overload(name)(f(2, 3), ONE, min_norm=value)


@pytest.mark.parametrize("function", [ops.expmap0, ops.logmap0, lambda x, c: ops.mobius_add(x, x, c)])
@pytest.mark.parametrize("c", [0.0, -1.0, float("nan"), float("inf")])
def test_a_number_as_curvature_must_be_positive(function, c):
    with pytest.raises(ValueError, match=rf"the curvature c must be positive and finite, got {c}"):
        function(f(2, 3), c)
