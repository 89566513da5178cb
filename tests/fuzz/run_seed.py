"""One random module, or a range of them, by hand: `python tests/fuzz/run_seed.py 17 [--door compile] [--shrink]`."""

from __future__ import annotations

import argparse
import time

from differential import DOORS, NoVerdict
from random_modules import generate
from random_program import PLACE
from shrink import outcome, shrunk
from tqdm import tqdm


def main() -> None:
    """Print the module of a seed and what is wrong with it; of a range, the seeds that fail."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there on")
    parser.add_argument("--door", choices=DOORS, default="optimize")
    parser.add_argument("--inner", choices=("eager", "aot_eager", "inductor"), default="eager")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shrink", action="store_true", help="look for a smaller program that fails too")
    given = parser.parse_args()
    PLACE["device"] = given.device
    start, judged, failed = time.perf_counter(), 0, []
    for seed in tqdm(range(given.seed, given.seed + given.count), disable=None):
        program = generate(seed)
        problem = outcome(program, given.door, given.inner)
        judged += not isinstance(problem, NoVerdict)
        if isinstance(problem, str):
            failed.append(seed)
            if given.shrink:
                program, problem = shrunk(program, given.door, given.inner)
        if given.count == 1 or isinstance(problem, str):
            print(
                f"{program.source()}\n# seed {seed}, {'training' if program.train else 'evaluation'}",
                flush=True,
            )
            print(f"# inputs {list(program.inputs.values())}\n# {problem}\n", flush=True)
    print(f"{judged} judged, failed: {failed}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
