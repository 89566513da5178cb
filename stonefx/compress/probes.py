"""Scalars of a model's result whose gradients show what its layers are sensitive to; no labels are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

KINDS = ("auto", "logits", "directions")


def resolve(kind: str, output: Any, metric: Any) -> str:
    """Which scalars to take: log-likelihoods of sampled results for logits, random directions for all else.

    A result counts as logits where the model calls it so, or where the metric is about the greatest entry.
    """
    if kind != "auto":
        return kind
    named = isinstance(getattr(output, "logits", None), Tensor)
    return "logits" if named or metric == "top1" else "directions"


def count(kind: str, y: Tensor) -> int:
    """How many probes a batch has: a sequence of logits has one a position already."""
    return 1 if kind == "logits" and y.dim() > 2 else 4


def scalar(kind: str, y: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
    """The sum over samples of one probe each.

    For logits `-log p(t)` with `t` drawn from the model's own distribution, so that the mean of the squared gradients
    is the Fisher information (Amari 1998). For other results `v . y / ||y||` with `v` drawn from the unit normal
    distribution, so that it is the information about the result's direction, whatever its length.
    """
    y = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y
    if kind == "logits":
        axis = 1 if y.dim() > 3 else y.dim() - 1
        logits = y.movedim(axis, -1)
        log_p = functional.log_softmax(logits, -1)
        flat = log_p.detach().exp().reshape(-1, log_p.shape[-1]).cpu()
        drawn = torch.multinomial(flat, 1, generator=generator).to(y.device)
        chosen = log_p.gather(-1, drawn.reshape(*log_p.shape[:-1], 1)).squeeze(-1)
        if mask is not None and mask.shape == chosen.shape:
            chosen = chosen * mask.to(chosen)
        return -chosen.sum()
    rows = y if y.dim() <= 3 else y.flatten(1)
    if y.dim() == 0:
        rows = y.reshape(1, 1)
    v = torch.randn(rows.shape, generator=generator, dtype=torch.float32).to(rows)
    # Where a row is zero its direction is undefined, and it says nothing.
    unit = rows / rows.detach().norm(dim=-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    unit = (
        functional.normalize(rows, dim=-1, eps=torch.finfo(rows.dtype).tiny) if rows.shape[-1] > 1 else unit
    )
    products = (v * unit).sum(-1)
    if mask is not None and mask.shape == products.shape:
        products = products * mask.to(products)
    return products.sum()


Probe = Callable[[Tensor, Tensor | None, torch.Generator], Tensor]
