"""Files in the format of safetensors, one tensor at a time.

The safetensors package maps a file as a whole, which counts against a limit of the address space; here a tensor is read
from its place into memory of its own, and a file is written while its tensors are made one after the other.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MOST_HEADER = 100_000_000
PAGES_FROM = 1 << 18


class Reader:
    """A file whose tensors are read one by one.

    Args:
        path: of the file.

    Raises:
        ValueError: it is no such file, or is cut short.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.file = self.path.open("rb")
        try:
            total = os.fstat(self.file.fileno()).st_size
            size = int.from_bytes(self.file.read(8), "little")
            if not 2 <= size <= min(MOST_HEADER, total - 8):
                raise ValueError(f"a header of {size:,} bytes in a file of {total:,}")
            header: dict[str, Any] = json.loads(self.file.read(size))
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            self.start = 8 + size
            self.entries = header
            for name, entry in header.items():
                low, high = entry["data_offsets"]
                items = DTYPES[entry["dtype"]].itemsize
                for extent in entry["shape"]:
                    items *= extent
                if not (0 <= low <= high <= total - self.start and high - low == items):
                    raise ValueError(f"{name!r} lies outside the file or has another size than its shape")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.file.close()
            raise ValueError(f"{str(path)!r}: expected a whole safetensors file: {error}") from None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def names(self) -> Iterable[str]:
        """Of all tensors."""
        return self.entries.keys()

    def shape(self, name: str) -> tuple[torch.Size, torch.dtype]:
        """Shape and dtype of a tensor."""
        entry = self.entries[name]
        return torch.Size(entry["shape"]), DTYPES[entry["dtype"]]

    def read(self, name: str) -> Tensor:
        """A tensor, in memory of its own."""
        shape, dtype = self.shape(name)
        low, high = self.entries[name]["data_offsets"]
        data, place = _memory(high - low)
        done = 0
        while done < high - low:
            # By position, so that threads which share the file do not move each other's.
            count = os.preadv(self.file.fileno(), [place[done:]], self.start + low + done)
            if count == 0:
                raise ValueError(f"{str(self.path)!r}: {name!r} is cut short")
            done += count
        return data.view(dtype).reshape(shape)


def _memory(size: int) -> tuple[Tensor, memoryview]:
    """Bytes to read into. Large ones are pages of their own, which go back to the system when they are freed: the heap
    would keep the gaps between what comes and goes.
    """
    if size < PAGES_FROM:
        data = torch.empty(size, dtype=torch.uint8)
        return data, memoryview(data.numpy())  # type: ignore[arg-type]
    pages = mmap.mmap(-1, size)
    return torch.frombuffer(pages, dtype=torch.uint8), memoryview(pages)


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors that are all in memory."""
    heads = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    stream(path, heads, lambda name: tensors[name], metadata)


def stream(
    path: str | os.PathLike[str],
    heads: Mapping[str, tuple[torch.Size, torch.dtype]],
    load: Callable[[str], Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write tensors of known shapes and dtypes, each of which is made when its turn comes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, (shape, dtype) in heads.items():
        if dtype not in NAMES:
            raise ValueError(f"{name!r}: expected one of {', '.join(NAMES.values())}, got {dtype}")
        size = shape.numel() * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, (shape, dtype) in heads.items():
            value = load(name)
            if value.shape != shape or value.dtype != dtype:
                raise ValueError(
                    f"{name!r}: expected {dtype} {tuple(shape)}, got {value.dtype} {tuple(value.shape)}"
                )
            file.write(raw(value.detach().cpu()))


def raw(value: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU."""
    return memoryview(value.contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
