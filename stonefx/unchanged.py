"""What tensors looked like once, and whether they look so still."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch

from .memory import sample
from .native import calls


def unchanged(
    weights: list[torch.Tensor], dropped: Callable[[Any], None]
) -> Callable[[list[torch.Tensor]], bool]:
    """Look at weights; the result tells whether others are the same and look as these did.

    It is asked at every call of a graph, so that it looks at all that is quickly seen: who a weight is, its version,
    its memory, who else holds that, and some words of it. Dtypes, sizes and strides are left to Dynamo's guards. No
    weight is kept alive, nor its memory.

    Args:
        weights: tensors with memory of their own.
        dropped: called with an argument that means nothing once the memory of one is gone.

    >>> layer = torch.nn.Linear(2, 2)
    >>> same = unchanged([layer.weight], lambda _: None)
    >>> same([layer.weight]), same([layer.bias])
    (True, False)
    >>> _ = torch.nn.init.ones_(layer.weight)
    >>> same([layer.weight])
    False
    """
    native = calls()
    made = _Looks if isinstance(native, str) else native.Unchanged
    references = [(*_identity(weight), weakref.ref(weight.untyped_storage(), dropped)) for weight in weights]
    return made(weights, references)


def look_seconds(weights: Iterable[torch.Tensor]) -> float:
    """Predicted seconds that looking at one weight takes, of a model that has these.

    On the CPU it depends on whether the model is still in the cache; on a GPU kernels run meanwhile.
    """
    size = 0
    for weight in weights:
        if weight.device.type != "cpu":
            return 0.0
        size += weight.numel() * weight.element_size()
    return _LOOK_NEAR if size <= _CACHE else _LOOK_FAR


# Measured on ordinary cores, by the compiled look.
_LOOK_NEAR, _LOOK_FAR = 6e-8, 4e-7
_CACHE = 2**20  # bytes, of the second level

_References = tuple[
    dict[str, Any] | None, weakref.ref[torch.Tensor] | None, weakref.ref[torch.UntypedStorage]
]


def _identity(weight: torch.Tensor) -> tuple[dict[str, Any] | None, weakref.ref[torch.Tensor] | None]:
    """The attribute dictionary of a weight, which no other tensor gets as long as it is held here.

    A weak reference to the weight would keep `torch.utils.swap_tensors` from exchanging its contents; the dictionary is
    exchanged along with them. Attributes that might lead back to the weight would keep it alive, and only then the
    weak reference is taken.
    """
    attributes = weight.__dict__
    if all(value is None or isinstance(value, str | int | float) for value in attributes.values()):
        return attributes, None
    return None, weakref.ref(weight)


class _Looks:
    """What `stonefx._calls.Unchanged` does, for any release of torch."""

    def __init__(self, weights: list[torch.Tensor], references: list[_References]) -> None:
        self.looks = [_look(*each) for each in zip(weights, references, strict=True)]

    def __call__(self, weights: list[torch.Tensor]) -> bool:
        return len(weights) == len(self.looks) and all(map(_looks_like, weights, self.looks))


def _look(weight: torch.Tensor, references: _References) -> tuple[Any, ...]:
    storage = weight.untyped_storage()
    address = storage._cdata
    words = sample(weight)
    return (
        *references,
        weight._version,
        weight.data_ptr(),
        storage.nbytes(),
        address,
        torch._C._storage_Use_Count(address),
        sys.getrefcount(storage),
        words,
        words.tobytes(),
    )


def _looks_like(weight: torch.Tensor, look: tuple[Any, ...]) -> bool:
    attributes, itself, reference, version, data, size, address, tensors, variables, words, known = look
    storage = weight.untyped_storage()
    return not (
        (weight.__dict__ is not attributes if itself is None else itself() is not weight)
        or weight._version != version
        or weight.data_ptr() != data
        or storage.nbytes() != size
        or reference() is not storage
        or not storage.resizable()
        or torch._C._storage_Use_Count(address) != tensors
        or sys.getrefcount(storage) != variables
        or words.tobytes() != known
    )
