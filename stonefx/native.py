"""Find and load the compiled kernels, and remember why one did not load."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

BUILD_COMMAND = "pip install --no-build-isolation --no-deps --force-reinstall ."
_INSTRUCTION_SETS = ("baseline", "avx2", "avx512")


@dataclass(frozen=True)
class Library:
    """One shared library: where it is, whether it is loaded, and otherwise why not and what to do."""

    name: str
    path: str | None = None
    loaded: bool = False
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Status:
    """The libraries of this process."""

    cpu: Library
    cuda: Library


def find(name: str) -> str | None:
    """Path of an installed library such as `libstonefx_cpu.so`, or None."""
    import stonefx

    for folder in stonefx.__path__:
        for suffix in (".so", ".dylib"):
            path = Path(folder) / f"{name}{suffix}"
            if path.is_file():
                return str(path)
    return None


@cache
def load() -> Status:
    """Load what can be loaded, once; the CUDA library only where torch has a device for it.

    Raises:
        RuntimeError: `STONEFX_CPU_ISA` names an instruction set that is unknown or that this CPU lacks.
    """
    return Status(cpu=_load_cpu(), cuda=_load_cuda())


def _load_cpu() -> Library:
    name = "libstonefx_cpu"
    if os.environ.get("STONEFX_NATIVE", "1") == "0":
        return Library(name, find(name), reason="STONEFX_NATIVE=0 is set", remedy="Unset STONEFX_NATIVE")
    _check_instruction_set()
    return _load(name)


def _load_cuda() -> Library:
    name = "libstonefx_cuda"
    if os.environ.get("STONEFX_NATIVE", "1") == "0":
        return Library(name, find(name), reason="STONEFX_NATIVE=0 is set", remedy="Unset STONEFX_NATIVE")
    if not torch.cuda.is_available():
        return Library(name, find(name), reason="torch sees no CUDA device", remedy="None is needed on a CPU")
    library = _load(name)
    if library.loaded:
        return library
    return Library(
        name,
        library.path,
        False,
        library.reason,
        f"Build it with nvcc on PATH: STONEFX_CUDA=1 {BUILD_COMMAND}",
    )


def _load(name: str) -> Library:
    path = find(name)
    if path is None:
        return Library(name, reason=f"{name} is not installed", remedy=f"Build it: {BUILD_COMMAND}")
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return Library(
            name, path, reason=f"{path} does not load: {error}", remedy=f"Rebuild it: {BUILD_COMMAND}"
        )
    return Library(name, path, loaded=True)


def _check_instruction_set() -> None:
    """Refuse a wrong `STONEFX_CPU_ISA` here, where the message reaches the user, not inside a kernel."""
    wanted = os.environ.get("STONEFX_CPU_ISA")
    if not wanted:
        return
    if wanted not in _INSTRUCTION_SETS:
        raise RuntimeError(
            f"STONEFX_CPU_ISA={wanted} is unknown; use one of {', '.join(_INSTRUCTION_SETS)}, or unset it"
        )
    facts = build_info()
    if facts is not None and wanted not in facts["instruction_sets_usable"]:
        raise RuntimeError(
            f"STONEFX_CPU_ISA={wanted}, but this build on this CPU runs only "
            f"{', '.join(facts['instruction_sets_usable'])}; choose one of these, or unset it"
        )


def build_info() -> dict | None:
    """`stonefx._C.build_info()`, or None where the extension module is not built."""
    module = extension()
    return None if module is None else module.build_info()


def direct_call(
    operator: str,
    positive: Sequence[bool] = (),
    bounds: Mapping[torch.dtype, Mapping[str, float]] = MappingProxyType({}),
) -> Any | None:
    """`stonefx._calls.make`, or None where that module is not built, or built for another release of torch."""
    module = calls()
    if isinstance(module, str):
        return None
    of_dtypes = [(dtype, list(values.items())) for dtype, values in bounds.items()]
    return module.make(operator, list(positive), of_dtypes)


@cache
def calls() -> Any | str:
    """The extension module `stonefx._calls`, or why it is not used; the operators work without it."""
    if os.environ.get("STONEFX_NATIVE", "1") == "0":
        return "STONEFX_NATIVE=0 is set"
    _check_instruction_set()
    facts = build_info()
    # It takes tensors out of Python objects, whose layout is that of one release.
    if facts is None:
        return "stonefx._C, which knows what it was built for, is not built"
    if facts["torch_headers"] != str(torch.__version__):
        return f"it was built for torch {facts['torch_headers']}, this is {torch.__version__}"
    try:
        from stonefx import _calls  # type: ignore[attr-defined]
    except ImportError as error:
        return f"stonefx._calls does not load: {error}"
    return _calls


def extension() -> Any:
    """The extension module `stonefx._C`, or None where it is not built."""
    try:
        from stonefx import _C  # type: ignore[attr-defined]
    except ImportError:
        return None
    return _C
