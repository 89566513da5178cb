"""The `stone` operator library: how an operator, its `_forward` twin and its `_backward` are registered."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._C import DispatchKey, DispatchKeySet

from stonefx import native

from . import autograd, batching, sharding, transforms

LIBRARY = torch.library.Library("stone", "DEF")
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_contiguous_strides)
# The schema language cannot spell infinity; a limit this large never takes effect.
NO_LIMIT = 1e308

Function = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Everything that makes `stone::name`, `stone::name_forward` and `stone::name_backward`.

    Args:
        name: such as `expmap0`.
        arguments: the schema between the parentheses, shared by the operator and its twin.
        backward_arguments, backward_results: the schema of `name_backward`.
        reference: the operator in plain torch, differentiable, in the dtype it is given.
        backward_reference: `name_backward` in plain torch, differentiable.
        fake, backward_fake: check the arguments and return empty tensors of the result's shape.
        backward: as for `autograd.register`; None where `name_backward` takes the gradient, the operands and the
            options, and gives a gradient for each operand, which is then summed over what broadcasting repeated.
        vmap, backward_vmap: `(operator, info, in_dims, *args, **kwargs) -> (results, out_dims)`.
        dimensions: which of them may be split over processes.
    """

    name: str
    arguments: str
    backward_arguments: str
    backward_results: str
    reference: Function
    backward_reference: Function
    fake: Function
    backward_fake: Function
    vmap: Function
    backward_vmap: Function
    dimensions: sharding.Dimensions
    backward: Function | None = None


_declared: dict[str, Operator] = {}
_recorded: dict[str, Function] = {}


def declare(operator: Operator) -> None:
    """Define the three operators with their fakes, gradients, batching and sharding rules; kernels come from `load`."""
    name = operator.name
    forward_twin, backward_twin = f"{name}_forward", f"{name}_backward"
    for each in (name, forward_twin):
        LIBRARY.define(f"{each}({operator.arguments}) -> Tensor", tags=TAGS)
        _register(each, operator.fake, operator.vmap)
    LIBRARY.define(
        f"{backward_twin}({operator.backward_arguments}) -> {operator.backward_results}", tags=TAGS
    )
    _register(backward_twin, operator.backward_fake, operator.backward_vmap)
    backward = operator.backward or _by_operand(backward_twin)
    double = _double_backward(operator.backward_reference)
    _recorded[name] = autograd.register(LIBRARY, name, forward_twin, backward, operator.reference)
    autograd.register(LIBRARY, backward_twin, backward_twin, double, operator.backward_reference)
    transforms.register(LIBRARY, name, forward_twin, backward, operator.vmap, operator.reference)
    transforms.register(
        LIBRARY, backward_twin, backward_twin, double, operator.backward_vmap, operator.backward_reference
    )
    sharding.register(name, operator.dimensions)
    _declared[name] = operator


def gives_each_gradient(name: str) -> bool:
    """Whether `stone::name_backward` gives a gradient for each operand, as `Operator.backward` says."""
    return _declared[name].backward is None


def recorded(name: str) -> Function:
    """`stone::name` for a call in eager mode whose gradient is wanted, without the dispatcher's part in it."""
    return _recorded[name]


def declare_composite(name: str, arguments: str, function: Callable[[str], Function]) -> None:
    """Define an operator that is others in a row, and its twin; gradient, batching and fake are theirs.

    Args:
        name: such as `poincare_linear`.
        arguments: the schema between the parentheses.
        function: given the suffix, "" or "_forward", of the operators to call, what to run.
    """
    for suffix in ("", "_forward"):
        LIBRARY.define(f"{name}{suffix}({arguments}) -> Tensor", tags=TAGS)
        implement_composite(f"{name}{suffix}", function(suffix))


def implement_composite(name: str, function: Function) -> None:
    """Make a defined operator the operators that `function` calls, under the transforms of `torch.func` too."""
    for key in ("CompositeImplicitAutograd", "FuncTorchDynamicLayerFrontMode"):
        LIBRARY.impl(name, function, key)


