"""Two processes on gloo that run the same checks, each of which must pass in both.

Run as `processes.py MODULE RANK FILE PREFIX`: every function of the module whose name begins so runs in turn.
"""

from __future__ import annotations

import datetime
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

WORLD = 2
FOLDER = Path(__file__).parent


def run_checks(module: str, folder: Path, prefix: str = "check_") -> list[str]:
    """Run a module's checks in two processes; the names of those that passed in both.

    Raises:
        AssertionError: one failed; the message ends with what a process printed.
    """
    # A file, and no port, so that tests which run beside each other do not meet.
    shared = folder / "rendezvous"
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, module, str(rank), str(shared), prefix],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD)
    ]
    printed = [worker.communicate(timeout=600)[0] for worker in workers]
    for worker, text in zip(workers, printed, strict=True):
        assert worker.returncode == 0, text[-8000:]
    names = [re.findall(r"^(\w+): passed$", text, re.MULTILINE) for text in printed]
    assert names[0] == names[1]
    return names[0]


def _main(module: str, rank: int, shared: str, prefix: str) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{shared}",
        rank=rank,
        world_size=WORLD,
        timeout=datetime.timedelta(seconds=120),
    )
    checks = importlib.import_module(module)
    for name, function in list(vars(checks).items()):
        if name.startswith(prefix):
            torch.manual_seed(0)
            torch._dynamo.reset()
            function()
            print(f"{name}: passed", flush=True)
    # A process that leaves early takes the other's connection with it.
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
