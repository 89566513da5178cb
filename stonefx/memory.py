"""Who else may write the memory of a tensor, and whether that leaves a trace."""

from __future__ import annotations

import ctypes
import sys
import time

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def unseen_writers(weight: torch.Tensor) -> str:
    """Why writes to the memory of a tensor may leave no trace on it; empty where they do.

    These are lasting facts: memory that other processes may write, that torch did not allocate, or that is part of a
    larger buffer, and tensors without a version counter. Another tensor, NumPy array or storage that holds the whole
    memory may be gone at the next call; `holds_alone` tells of it.

    >>> import numpy
    >>> unseen_writers(torch.ones(3))
    ''
    >>> unseen_writers(torch.from_numpy(numpy.ones(3)))
    'its memory came from NumPy, DLPack, a file or torch.load, or went to NumPy, so that others may write it; \
the weights of copy.deepcopy(model) are its own'
    """
    if weight.layout != torch.strided or not torch._C._has_storage(weight):
        return "it is no dense tensor with memory of its own"
    if weight.is_inference():
        return "it was made in inference mode, where no version counter tells of writes"
    # Of memory on a GPU `is_shared` says nothing; what another process sent is not resizable.
    if weight.device.type == "cpu" and weight.untyped_storage().is_shared():
        return "it lies in shared memory, which other processes may write"
    if not weight.untyped_storage().resizable():
        return (
            "its memory came from NumPy, DLPack, a file or torch.load, or went to NumPy, so that others may write it; "
            "the weights of copy.deepcopy(model) are its own"
        )
    part = weight.untyped_storage().nbytes() > weight.numel() * weight.element_size()
    if part and (weight._is_view() or not holds_alone(weight)):
        return "it is part of a larger buffer, which other tensors may write"
    return ""


def holds_alone(weight: torch.Tensor, tries: int = 1) -> bool:
    """Whether no other tensor, array or storage object holds the memory of a tensor at the moment.

    Args:
        weight: the tensor.
        tries: how often to look; in between, another thread that just looks as well may go on.

    >>> weight = torch.ones(3)
    >>> holds_alone(weight)
    True
    >>> alias = weight.numpy()
    >>> holds_alone(weight)
    False
    """
    for _ in range(tries - 1):
        if _holders(weight) == _ALONE:
            return True
        time.sleep(0)
    return _holders(weight) == _ALONE


def has_memory(tensor: torch.Tensor) -> bool:
    """Whether a tensor has memory of its own, rather than tensors inside of it or none."""
    dense = tensor.layout == torch.strided and torch._C._has_storage(tensor)
    return dense and not is_traceable_wrapper_subclass(tensor) and tensor.device.type != "meta"


def apart(first: torch.Tensor, *others: torch.Tensor) -> bool:
    """Whether no entry of the others can lie in the memory between the first and the last entry of a tensor.

    >>> rows = torch.ones(4, 3)
    >>> apart(rows[:2], rows[2:]), apart(rows[:3], rows[2:])
    (True, False)
    """
    start, end = extent(first)
    return all(end <= other[0] or other[1] <= start for other in map(extent, others))


def extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses of the first entry of a tensor and behind the last one; both 0 where there is none."""
    if not tensor.numel():
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.itemsize


def sample(tensor: torch.Tensor) -> memoryview:
    """A view of some words spread over the memory of a tensor on the CPU; of none where it lies elsewhere.

    It shows most writes that leave no other trace. Reading it is safe only while the tensor has the same memory.

    >>> weight = torch.ones(64)
    >>> before = sample(weight).tobytes()
    >>> weight.data.mul_(2).sum()
    tensor(128.)
    >>> sample(weight).tobytes() == before
    False
    """
    storage = tensor.untyped_storage()
    address, size = storage.data_ptr(), storage.nbytes()
    if tensor.device.type != "cpu" or not address:
        return memoryview(b"")
    words = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
    if size >= 8:
        words = words[: size // 8 * 8].cast("Q")
    return words[:: max(len(words) // _SAMPLES, 1)]


def _holders(weight: torch.Tensor) -> tuple[int, int]:
    """How many tensors hold the storage of a tensor, and how many Python variables its storage object.

    The base of a view is not counted: a write to it shows on the view.
    """
    storage = weight.untyped_storage()
    return torch._C._storage_Use_Count(storage._cdata) - weight._is_view(), sys.getrefcount(storage)


_SAMPLES = 16
_ALONE = _holders(torch.empty(1))
