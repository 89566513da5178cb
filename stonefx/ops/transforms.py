"""`torch.func` over the operators: `grad`, `vjp`, `jacrev`, `jvp`, `jacfwd` and `vmap`, nested in any order.

What `autograd.register` attaches is for `backward` alone, and transforms refuse it. While one is active, a call goes
through a `torch.autograd.Function` made of the same parts instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._library.utils import fill_defaults

from .autograd import save


def register(
    library: torch.library.Library,
    name: str,
    twin: str,
    backward: Callable[..., Any],
    vmap: Callable[..., Any],
    reference: Callable[..., Any],
) -> None:
    """Send calls of `stone::name` under a transform through an autograd function.

    Args:
        library: where the operator is defined.
        name: the operator.
        twin: an operator with the same schema and kernels; it runs below the transforms.
        backward: as for `autograd.register`.
        vmap: `(operator, info, in_dims, *args, **kwargs) -> (results, out_dims)`.
        reference: the operator in plain torch; what forward-mode derivatives go through.
    """
    operator = getattr(torch.ops.stone, name).default
    below = getattr(torch.ops.stone, twin).default

    class Transformed(torch.autograd.Function):
        @staticmethod
        def forward(options: dict[str, Any], *args: Any) -> Any:
            return below(*args, **options)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            options, *args = inputs
            save(ctx, tuple(args), options)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
            return None, *backward(_Operands(ctx), *grads)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], options: dict[str, Any], *args: Any) -> Any:
            return vmap(operator, info, in_dims[1:], *args, **options)

    Transformed.__name__ = Transformed.__qualname__ = f"Transformed_{name}"

    def run(*args: Any, **options: Any) -> Any:
        if torch.autograd.forward_ad._current_level >= 0:
            return reference(*args, **options)
        args, options = fill_defaults(operator._schema, args, options)
        return Transformed.apply(options, *args)

    library.impl(name, run, "FuncTorchDynamicLayerFrontMode")


class _Operands:
    """The context of the function as the operator's backward knows it: without the options in front."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        return self._ctx.needs_input_grad[1:]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)
