"""Folds of weights that stay in a model, as values that gradients pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx


class _Following(torch.autograd.Function):
    """Known values of folds going forward; going back the folds are computed, with their gradients."""

    @staticmethod
    def forward(ctx: Any, folds: fx.GraphModule, values: Sequence[Tensor], *weights: Tensor) -> Any:
        ctx.folds = folds
        ctx.save_for_backward(*weights)
        # Tensors of their own: the ones that are kept must not get a history.
        return tuple(value.detach() for value in values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        weights, further = ctx.saved_tensors, torch.is_grad_enabled()
        wanted = [weight for weight, needed in zip(weights, ctx.needs_input_grad[2:], strict=True) if needed]
        with torch.enable_grad():
            values = [
                (value, grad)
                for value, grad in zip(ctx.folds(*weights), grads, strict=True)
                if value.requires_grad
            ]
            found = iter(
                torch.autograd.grad(
                    [value for value, _ in values],
                    wanted,
                    [grad for _, grad in values],
                    create_graph=further,
                    allow_unused=True,
                )
            )
        return None, None, *(next(found) if needed else None for needed in ctx.needs_input_grad[2:])


def following(
    folds: fx.GraphModule, values: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The values of folds, whose gradients are those of the weights that they were computed from.

    Args:
        folds: the graph that computes them.
        values: what it gives for these weights.
        weights: in the order of its placeholders.
    """
    result: tuple[Tensor, ...] = _Following.apply(folds, values, *weights)
    return result