def _register(name: str, fake: Function, vmap: Function) -> None:
    torch.library.register_fake(f"stone::{name}", fake, lib=LIBRARY)

    def batched(info: Any, in_dims: Any, *args: Any, **kwargs: Any) -> Any:
        return vmap(getattr(torch.ops.stone, name).default, info, in_dims, *args, **kwargs)

    torch.library.register_vmap(f"stone::{name}", batched, lib=LIBRARY)


def _by_operand(backward_twin: str) -> Function:
    differentiate = getattr(torch.ops.stone, backward_twin).default

    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        operands = ctx.saved_tensors
        grads = differentiate(grad, *operands, **ctx.options)
        return tuple(
            batching.sum_to(gradient, like) if wanted else None
            for gradient, like, wanted in zip(grads, operands, ctx.needs_input_grad, strict=True)
        )

    return backward


def _double_backward(backward_reference: Function) -> Function:
    """Differentiate `name_backward` through its reference: a second derivative is rare, and may be slow."""

    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors

        # An operand that was left out is None, and integers have no gradient.
        floating = [t is not None and t.is_floating_point() for t in saved]

        def function(*tensors: torch.Tensor) -> Any:
            given = iter(tensors)
            operands = (next(given) if each else t for each, t in zip(floating, saved, strict=True))
            return backward_reference(*operands, **ctx.options)

        varied = [t for each, t in zip(floating, saved, strict=True) if each]
        pulled = iter(torch.func.vjp(function, *varied)[1](grads))
        gradients = [next(pulled) if each else None for each in floating]
        return tuple(g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad, strict=True))

    return backward


def load() -> None:
    """Load the native kernels; where they are missing, register the references and warn once.

    The references run the same formula in plain torch: right, and several times slower.
    """
    status = native.load()
    if not status.cpu.loaded:
        _fall_back("CPU")
        warnings.warn(
            f"stonefx runs its operators in plain torch on the CPU: {status.cpu.reason}. {status.cpu.remedy}.",
            RuntimeWarning,
            stacklevel=2,
        )
    if not status.cuda.loaded and torch.cuda.is_available():
        _fall_back("CUDA")
        warnings.warn(
            f"stonefx runs its operators in plain torch on CUDA: {status.cuda.reason}. {status.cuda.remedy}.",
            RuntimeWarning,
            stacklevel=2,
        )


def _fall_back(key: str) -> None:
    for name, operator in _declared.items():
        forward = _checked(operator.fake, operator.reference)
        LIBRARY.impl(name, forward, key)
        LIBRARY.impl(f"{name}_forward", forward, key)
        LIBRARY.impl(f"{name}_backward", _checked(operator.backward_fake, operator.backward_reference), key)


def _checked(fake: Function, reference: Function) -> Function:
    def run(*args: Any, **kwargs: Any) -> Any:
        fake(*args, **kwargs)
        result = reference(*args, **kwargs)
        return tuple(r.contiguous() for r in result) if isinstance(result, tuple) else result.contiguous()

    return run


def cast_by_autocast(name: str) -> None:
    """Make autocast treat `stone::name` and its twin as it treats `aten::linear`: it casts every floating operand but
    float64 to its dtype.
    """
    for each in (name, f"{name}_forward"):
        for device_type in ("cpu", "cuda"):
            _cast_by_autocast(each, device_type)


def _cast_by_autocast(name: str, device_type: str) -> None:
    operator = getattr(torch.ops.stone, name).default

    def cast(*operands: torch.Tensor | None) -> torch.Tensor:
        dtype = torch.get_autocast_dtype(device_type)
        cast_operands = [
            t.to(dtype) if t is not None and t.is_floating_point() and t.dtype != torch.float64 else t
            for t in operands
        ]
        with below_autocast(device_type):
            return operator(*cast_operands)

    LIBRARY.impl(name, cast, f"Autocast{device_type.upper()}")


def below_autocast(device_type: str) -> Any:
    """A guard under which the dispatcher skips autocast for `device_type` ("cpu" or "cuda")."""
    key = DispatchKey.AutocastCPU if device_type == "cpu" else DispatchKey.AutocastCUDA
    return torch._C._ExcludeDispatchKeyGuard(DispatchKeySet(key))
