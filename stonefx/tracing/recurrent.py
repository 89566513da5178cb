"""Recurrent layers as one operator of a graph, of whatever number of steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils import _pytree as pytree

_aten = torch.ops.aten
_OPERATORS = (
    _aten.lstm.input, _aten.lstm.data, _aten.gru.input, _aten.gru.data,
    _aten.rnn_tanh.input, _aten.rnn_tanh.data, _aten.rnn_relu.input, _aten.rnn_relu.data,
)  # fmt: skip


@contextmanager
def recurrent_layers(taken: bool) -> Iterator[None]:
    """While this thread records, take recurrent layers into the graph, or let Dynamo stop at them.

    The shapes of their results are worked out without running their steps. torch's own stand-in runs them one by one,
    so that a graph would hold for one number of steps only.
    """
    with torch._dynamo.config.patch(allow_rnn=taken), _whole_operators() if taken else nullcontext():
        yield


@contextmanager
def _whole_operators() -> Iterator[None]:
    thread = threading.get_ident()
    kept = [(operator, dict(operator.py_kernels)) for operator in _OPERATORS]
    for operator, kernels in kept:
        for key, kernel in kernels.items():
            operator.py_kernels[key] = _whole(operator, kernel, thread)
        operator._dispatch_cache.clear()
    try:
        yield
    finally:
        for operator, kernels in kept:
            operator.py_kernels.update(kernels)
            operator._dispatch_cache.clear()


def _whole(operator: Any, kernel: Callable[..., Any], thread: int) -> Callable[..., Any]:
    packed = operator._overloadname == "data"

    def run(*args: Any, **kwargs: Any) -> Any:
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        # A trace of the steps themselves needs them.
        shapes_only = get_proxy_mode() is None and all(isinstance(tensor, FakeTensor) for tensor in tensors)
        if threading.get_ident() != thread or not shapes_only:
            return kernel(*args, **kwargs)
        if packed:
            data, _batch_sizes, states, *_, bidirectional = args
            return _results(data, states, bidirectional, tensors)
        steps, states, *_, bidirectional, batch_first = args
        return _results(
            steps.transpose(0, 1) if batch_first else steps, states, bidirectional, tensors, batch_first
        )

    return run


def _results(
    steps: torch.Tensor,
    states: torch.Tensor | Sequence[torch.Tensor],
    bidirectional: bool,
    tensors: Sequence[torch.Tensor],
    batch_first: bool = False,
) -> tuple[torch.Tensor, ...]:
    """Stand-ins for the results: `[steps, batch, features]`, or its transpose, and the last states."""
    last = [states] if isinstance(states, torch.Tensor) else list(states)
    width = last[0].shape[-1] * (2 if bidirectional else 1)
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    shapes = [[*steps.shape[:-1], width], *(list(state.shape) for state in last)]
    with torch.no_grad():
        results = [steps.new_empty(shape) for shape in shapes]
    if wanted:
        # No leaf, since it is computed.
        results = [result.requires_grad_().clone() for result in results]
    if batch_first:
        results[0] = results[0].transpose(0, 1)
    return tuple(results)
