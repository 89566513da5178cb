"""Run every CUDA operator, forward and backward, under the tools of compute-sanitizer: `python .ci/sanitize.py`.

It lies here, not in the package, since the arguments of the operators are those of the tests. Full logs go to a folder.
Exit code 1: a tool found errors or did not finish. 2: it cannot run here.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# What is printed in full of each tool: enough that no kernel hides behind the errors of another.
PRINTED = 10_000
TESTS = Path(__file__).resolve().parent.parent / "tests" / "ops"
DONE = "every operator was called"


def errors(text: str) -> int | None:
    """What a tool's output says it found, warnings of races included; None where it has no summary.

    >>> errors("========= ERROR SUMMARY: 2 errors"), errors("nothing")
    (2, None)
    >>> errors("========= RACECHECK SUMMARY: 3 hazards displayed (1 error, 2 warnings)")
    3
    """
    found = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)", text)
    return sum(map(int, found)) if found else None


def by_kernel(text: str) -> Counter[str]:
    """How many of the errors that a tool printed are of each kernel.

    `initcheck` may take memory for unwritten that cuBLAS wrote through the copy engine of Hopper: on an H100 it lists
    `take_rows` of bfloat16. No column reaches the padding between the products that it joins: those below the rank stay
    below it, and the others begin behind the padding; in the case that is joined by whole packs there is none at all.
    `call_all` ends with a product like its first, that a kernel of torch alone reads: where that one is listed too, the
    tool does not see such stores.

    >>> by_kernel("========= Invalid read\\n=========     at void f<int>(T, int)+0x1a0\\n=========     by thread (0,0)")
    Counter({'void f<int>(T, int)': 1})
    >>> by_kernel("========= Error: Race reported between Write access at 0x90 in g(int) and Read access at g(int)+0xa")
    Counter({'g(int)': 2})
    """
    places = re.findall(r"^=+ .*?\bat .+$", text, re.MULTILINE)
    found = (
        re.findall(r"\bat (?:0x[0-9a-f]+ in )?(.*?\))(?=\+0x|\s*$| and | in )", place) for place in places
    )
    return Counter(name for names in found for name in names)


def uncalled(registered: Iterable[str], called: Iterable[str]) -> list[str]:
    """Operators with kernels that no case calls.

    >>> uncalled(["stone::a_forward", "stone::a_backward", "stone::b_forward", "aten::c"], ["a"])
    ['b']
    """
    own = (name.removeprefix("stone::") for name in registered if name.startswith("stone::"))
    names = {name.removesuffix("_forward").removesuffix("_backward") for name in own}
    return sorted(names - {*called})


def cases(smallest: int = 2) -> list[tuple[str, object]]:
    """Operator, and its arguments by dtype: a size or two of each, with tails of tiles among them."""
    sys.path.insert(0, str(TESTS))
    import row_cases
    import test_cuda_device as device
    from operator_cases import NAMES, arguments

    found: list[tuple[str, object]] = []
    for shape in device.SHAPES[1:3]:
        for name in NAMES:
            found.append((name, lambda d, n=name, s=shape: arguments(n, d, batch=s[:1], dim=s[1])))
        for name in row_cases.NAMES:
            found.append(
                (name, lambda d, n=name, s=shape: row_cases.row_arguments(n, d, batch=s[:1], dim=s[1]))
            )
    kept: dict[str, int] = {}
    for name, make in device.OTHERS.values():
        kept[name] = kept.get(name, 0) + 1
        if kept[name] <= smallest:
            found.append((name, make))
    return found


def call_all() -> None:
    """Call every case in every dtype on the card; what it computes is the tests' affair."""
    made = cases()
    import torch
    from operator_cases import DTYPES
    from test_cuda_device import DEVICE, results

    registered = torch._C._dispatch_get_registrations_for_dispatch_key("CUDA")
    if not any(name.startswith("stone::") for name in registered):
        sys.exit(
            "the CUDA library of stonefx is not loaded: build it with make cuda, on a machine with a card"
        )
    if missing := uncalled(registered, [name for name, _ in made]):
        sys.exit(
            f"no case calls {', '.join(missing)}; add arguments to OTHERS in tests/ops/test_cuda_device.py"
        )
    for name, make in made:
        for dtype in DTYPES:
            results(name, make(dtype), DEVICE)
    # The control of `by_kernel`: a product that cuBLAS writes and a kernel of torch reads.
    ones = torch.ones(32, 64, device=DEVICE, dtype=torch.bfloat16)
    if not bool(((ones[:5] @ ones.mT).float() == 64).all()):
        sys.exit("a product of ones in bfloat16 is not what it should be")
    torch.cuda.synchronize()
    print(DONE)


def find() -> str | None:
    """Where compute-sanitizer is."""
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")


def run(
    tool: str, program: str, options: list[str], logs: Path, limit: float
) -> tuple[int | None, bool, Counter[str]]:
    """Errors that a tool found, whether all operators were called, and the kernels; its output goes to a file."""
    command = [
        program,
        f"--tool={tool}",
        f"--print-limit={PRINTED}",
        *options,
        sys.executable,
        __file__,
        "--call",
    ]
    # Each tensor is an allocation of its own, so that what is read beside it is seen.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    log = logs / f"{tool}.txt"
    with log.open("w") as out:
        try:
            subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, env=environment, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            out.write(f"\nstopped after {limit:.0f} s\n")
    text = log.read_text(errors="replace")
    return errors(text), DONE in text, by_kernel(text)


def main() -> int:
    """Print tool -> errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tools", nargs="*", help=f"of {', '.join(TOOLS)}; all where none is named")
    parser.add_argument("--call", action="store_true", help="call the operators, without a tool")
    parser.add_argument("--logs", type=Path, default=Path("build/sanitizer"))
    parser.add_argument("--seconds", type=float, default=120.0, help="limit of a tool")
    parser.add_argument(
        "--option", action="append", default=[], help="for compute-sanitizer: --option=--kernel-regex=..."
    )
    given = parser.parse_args()
    if given.call:
        call_all()
        return 0
    if unknown := [tool for tool in given.tools if tool not in TOOLS]:
        parser.error(f"there is no tool {unknown[0]!r}; choose from {', '.join(TOOLS)}")
    program = find()
    if program is None:
        print(
            "compute-sanitizer is not on PATH nor in /usr/local/cuda/bin: it comes with the CUDA toolkit",
            file=sys.stderr,
        )
        return 2
    given.logs.mkdir(parents=True, exist_ok=True)
    failed = False
    for tool in given.tools or TOOLS:
        found, done, kernels = run(tool, program, given.option, given.logs, given.seconds)
        failed |= bool(found) or found is None or not done
        print(
            f"{tool:10} {'no summary' if found is None else found} errors{'' if done else ', did not finish'}",
            flush=True,
        )
        for kernel, count in kernels.most_common():
            print(f"{count:10} at {kernel}", flush=True)
    print(f"logs: {given.logs}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
