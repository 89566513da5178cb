"""The measured facts: kept in the user's cache folder, measured where they are missing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import fx

from ..files import write_atomically
from ..passes.cost.gpu_times import GpuTimes
from ..passes.cost.kernel_times import KernelTimes
from ..passes.cost.machine import Machine
from ..tracing.errors import first_line
from .host import cpu_model, is_busy, usable_cores
from .measure import measure

VERSION = 1
CHOICES = ("measured", "default")
_PRODUCTS = {
    *("linear", "mm", "bmm", "matmul", "addmm", "baddbmm", "einsum", "convolution"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
}
_known: dict[str, Machine] = {}
_lock = threading.Lock()


def machine_for(module: fx.GraphModule, choice: Machine | str) -> Machine | None:
    """The machine that a graph is planned for; None stands for the defaults of the device type.

    Args:
        module: the graph. Facts are looked up, and measured if they must be, only where it has two products to weigh.
        choice: a machine, "measured" or "default". The environment variable `STONEFX_MACHINE=default` turns
            "measured" into "default".

    Raises:
        ValueError: `STONEFX_MACHINE` has another value.
    """
    wanted = os.environ.get("STONEFX_MACHINE") or "measured"
    if wanted not in CHOICES:
        raise ValueError(f"STONEFX_MACHINE={wanted} is unknown; use one of {', '.join(CHOICES)}, or unset it")
    if isinstance(choice, Machine):
        return choice
    if "default" in (choice, wanted):
        return None
    values = [node.meta.get("val") for node in module.graph.nodes if _is_product(node)]
    devices = [value.device for value in values if isinstance(value, torch.Tensor)]
    if len(devices) < 2 or devices[0].type not in ("cpu", "cuda"):
        return None
    return facts(devices[0])


def facts(device: torch.device) -> Machine:
    """The facts of a device: of this process, else out of the cache folder, else measured now and written there.

    On a busy machine one thread is measured, and again when it is found quiet. Where measuring fails, a warning says
    so, and the defaults of the device type hold.
    """
    with _lock:
        key = _key(device)
        if key not in _known:
            try:
                _known[key] = _read(cache_path(device), key) or _measured(device)[0]
            except (
                RuntimeError,
                MemoryError,
            ) as error:  # such as a card without the memory that measuring takes
                _warn(
                    f"this {device.type} device cannot be measured, so that this process plans for the defaults: "
                    f"{first_line(error)}; free memory and run `stonefx doctor --measure`, or set "
                    "STONEFX_MACHINE=default"
                )
                _known[key] = Machine.of(device)
        return _known[key]


def refresh(device: torch.device) -> tuple[Machine, int]:
    """Measure a device now, and keep the result in the place of any earlier one; also how many threads it had."""
    with _lock:
        _known[_key(device)], threads = _measured(device)
        return _known[_key(device)], threads


def cache_path(device: torch.device) -> Path:
    """The file with a device's facts: in `STONEFX_CACHE_DIR`, else in `stonefx` in the user's cache folder."""
    name = hashlib.sha256(_key(device).encode()).hexdigest()[:16]
    return _folder() / f"machine-{name}.json"


def _folder() -> Path:
    if chosen := os.environ.get("STONEFX_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "stonefx"


def _key(device: torch.device) -> str:
    """All that a time depends on."""
    what = (
        f"{torch.cuda.get_device_name(device)}, TF32 {torch.backends.cuda.matmul.allow_tf32}"
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    return f"{cpu_model()}, {usable_cores()} cores, {device.type} {what}, torch {torch.__version__}"


def _measured(device: torch.device) -> tuple[Machine, int]:
    threads = 1 if is_busy() else torch.get_num_threads()
    machine = measure(device, threads)
    path = cache_path(device)
    document = {
        "version": VERSION,
        "key": _key(device),
        "threads": threads,
        "machine": dataclasses.asdict(machine),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(document, indent=2) + "\n")
    except OSError as error:
        _warn(
            f"the facts of this machine cannot be kept, so every process measures them anew: {error}; set "
            "STONEFX_CACHE_DIR to a folder that can be written, or STONEFX_MACHINE=default"
        )
    return machine, threads


def _read(path: Path, key: str) -> Machine | None:
    """The machine of a file; None where there is none, where it can be bettered, or, after a warning, where the file is
    damaged or of another key.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if (document["version"], document["key"]) != (VERSION, key):
            raise ValueError(f"it is of version {document['version']} and of {document['key']}")
        if document["threads"] < torch.get_num_threads() and not is_busy():
            return None
        return _machine(document["machine"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _warn(
            f"{path} does not hold the facts of this machine ({type(error).__name__}: {error}); they are measured anew"
        )
        return None


def _machine(document: dict[str, Any]) -> Machine:
    times = {
        name: _kernel_times(document[name]) for name in ("single", "half", "double") if document.get(name)
    }
    return Machine(**document | times)


def _kernel_times(document: dict[str, Any]) -> KernelTimes | GpuTimes:
    names = ("near_rate", "far_rate", "write", "small", "large")
    tables = {name: tuple(map(tuple, document[name])) for name in names if name in document}
    return (GpuTimes if "units" in document else KernelTimes)(**document | tables)


def _is_product(node: fx.Node) -> bool:
    packet = getattr(node.target, "overloadpacket", None)
    return node.op == "call_function" and getattr(packet, "__name__", "") in _PRODUCTS


def _warn(message: str) -> None:
    warnings.warn(f"stonefx: {message}", RuntimeWarning, 4)
