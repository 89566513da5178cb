"""What `make gpu` does: build for the cards of this machine, run the device tests, then the suites, by their worth.

For a machine that is had for half an hour and reaches no network: it needs an interpreter with torch, nvcc, cmake,
ninja, pybind11 and scikit-build-core, and takes wheels of what else is missing from a folder. Each step is written down
when it is done, and each case of a suite when it is measured, so that a run that was cut off goes on where it was.

    make gpu ARGS="--results out --minutes 25"
    make gpu ARGS="--device cpu --minutes 5"       the same on a machine without a card
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "gpu" / "site"


@dataclass(frozen=True)
class Step:
    """A command, what it may take, and whether what follows makes sense without it."""

    name: str
    command: list[str]
    seconds: float
    needed: bool = False


# Suite -> seconds a case, and seconds in all; in order of worth. From PRECOMPILED on inductor would take minutes.
SUITES = {
    "chain": (1.5, 120),
    "low-rank": (0.2, 150),
    "hyperbolic": (0.5, 300),
    "ops": (0.3, 400),
    "regions": (1.0, 300),
}
PRECOMPILED = "hyperbolic"


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="make gpu", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "gpu" / "results", help="a folder")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels that this interpreter lacks")
    parser.add_argument(
        "--library", type=Path, help="a folder of libraries that were built elsewhere, to build none"
    )
    parser.add_argument("--minutes", type=float, default=28, help="no step is begun or goes on after this")
    parser.add_argument("--only", action="append", default=[], help="a step; may be repeated")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes of the build and tests"
    )
    return parser.parse_args()


def steps(options: argparse.Namespace) -> list[Step]:
    """What is done, in order."""
    python = [sys.executable, "-m"]
    results = options.results.resolve()
    cuda = options.device == "cuda"
    install = [
        *python,
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--upgrade",
        "--target",
        str(SITE),
    ]
    listed: list[Step] = []
    if options.wheels is not None:
        wheels = [str(wheel) for wheel in sorted(options.wheels.resolve().glob("*.whl"))]
        listed.append(Step("wheels", [*install, *wheels], 60, needed=True))
    build_folder = ROOT / "build" / "gpu" / ("library" if cuda else "library-cpu")
    build = [*install, "--no-build-isolation", f"--config-settings=build-dir={build_folder}", str(ROOT)]
    listed.append(Step("build", build, 420, needed=True))
    on_card = [
        "tests/ops/test_cuda_device.py",
        "tests/doors/test_cuda_doors.py",
        "tests/fuzz/test_random_modules.py",
    ]
    tests = on_card if cuda else [f"tests/ops/test_cuda_{name}.py" for name in ("scratch", "formulas")]
    listed.append(
        Step(
            "tests", [*python, "pytest", "-q", "-n", str(options.workers), "--dist", "worksteal", *tests], 240
        )
    )
    for suite, (seconds, whole) in SUITES.items():
        if cuda and suite == PRECOMPILED:
            listed.append(Step("precompile", [*python, "stonefx.benchmarks.precompile"], 300))
        bench = [*python, "stonefx", "bench", suite, "--device", options.device, "--seconds", str(seconds)]
        listed.append(Step(suite, [*bench, "--json", str(results / f"{suite}.json"), "--resume"], whole))
    if cuda:
        listed.append(Step("sanitize", [sys.executable, str(ROOT / ".ci" / "sanitize.py")], 300))
    return listed


def environment(options: argparse.Namespace) -> dict[str, str]:
    """Of every step: what was installed is found, and what is built is for this machine's cards, in parallel."""
    workers = str(max(1, options.workers))
    return {
        **os.environ,
        **commit(),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")])),
        "PYTHONUNBUFFERED": "1",
        # The checkout's own packages, which hold no library, are not to be found before those that were installed.
        "PYTHONSAFEPATH": "1",
        "CMAKE_BUILD_PARALLEL_LEVEL": workers,
        "STONEFX_CUDA": "1" if options.device == "cuda" else "0",
    }


def commit() -> dict[str, str]:
    """For the results, which are measured outside of the checkout; nothing where git or the history is not here."""
    if os.environ.get("STONEFX_COMMIT"):  # said by who brought the files, whose history may be another
        return {}
    try:
        asked = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
        found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"STONEFX_COMMIT": found}


def run(step: Step, options: argparse.Namespace, limit: float) -> tuple[str, float]:
    """Run a step; gives how it ended, and its seconds. What it prints goes to a log beside the results as well."""
    begun = time.monotonic()
    log = options.results / f"{step.name}.log"
    if step.name == "build" and options.library is not None:
        taken_from(options.library)
        return "done", time.monotonic() - begun
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            step.command, cwd=ROOT, env=environment(options), stdout=file, stderr=subprocess.STDOUT
        )
        try:
            code = process.wait(timeout=limit)
            ended = "done" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit:.0f} s"
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return ended, time.monotonic() - begun


def taken_from(folder: Path) -> None:
    """Make the site of the checkout's packages and of libraries that were built elsewhere."""
    package = SITE / "stonefx"
    shutil.rmtree(package, ignore_errors=True)
    left_out = shutil.ignore_patterns("*.so", "__pycache__", "passes", "benchmarks", "results")
    shutil.copytree(ROOT / "stonefx", package, ignore=left_out)
    for inside in ("passes", "benchmarks"):
        shutil.copytree(ROOT / inside, package / inside, ignore=left_out)
    for library in folder.resolve().glob("*.so"):
        shutil.copy2(library, package)
    facts = SITE / "stonefx-0.1.0.dist-info"
    facts.mkdir(exist_ok=True)
    (facts / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: stonefx\nVersion: 0.1.0\n", encoding="utf-8"
    )
    (facts / "entry_points.txt").write_text(
        "[torch_dynamo_backends]\nstone = stonefx.backend:stone\n", encoding="utf-8"
    )


def main() -> int:
    """Run what is not done yet, and print how each step ended; 1 where one failed."""
    options = parsed()
    options.results.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * options.minutes
    state = options.results / "steps.json"
    done = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    if not (SITE / "stonefx").exists():  # results that were brought to another machine
        for lost in ("wheels", "build", "precompile"):
            done.pop(lost, None)
    for step in steps(options):
        if (options.only and step.name not in options.only) or done.get(step.name, {}).get("ended") == "done":
            continue
        left = ends - time.monotonic()
        if left < 5:
            print(f"{step.name:12} not begun: {options.minutes:g} minutes are over", flush=True)
            continue
        ended, seconds = run(step, options, min(left, step.seconds))
        done[step.name] = {"ended": ended, "seconds": round(seconds, 1)}
        written = state.with_suffix(".part")
        written.write_text(json.dumps(done, indent=2), encoding="utf-8")
        written.replace(state)
        print(f"{step.name:12} {seconds:6.1f} s  {ended}", flush=True)
        if ended != "done":
            log = options.results / f"{step.name}.log"
            tail = (
                log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:] if log.exists() else []
            )
            print("\n".join(f"    {line}" for line in tail), flush=True)
            if step.needed:
                break
    print(f"results: {options.results}; the same command goes on where this one ended")
    return 0 if all(each["ended"] == "done" for each in done.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
