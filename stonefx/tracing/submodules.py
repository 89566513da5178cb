"""Where a whole model cannot be captured: the largest submodules that can, found from the top down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from .arguments import Path, walk
from .copies import copied, leading_size
from .errors import CaptureError, as_capture_errors
from .fast_paths import has_fast_path
from .isolation import plain_dynamo, preserved_random_state
from .model_state import is_scripted, restored_attributes, restored_buffers

Call = tuple[tuple[Any, ...], dict[str, Any]]
Captured = TypeVar("Captured")


def submodule_calls(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Call]:
    """Run a model once and keep, by path, what each submodule was called with.

    Of several calls of one submodule the one with the largest leading size is kept. A submodule that was not
    called, or not through `__call__`, has no entry, nor has what is inside of one with a fast path.
    """
    calls: dict[str, Call] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if path not in calls or _leading_size((args, kwargs)) > _leading_size(calls[path]):
                calls[path] = copied((args, dict(kwargs)))

        return hook

    # A fast path is not taken where a hook waits inside; it reads the weights there itself.
    inside = {
        part
        for module in model.modules()
        if has_fast_path(module)
        for part in module.modules()
        if part is not module
    }
    # A scripted module takes no hooks, and nothing inside it runs as Python.
    handles = [
        module.register_forward_pre_hook(keep(path), with_kwargs=True)
        for path, module in model.named_modules()
        if path and not is_scripted(module) and module not in inside
    ]
    call_args, call_kwargs = copied((args, dict(kwargs)))
    with (
        plain_dynamo(torch.is_grad_enabled()),
        preserved_random_state(model),
        restored_attributes(model),
        restored_buffers(model),
    ):
        try:
            model(*call_args, **call_kwargs)
        finally:
            for handle in handles:
                handle.remove()
    return calls


def search(
    model: nn.Module, calls: Mapping[str, Call], capture: Callable[[nn.Module, Call], Captured]
) -> tuple[list[tuple[str, Captured, Call]], list[str]]:
    """Capture the largest submodules: the first success on a branch wins, else its children are tried.

    Returns:
        `(path, capture, call)` of each success, and a line with the reason for each submodule that was skipped.
    """
    found: list[tuple[str, Captured, Call]] = []
    skipped: list[str] = []
    seen: set[nn.Module] = set()

    def visit(path: str, module: nn.Module) -> None:
        if module in seen:
            return
        seen.add(module)
        if is_scripted(module):
            skipped.append(f"{path}: scripted or traced, and left as it is")
            return
        call = calls.get(path)
        if call is None:
            if not any(name.startswith(f"{path}.") for name in calls):
                skipped.append(f"{path}: not called on the example")
                return
        elif not _has_floating_tensor(call):
            skipped.append(f"{path}: called without a floating-point tensor")
        else:
            try:
                with as_capture_errors(f"the submodule {path}"):
                    found.append((path, capture(module, call), call))
                return
            except CaptureError as error:
                skipped.append(f"{path}: {error}")
        if not has_fast_path(module):
            for name, child in module.named_children():
                visit(f"{path}.{name}", child)

    if not has_fast_path(model):
        for name, child in model.named_children():
            visit(name, child)
    return found, skipped


def _leading_size(call: Any) -> int:
    return max((leading_size(value) or 0 for _, value in walk(call, Path("call"))), default=0)


def _has_floating_tensor(call: Any) -> bool:
    return any(
        isinstance(value, torch.Tensor) and value.is_floating_point() for _, value in walk(call, Path("call"))
    )
