"""Fill the caches of inductor for the cases of a card, in several processes at once: the minutes of a card are dear.

`python -m stonefx.benchmarks.precompile` before `stonefx bench hyperbolic ops --device cuda`, which then finds what it
would compile one after another. Cases that compile nothing are left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from stonefx.benchmarks.case import Planned
from stonefx.benchmarks.ops.rowwise import cuda_rowwise_cases
from stonefx.benchmarks.suites.hyperbolic import cuda_chain_cases


def part(planned: list[Planned], place: int, count: int) -> list[str]:
    """Make every `count`-th case, which runs its compiled arms once; the names of those that failed."""
    failed = []
    for one in planned[place::count]:
        try:
            one.make()
        except Exception as error:  # the benchmark says so again, with its reason
            failed.append(f"{one.name}: {type(error).__name__}")
    return failed


def main() -> int:
    """Start the processes and wait for them; exit code 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=6, help="each holds some GB of the card's memory")
    parser.add_argument("--part", type=int, help="compile this part here")
    given = parser.parse_args()
    if given.part is not None:
        for line in part([*cuda_rowwise_cases(), *cuda_chain_cases()], given.part, given.processes):
            print(line, file=sys.stderr)
        return 0
    start = time.perf_counter()
    environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "2"}
    command = [sys.executable, "-m", "stonefx.benchmarks.precompile", f"--processes={given.processes}"]
    children = [
        subprocess.Popen([*command, f"--part={place}"], env=environment) for place in range(given.processes)
    ]
    codes = [child.wait() for child in children]
    print(f"compiled in {time.perf_counter() - start:.0f} s")
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
