"""Recording leaves no trace: random state and Dynamo's settings."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn
from torch.fx.experimental import _config as shapes_config


@contextmanager
def preserved_random_state(model: nn.Module) -> Iterator[None]:
    """Leave the generators of torch, NumPy and Python as they were."""
    devices = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    cuda = sorted({device.index or 0 for device in devices if device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def plain_dynamo() -> Iterator[None]:
    """Dynamo as capture needs it: static unless marked, raising, gradients on, whatever the caller has set."""
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("default"))
        stack.enter_context(
            torch._dynamo.config.patch(
                suppress_errors=False,
                automatic_dynamic_shapes=False,
                assume_static_by_default=True,
                error_on_recompile=False,
            )
        )
        # Batch 1 then needs no special case: a graph that treats it apart says so in a guard.
        stack.enter_context(shapes_config.patch(backed_size_oblivious=True))  # type: ignore[attr-defined]
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield
