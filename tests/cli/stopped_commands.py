"""Commands that are stopped: each in a process of its own, that a warm one starts, so that none imports torch anew.

Read from standard input, a line of JSON a command: its `arguments`, the `folder` it runs in, and what stops it, the
`signal` (a number), sent before the `event`-th change of the disk below that folder or after so many `seconds`.
Written, a line each: the exit `code`, and how many `events` there were.
"""

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from stonefx import cli, demo, explain
from stonefx.benchmarks import Arm, Case, run, suites

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}


def quick_suites():
    """Suites that take no time, under the real names."""

    def cases(device):
        for batch in (1, 8):
            arms = [Arm(name=name, call=lambda: torch.ones(2)) for name in ("eager", "stone")]
            yield Case(name=f"batch {batch}", arms=arms, truth=[torch.ones(2, dtype=torch.float64)])

    for module in (suites, run):
        module.SUITES = {"chain": cases, "hyperbolic": cases}


def quick_demo(say):
    """A demo without its training and its timing."""
    say("two models")
    return {"chain": {}}, explain(torch.nn.Linear(4, 4), torch.ones(1, 4))


class Disk:
    """Counts the changes below a folder, and sends a signal before one of them."""

    def __init__(self, folder, number, event):
        self.folder, self.number, self.event = str(folder), number, event
        self.seen, self.watches = 0, True

    def __call__(self, name, arguments):
        if not self.watches:
            return
        if name == "open":
            path, _, flags = arguments
            if not isinstance(path, str | bytes | os.PathLike) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif name in CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, int) and os.path.abspath(os.fsdecode(path)).startswith(self.folder):
            self.seen += 1
            if self.seen - 1 == self.event:
                os.kill(os.getpid(), self.number)


def run_one(asked, report):
    """The command itself, in the process that is stopped."""
    folder = Path(asked["folder"])
    os.chdir(folder / "here")
    tempfile.tempdir = str(folder / "temporary")
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    sys.argv = ["stonefx"]
    disk = Disk(folder, asked["signal"], asked.get("event"))
    sys.addaudithook(disk)
    if asked.get("seconds") is not None:
        me = os.getpid()

        def later():
            time.sleep(asked["seconds"])
            os.kill(me, asked["signal"])

        threading.Thread(target=later, daemon=True).start()
    try:
        cli.main(asked["arguments"], prog_name="stonefx")
    finally:
        disk.watches = False
        os.write(report, json.dumps({"events": disk.seen}).encode())


def serve():
    """Run what is asked for until there is no more."""
    torch.set_num_threads(1)
    os.environ["STONEFX_MACHINE"] = "default"
    if "--real" not in sys.argv:
        quick_suites()
        demo.run_demo = quick_demo
    # What the first call alone does, is done.
    with contextlib.redirect_stdout(io.StringIO()):
        explain(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)).eval(), torch.ones(1, 4))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reads)
            run_one(asked, writes)
        os.close(writes)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reads) as pipe:
            told = pipe.read()
        print(json.dumps(json.loads(told or "{}") | {"code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    serve()
