"""torch's own databases of modules and operators through both doors, against eager.

They need expecttest, as torch's tests do, and take about half an hour:

    python -m pytest tests/doors/test_torch_databases.py -m slow
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

pytest.importorskip("expecttest")
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import stonefx

pytestmark = pytest.mark.slow

# Samples of each operator: more are of the same kinds.
FIRST = 3
# Modules whose layers are merged, or whose fast paths depend on gradients: theirs are compared in evaluation, too.
LEARNING = [
    info for info in module_db if any(name in info.name for name in ("Linear", "Attention", "Transformer"))
]


def copied(value: Any) -> Any:
    """A value whose tensors are copies; those that a call writes to are then its own."""
    return tree_map_only(torch.Tensor, lambda tensor: tensor.detach().clone(), value)


def outcome(function: Callable[..., Any], args: Any, kwargs: Any, learns: bool = False) -> Any:
    """What a call gives, random numbers and all, or the exception that it raises.

    A module in training gives the gradients of its parameters, too; with `learns` in any mode, and those of its inputs.
    """
    torch.manual_seed(0)
    args, kwargs = copied((args, kwargs))
    parameters = list(function.parameters()) if isinstance(function, nn.Module) else []
    if learns:
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        parameters += [value.requires_grad_() for value in inputs if value.is_floating_point()]
    learns = bool(parameters) and (learns or function.training)  # type: ignore[attr-defined]
    with warnings.catch_warnings(), torch.set_grad_enabled(learns):
        warnings.simplefilter("ignore")
        try:
            result = function(*args, **kwargs)
            if not learns:
                return result
            loss = sum(
                (value.square().sum() for value in tree_leaves(result) if is_differentiable(value)),
                start=torch.zeros(()),
            )
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            return result, [parameter.grad for parameter in parameters]
        except Exception as error:
            return error


def is_differentiable(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def compiled(function: Callable[..., Any], backend: str, **options: Any) -> Callable[..., Any]:
    torch.compiler.reset()
    if isinstance(function, nn.Module):
        return torch.compile(function, backend=backend, **options)
    # An operator, which may be written in C, is called by a function that Dynamo can read.
    return torch.compile(lambda *args, **kwargs: function(*args, **kwargs), backend=backend, **options)


class Calls(nn.Module):
    """A module that calls a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def optimized(function: Callable[..., Any], args: Any, kwargs: Any) -> Callable[..., Any]:
    """What `stonefx.optimize` makes of a module or function for such calls; with `on_error="raise"`, its default."""
    model = function if isinstance(function, nn.Module) else Calls(function).eval()
    args, kwargs = copied((args, kwargs))
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # No two ways of giving an example take both kinds of arguments.
        if kwargs and args:
            fast = stonefx.optimize(model)
            fast(*args, **kwargs)
            return fast
        return stonefx.optimize(model, kwargs or args)


def compare(
    make: Callable[[], Callable[..., Any]], args: Any, kwargs: Any, door: str, learns: bool = False
) -> None:
    """Check that calls of what `make` makes anew give through stonefx what they give in eager, see `outcome`."""
    expected = outcome(make(), args, kwargs, learns)
    if isinstance(expected, Exception):
        return
    again = outcome(make(), args, kwargs, learns)
    if door == "optimize":
        if _uninitialized(make()):
            return
        found = outcome(optimized(make(), args, kwargs), args, kwargs, learns)
        assert not isinstance(found, Exception), f"stonefx raised {type(found).__name__}: {found}"
    else:
        found = outcome(compiled(make(), "stone", options={"inner": "eager"}), args, kwargs, learns)
    if isinstance(found, Exception):
        other = outcome(compiled(make(), "eager"), args, kwargs, learns)
        # What Dynamo does not run without any backend is no matter of this one.
        assert isinstance(other, Exception), f"stonefx raised {type(found).__name__}: {found}"
        return
    ones, others = tree_leaves(expected), tree_leaves(found)
    assert len(ones) == len(others)
    for one, twin, other in zip(ones, tree_leaves(again), others, strict=True):
        assert type(one) is type(other)
        if not isinstance(one, torch.Tensor):
            assert one == other or one != twin
            continue
        assert (one.shape, one.dtype, one.layout) == (other.shape, other.dtype, other.layout)
        if same(one, twin):  # else it is what lay in the memory, as of `empty`
            assert same(one, other), f"{one} is expected, {other} came"


def _uninitialized(function: Any) -> bool:
    """Whether an operator gives memory as it lies, which no two calls agree on."""
    return "empty" in str(getattr(function, "name", getattr(function, "__name__", "")))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors agree up to rounding."""
    try:
        torch.testing.assert_close(other.detach(), one.detach(), equal_nan=True, check_stride=False)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("door", ["compile", "optimize"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("info", module_db, ids=lambda info: info.name)
def test_modules(info: Any, training: bool, door: str) -> None:
    check_module(info, training, door)


@pytest.mark.parametrize("door", ["compile", "optimize"])
@pytest.mark.parametrize("info", LEARNING, ids=lambda info: info.name)
def test_gradients_in_evaluation(info: Any, door: str) -> None:
    check_module(info, False, door, learns=True)


def check_module(info: Any, training: bool, door: str, learns: bool = False) -> None:
    torch.manual_seed(0)
    samples = info.module_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
    )
    for sample in samples:
        torch.manual_seed(0)
        made = sample.constructor_input
        module = info.module_cls(*made.args, **made.kwargs).to(torch.float32).train(training)
        given = sample.forward_input
        compare(partial(copy.deepcopy, module), given.args, given.kwargs, door, learns)


@pytest.mark.parametrize("door", ["compile", "optimize"])
@pytest.mark.parametrize("info", op_db, ids=lambda info: info.formatted_name)
def test_operators(info: Any, door: str) -> None:
    if torch.float32 not in info.supported_dtypes("cpu"):
        pytest.skip("not of float32")
    torch.manual_seed(0)
    for sample in itertools.islice(info.sample_inputs("cpu", torch.float32), FIRST):
        compare(lambda: info.op, (sample.input, *sample.args), sample.kwargs, door)
