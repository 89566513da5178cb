"""Process-wide tracing state: saved before a retrace, restored whatever happens in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch._ops import _set_mode_pre_dispatch, unset_mode_pre_dispatch
from torch.fx.experimental.proxy_tensor import PreDispatchTorchFunctionMode, TorchFunctionMetadataMode
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode


@contextmanager
def restored_state(device_types: Iterable[str]) -> Iterator[None]:
    """Restore functorch nesting, grad mode and the autocast state of `device_types` on leaving.

    A trace that raises between a transform's entry and its exit would leave the whole process inside it.
    """
    depth = torch._C._functorch.get_dynamic_layer_stack_depth()
    grad = torch.is_grad_enabled()
    nesting = autocast_nesting()
    cache = torch.is_autocast_cache_enabled()
    autocast = {
        device: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in sorted(set(device_types))
        if torch.amp.is_autocast_available(device)
    }
    try:
        yield
    finally:
        if torch._C._functorch.get_dynamic_layer_stack_depth() > depth:
            torch._C._functorch.pop_dynamic_layer_stack_and_undo_to_depth(depth)
        torch._C._set_grad_enabled(grad)
        for _ in range(autocast_nesting() - nesting):
            torch.autocast_decrement_nesting()
        if nesting == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_cache_enabled(cache)
        for device, (enabled, dtype) in autocast.items():
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)


def autocast_nesting() -> int:
    """How many autocast regions the calling thread is inside."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


@contextmanager
def recording_paused() -> Iterator[None]:
    """Leave pre-dispatch recording for a moment: its dispatch mode and its torch-function modes.

    Modes below those of `make_fx`, such as a default device, stay in force.
    """
    proxy_mode = unset_mode_pre_dispatch(torch._C._TorchDispatchModeKey.PROXY)
    popped = []
    recording = (PreDispatchTorchFunctionMode, TorchFunctionMetadataMode)
    while (stack := _get_current_function_mode_stack()) and isinstance(stack[-1], recording):
        popped.append(_pop_mode())
    try:
        yield
    finally:
        for mode in reversed(popped):
            _push_mode(mode)
        if proxy_mode is not None:
            _set_mode_pre_dispatch(proxy_mode)
