"""What the passes add to a compile: `python -m stonefx.benchmarks.compile_time` prints their share of inductor's time.

The model is BERT-base with random weights, compiled by `torch.compile(backend="stone")` without any cache.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import stonefx
from stonefx import backend as stone_backend
from stonefx.inner import compile_inner

LIMIT = 0.10


@dataclass(frozen=True)
class CompileTime:
    """Seconds of one compile: in all passes with their verification, in inductor, and by pass."""

    passes: float
    inner: float
    by_pass: dict[str, float]

    @property
    def share(self) -> float:
        """The passes' time over inductor's."""
        return self.passes / self.inner

    def __str__(self) -> str:
        """One sentence and the seconds of each pass."""
        each = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.by_pass.items())
        return f"passes {self.passes:.2f} s ({each}), inductor {self.inner:.1f} s: {100 * self.share:.1f} %"


def compile_time(model: nn.Module, inputs: dict[str, Any], inner: str = "inductor") -> CompileTime:
    """Compile a model once through the backend "stone" and take the time of its parts.

    Args:
        model: in evaluation mode.
        inputs: keyword arguments of one call.
        inner: what compiles the rewritten graph.

    Raises:
        RuntimeError: nothing was compiled.
    """
    seconds = 0.0

    def timed(*arguments: Any, **named: Any) -> Callable[..., Any]:
        nonlocal seconds
        start = time.perf_counter()
        compiled = compile_inner(*arguments, **named)
        seconds += time.perf_counter() - start
        return compiled

    torch.compiler.reset()
    stone_backend.compile_inner = timed
    try:
        with stone_backend.collected_reports() as made, torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", stonefx.StonefxWarning)
            torch.compile(model, backend="stone", options={"inner": inner}, dynamic=False)(**inputs)
    finally:
        stone_backend.compile_inner = compile_inner
    by_pass: dict[str, float] = {}
    for report in made:
        for name, spent in report.seconds.items():
            by_pass[name] = by_pass.get(name, 0.0) + spent
    if not by_pass or not seconds:
        raise RuntimeError("nothing was compiled; give a model with at least one operator")
    return CompileTime(sum(by_pass.values()), seconds, by_pass)


def main() -> None:
    """Print the share for BERT-base, after a small compile that pays for imports and the machine's facts."""
    import transformers
    from torch._inductor import config

    from stonefx.benchmarks.zoo import ARCHITECTURES, TINY

    config.force_disable_caches = True
    compile_time(*ARCHITECTURES["bert"](TINY))
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig()).eval()
    tokens = torch.randint(0, 1000, (2, 128))
    found = compile_time(model, {"input_ids": tokens})
    print(f"BERT-base: {found} (limit {100 * LIMIT:.0f} %)")


if __name__ == "__main__":
    main()
