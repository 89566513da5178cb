"""Gradients of operators, as `torch.library.register_autograd` attaches them, at a third of what its calls cost.

All operators save what they were given: the tensors, and in `ctx.options` the options that were not left at their
defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import _C
from torch.autograd import forward_ad

_BELOW = _C._AutoDispatchBelowAutograd
_AFTER = _C._after_autograd_keyset


def save(ctx: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Keep the arguments of a call for its backward."""
    ctx.save_for_backward(*inputs)
    ctx.options = options


def register(
    library: torch.library.Library,
    name: str,
    twin: str,
    backward: Callable[..., Any],
    reference: Callable[..., Any],
) -> Callable[..., Any]:
    """Record calls of `stone::name` that autograd must see; what is returned records a call without a dispatch.

    Args:
        library: where the operator is defined.
        name: the operator.
        twin: an operator with the same schema and kernels, of which autograd knows nothing.
        backward: `(ctx, *grads) -> gradients` of the positional arguments; `ctx.saved_tensors` are those, None for a
            tensor that was left out, `ctx.options` the others.
        reference: the operator in plain torch; what forward-mode derivatives go through.
    """
    operator = getattr(torch.ops.stone, name).default
    below = getattr(torch.ops.stone, twin).default
    positional = sum(not argument.kwarg_only for argument in operator._schema.arguments)

    class Recorded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            *inputs, (keyset, options) = args
            if keyset is None:
                result = below(*inputs, **options)
            else:
                with _BELOW():
                    result = operator.redispatch(keyset & _AFTER, *inputs, **options)
            # The dispatcher drops trailing arguments that are None.
            save(ctx, (*inputs, *[None] * (positional - len(inputs))), options)
            return result

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
            wanted = ctx.needs_input_grad
            ctx.needs_input_grad = wanted[:-1]
            try:
                if _C.is_grad_enabled():
                    gradients = backward(ctx, *grads)
                else:
                    with _BELOW():
                        gradients = backward(ctx, *grads)
                return *gradients[: len(wanted) - 1], None
            finally:
                ctx.needs_input_grad = wanted

    Recorded.__name__ = Recorded.__qualname__ = f"Recorded_{name}"

    def run(keyset: Any, *args: Any, **options: Any) -> Any:
        if forward_ad._current_level >= 0:
            return reference(*args, **options)
        if _C.is_grad_enabled() and _C._any_requires_grad(*args):
            return Recorded.apply(*args, (keyset, options))
        with _BELOW():
            return operator.redispatch(keyset & _AFTER, *args, **options)

    library.impl(name, run, "Autograd", with_keyset=True)

    def record(*args: Any, **options: Any) -> Any:
        return Recorded.apply(*args, (None, options))

    return record
