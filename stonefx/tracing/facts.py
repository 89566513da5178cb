"""What a graph relies on beside the values, dtypes and sizes of its arguments: answers that a forward was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..memory import apart
from .arguments import Path, Weight

# Questions about the process, by name.
STATE: dict[str, Callable[..., Any]] = {
    name: getattr(torch, name)
    for name in (
        "is_grad_enabled is_autocast_enabled is_autocast_cpu_enabled is_autocast_cache_enabled get_autocast_dtype "
        "get_autocast_gpu_dtype get_autocast_cpu_dtype get_default_dtype is_inference_mode_enabled "
        "are_deterministic_algorithms_enabled get_float32_matmul_precision get_default_device"
    ).split()
    if hasattr(torch, name)
} | {"get_fastpath_enabled": torch.backends.mha.get_fastpath_enabled}


# Attributes and methods of tensors, by what they are about.
LAYOUT = frozenset("is_contiguous stride storage_offset dim_order _is_view _base is_set_to".split())
GRADIENT = frozenset("requires_grad is_leaf grad_fn retains_grad grad output_nr".split())
DEVICE = frozenset(
    "device is_cuda is_cpu is_meta is_xpu is_mps is_xla is_hpu is_ipu is_mtia is_maia is_vulkan get_device "
    "is_pinned type".split()
)
# What a copy of an argument has as the argument had it, whatever else it is.
KINDS = frozenset(
    "layout is_sparse is_sparse_csr is_quantized is_nested is_mkldnn names has_names is_conj is_neg".split()
)


def is_question(name: str, count: int) -> bool:
    """Whether a question of this name, to so many tensors, is known to do nothing but answer."""
    if count == 0:
        return name in STATE
    if name == "decision":
        return False
    return name in _QUESTIONS or name in LAYOUT | GRADIENT | DEVICE | KINDS | {"item"}


@dataclass(frozen=True)
class Fact:
    """One answer that a graph relies on.

    Attributes:
        paths: the arguments or weights that were asked; none where the process was.
        question: an attribute or method of a tensor, a function of torch without tensors, or `isinstance`, `hasattr`,
            `is` (one argument is another), `apart` (no other shares memory with the first) or `decision` (see
            `decisions`).
        arguments: of the question.
        answer: at capture.
        keywords: further arguments of the question, by name.
    """

    paths: tuple[Path | Weight, ...]
    question: str
    arguments: tuple[Any, ...]
    answer: Any
    keywords: tuple[tuple[str, Any], ...] = ()

    def now(self, *tensors: Any) -> Any:
        """The answer for the tensors of a call, in the order of `paths`."""
        if self.question in _QUESTIONS:
            return _QUESTIONS[self.question](*tensors, *self.arguments)
        if not self.paths:
            return STATE[self.question](*self.arguments, **dict(self.keywords))
        value = getattr(tensors[0], self.question)
        return value(*self.arguments, **dict(self.keywords)) if callable(value) else value

    def holds(self, *tensors: Any) -> bool:
        """Whether the answer is the one of the capture."""
        return bool(self.now(*tensors) == self.answer)

    def __str__(self) -> str:
        given = ", ".join(
            [getattr(value, "__name__", repr(value)) for value in self.arguments]
            + [f"{name}={value!r}" for name, value in self.keywords]
        )
        if self.question == "is":
            return f"{self.paths[0]} is {self.paths[1]}"
        if self.question == "apart":
            return f"{self.paths[0]} shares no memory with {', '.join(map(str, self.paths[1:]))}"
        if self.question == "decision":
            return f"a branch on {', '.join(map(str, self.paths))} at {self.arguments[0]}"
        if self.question in _QUESTIONS:
            return f"{self.question}({self.paths[0]}{', ' if given else ''}{given})"
        if not self.paths:
            return f"torch.{self.question}({given})"
        return f"{self.paths[0]}.{self.question}" + (f"({given})" if self.question in _METHODS else "")


_QUESTIONS: dict[str, Callable[..., Any]] = {
    "isinstance": isinstance,
    "hasattr": hasattr,
    "__class__": type,
    "is": lambda first, second: first is second,
    "apart": apart,
    # Of tensors of the model: the last argument computes it.
    "decision": lambda *tensors: tensors[-1](*tensors[:-1]),
}
_METHODS = frozenset(
    {"item", "is_contiguous", "stride", "storage_offset", "dim_order", "_is_view", "is_conj", "is_neg"}
)


@dataclass(frozen=True)
class Relied:
    """All of a recording.

    Attributes:
        facts: answers that later calls must give, too.
        strides: of the arguments that must come in the layout they had: ints, or expressions over symbols.
        devices: arguments must be on the device types of the capture.
    """

    facts: tuple[Fact, ...] = ()
    strides: Mapping[Path, tuple[int | str, ...]] = field(default_factory=dict)
    devices: bool = False
