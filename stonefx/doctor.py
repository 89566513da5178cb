"""What was built, what loads, what is missing, and the command that mends it: `stonefx doctor`."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import warnings
from dataclasses import asdict
from typing import Any

import torch

from stonefx import machine, native
from stonefx.terminal import table

_OPERATORS = ("expmap0", "logmap0", "mobius_add", "low_rank_linear", "pifa_linear")


def report() -> dict[str, Any]:
    """Facts about this installation, ready for JSON.

    Returns:
        `versions`, `build` (`stonefx._C.build_info()` or None), `libraries` by name with `path`, `loaded`, `reason`
        and `remedy`, `operators` by name with the devices that have a kernel, `calls` (why calls of
        the geometry from Python are not short, or None), `backend` (whether
        `torch.compile(backend="stone")` finds the entry point), `machine` (the file with the measured facts of the CPU
        for the cost model, or None before the first measurement), and `problems`: a list of `what` and `remedy`.

    Raises:
        RuntimeError: `STONEFX_CPU_ISA` names an instruction set that cannot run here.

    >>> report()["backend"]
    True
    """
    with warnings.catch_warnings():
        # Loading warns of missing kernels; here they are listed under problems.
        warnings.simplefilter("ignore", RuntimeWarning)
        import stonefx.ops  # noqa: F401
    status = native.load()
    facts: dict[str, Any] = {
        "versions": _versions(),
        "build": native.build_info(),
        "libraries": {library.name: vars(library).copy() for library in (status.cpu, status.cuda)},
        "operators": {name: _devices(name) for name in _OPERATORS},
        "backend": _entry_point_registered(),
        "machine": _kept(),
    }
    calls = native.calls()
    facts["calls"] = calls if isinstance(calls, str) else None
    facts["problems"] = _problems(facts, status)
    return facts


def text(facts: dict[str, Any] | None = None) -> str:
    """What `report` gave, or gives now, as tables for a terminal, problems and their remedies last."""
    facts = report() if facts is None else facts
    rows = [(f"version of {name}", version) for name, version in facts["versions"].items()]
    for key, value in (facts["build"] or {}).items():
        label = key.replace("_", " ")
        rows.append((f"build: {label}", _show(value)))
    for name, library in facts["libraries"].items():
        state = library["path"] if library["loaded"] else f"not loaded: {library['reason']}"
        rows.append((name, state))
    for name, devices in facts["operators"].items():
        rows.append((f"stone::{name}", ", ".join(devices)))
    rows.append(
        ("calls of the geometry", f"the general way: {facts['calls']}" if facts["calls"] else "short")
    )
    rows.append(('torch.compile(backend="stone")', "registered" if facts["backend"] else "not registered"))
    rows.append(("facts of this machine", facts["machine"] or "not measured yet: stonefx doctor --measure"))
    facts_table = table(rows)
    if not facts["problems"]:
        return f"{facts_table}\n\nNothing is missing."
    problems = table([(p["what"], p["remedy"]) for p in facts["problems"]], ("missing", "what to do"))
    return f"{facts_table}\n\n{problems}"


def measure() -> dict[str, Any]:
    """Measure this machine for the cost model, keep the facts, and compare predictions with times, ready for JSON.

    Returns:
        `path` of the file, `threads` (one where other processes keep the cores busy), `machine` (the facts), and
        `linear`: a list of `dtype`, `rows`, `inputs`, `outputs`, `predicted` and `measured` in seconds, and `clock`,
        which says what they are of: "call", or on CUDA "device", without what the host takes for a call.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found, threads = machine.refresh(device)
    return {
        "path": str(machine.cache_path(device)),
        "threads": threads,
        "machine": asdict(found),
        "linear": [asdict(comparison) for comparison in machine.compare(found, device, threads)],
    }


def measure_text(facts: dict[str, Any]) -> str:
    """What `measure` gave, as tables for a terminal."""
    rows = [
        (
            c["dtype"],
            *(str(c[name]) for name in ("rows", "inputs", "outputs")),
            *(f"{1e6 * c[name]:.3g}" for name in ("predicted", "measured")),
            f"{c['predicted'] / c['measured']:.3g}",
        )
        for c in facts["linear"]
    ]
    on_card = any(c["clock"] == "device" for c in facts["linear"])
    of = ", on the device" if on_card else ""
    headers = ("dtype", "rows", "inputs", "outputs", f"predicted us{of}", f"measured us{of}", "ratio")
    near = sum(0.75 <= c["predicted"] / c["measured"] <= 1 / 0.75 for c in facts["linear"])
    found = facts["machine"]
    summary = [
        ("threads", str(facts["threads"])),
        ("float32", f"{found['flop_rate'] / 1e9:.3g} GFLOP/s"),
        ("memory", f"{found['bandwidth'] / 1e9:.3g} GB/s"),
        (
            "a call, on the host" if on_card else "a call",
            f"{found['launch'] * 1e6:.3g} us in float32, {found['half']['launch'] * 1e6:.3g} us in bfloat16",
        ),
        ("kept in", facts["path"]),
    ]
    times = table(rows, headers, right=range(1, len(headers)))
    text = f"{table(summary)}\n\n{times}\n\n{near} of {len(rows)} within 25 %"
    if on_card:
        text += "\nTimes are those of the device in a CUDA graph; a call takes the host's where that is more."
    return text


def _kept() -> str | None:
    path = machine.cache_path(torch.device("cpu"))
    return str(path) if path.exists() else None


def _versions() -> dict[str, str]:
    return {
        "stonefx": _installed("stonefx"),
        "torch": str(torch.__version__),
        "CUDA of torch": torch.version.cuda or "none",
        "Python": platform.python_version(),
        "nvcc": shutil.which("nvcc") or "not on PATH",
    }


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _devices(name: str) -> list[str]:
    """Devices whose dispatch key has a kernel, native or of the reference."""
    keys = {"CPU": native.load().cpu, "CUDA": native.load().cuda}
    return [
        f"{key} ({'native' if library.loaded else 'plain torch'})"
        for key, library in keys.items()
        if torch._C._dispatch_has_kernel_for_dispatch_key(f"stone::{name}", key)
    ]


def _entry_point_registered() -> bool:
    found = importlib.metadata.entry_points(group="torch_dynamo_backends", name="stone")
    return any(entry.value.startswith("stonefx.") for entry in found)


def _problems(facts: dict[str, Any], status: native.Status) -> list[dict[str, str]]:
    problems = []
    if facts["build"] is None:
        problems.append({"what": "the extension module stonefx._C", "remedy": native.BUILD_COMMAND})
    wanted = [status.cpu, status.cuda] if torch.cuda.is_available() else [status.cpu]
    problems += [
        {"what": f"{library.name}: {library.reason}", "remedy": library.remedy}
        for library in wanted
        if not library.loaded
    ]
    if facts["calls"] and not facts["calls"].startswith("STONEFX_NATIVE"):
        what = f"short calls of the geometry (they take some microseconds more): {facts['calls']}"
        problems.append({"what": what, "remedy": native.BUILD_COMMAND})
    if not facts["backend"]:
        problems.append(
            {"what": 'the entry point of torch.compile(backend="stone")', "remedy": native.BUILD_COMMAND}
        )
    if facts["build"] and facts["build"]["stonefx"] != facts["versions"]["stonefx"]:
        what = f"kernels of {facts['versions']['stonefx']}: the build is of {facts['build']['stonefx']}"
        problems.append({"what": what, "remedy": native.BUILD_COMMAND})
    return problems


def _show(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value) or "none"
    return str(value) or "none"
