"""How the Python functions turn a curvature, or another number of the row, into an operand."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import forward_ad


def operand(function: str, x: Tensor, c: float | Tensor) -> Tensor:
    """`c` as a tensor: a tensor as it is, a number as 0-dim float64 on the device of `x` (no host sync).

    Raises:
        ValueError: a number that is not positive and finite.

    >>> operand("expmap0", torch.zeros(2), 0.5)
    tensor(0.5000, dtype=torch.float64)
    """
    if isinstance(c, Tensor):
        return c
    if not 0 < c < math.inf:
        raise _not_positive(function, c)
    return constant(c, x)


def positive(function: str, x: Tensor, c: float | Tensor) -> Tensor:
    """As `operand`, where a curvature that is not positive has no meaning: one number on the CPU is looked at.

    That waits for nothing. Of other tensors, and of those that a compiler or a transform sees, what is not positive
    gives NaN.

    Raises:
        ValueError: a number, or a tensor that is looked at, that is not positive and finite.

    >>> positive("dist", torch.zeros(2), torch.tensor(-0.5))
    Traceback (most recent call last):
    ValueError: dist: the curvature c must be positive and finite, got -0.5; the ball is c*||x||^2 < 1
    """
    if isinstance(c, Tensor) and type(c) in _PLAIN and c.dim() == 0 and c.is_cpu and is_eager():
        value = c.detach().item()
        # NaN is passed on: it comes from a computation that went wrong before.
        if value <= 0 or value == math.inf:
            raise _not_positive(function, value)
        return c
    return operand(function, x, c)


def _not_positive(function: str, c: float) -> ValueError:
    return ValueError(
        f"{function}: the curvature c must be positive and finite, got {c}; the ball is c*||x||^2 < 1"
    )


_PLAIN = (Tensor, torch.nn.Parameter)


def number(function: str, label: str, x: Tensor, value: float | Tensor) -> Tensor:
    """A number of the row as a tensor, as `operand` does; it may have any sign.

    Raises:
        ValueError: a number that is not finite.
    """
    if isinstance(value, Tensor):
        return value
    if not math.isfinite(value):
        raise ValueError(f"{function}: {label} must be finite, got {value}")
    return constant(value, x)


def constant(value: float, x: Tensor) -> Tensor:
    """A 0-dim float64 tensor on the device of `x`; an eager call gets the same one each time."""
    if not is_eager():
        return torch.full((), value, dtype=torch.float64, device=x.device)
    # A dict and not a cache over (value, device): to hash a device takes longer than all else here.
    if x.is_cpu:
        kept = _on_cpu.get(value)
        return _keep_on_cpu(value) if kept is None else kept
    return _kept(value, x.device)


def is_eager() -> bool:
    """Whether a call runs as it stands: nothing traces it, no mode, no transform and no forward mode sees it."""
    return not (
        _is_compiling()
        or _modes()
        or _transform() is not None
        or _included(_PRE_DISPATCH)
        or _jit_state() is not None
        or forward_ad._current_level >= 0
    )


_is_compiling = torch.compiler.is_compiling
_modes = torch._C._len_torch_dispatch_stack
_transform = torch._C._functorch.peek_interpreter_stack
_included = torch._C._dispatch_tls_is_dispatch_key_included
_jit_state = torch._C._get_tracing_state
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch
_KEPT = 1024
_on_cpu: dict[float, Tensor] = {}


def _keep_on_cpu(value: float) -> Tensor:
    if len(_on_cpu) >= _KEPT:
        _on_cpu.clear()
    return _on_cpu.setdefault(value, _kept(value, torch.device("cpu")))


@lru_cache(maxsize=_KEPT)
def _kept(value: float, device: torch.device) -> Tensor:
    # an inference tensor could not be saved for a later backward
    with torch.inference_mode(False):
        return torch.full((), value, dtype=torch.float64, device=device)


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd must see the call; a transform of `torch.func`, or a forward mode, may concern any tensor."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False
