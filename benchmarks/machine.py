"""Where a benchmark ran: the facts without which a time means nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stonefx.machine import cpu_model, usable_cores

_STATE = {
    "driver_version": "driver",
    "clocks.sm": "sm_clock",
    "clocks.mem": "memory_clock",
    "clocks.max.sm": "sm_clock_limit",
    "power.draw": "power",
    "temperature.gpu": "temperature",
}


def machine_facts(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, threads, instruction set, versions and commit.

    Args:
        device: "cpu" or "cuda"; for "cuda" the GPU's name and driver side versions are added.

    >>> sorted(machine_facts())[:4]
    ['commit', 'cores', 'cpu', 'instruction_set']
    """
    facts: dict[str, Any] = {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stonefx": importlib.metadata.version("stonefx"),
        "commit": _commit(),
    }
    if device == "cuda":
        card = torch.cuda.get_device_properties()
        facts |= {
            "gpu": card.name,
            "cuda": torch.version.cuda,
            "capability": f"{card.major}.{card.minor}",
            "multiprocessors": card.multi_processor_count,
            "gpu_bytes": card.total_memory,
            "l2_bytes": card.L2_cache_size,
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_cudnn": torch.backends.cudnn.allow_tf32,
            **gpu_state(),
        }
    return facts


def gpu_state(run: Callable[..., Any] = subprocess.run) -> dict[str, str]:
    """Driver, clocks, power and temperature of the first card by nvidia-smi, which only reads; empty without it."""
    try:
        done = run(
            ["nvidia-smi", "--id=0", f"--query-gpu={','.join(_STATE)}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(_STATE.values(), values, strict=False))


def _commit() -> str:
    """The commit of the checkout around this file, "+changes" where it was edited; else what `STONEFX_COMMIT` says."""
    folder = Path(__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return os.environ.get("STONEFX_COMMIT", "")
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
