"""How the time of `optimize` grows with the model: `stonefx bench growth --json out.json --plot growth.png`.

Rows of maps, of residual blocks, dense blocks and recurrences are what planning is hardest for: all their maps belong
to one region. BERT, LLaMA and ResNet are models of practice whose layers stand between activations. All are narrow, so
that what is measured is the work on the graph, not on the weights.
"""

from __future__ import annotations

import datetime
import gc
import json
import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import stonefx
from stonefx.benchmarks.load import load_average
from stonefx.benchmarks.machine import machine_facts
from stonefx.files import save_figure
from stonefx.terminal import table as fitted

# A model and an example call, of a number of layers.
Make = Callable[[int], tuple[nn.Module, Any]]


class Residual(nn.Module):
    """`x + W x`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape `[*batch, width]` to the same."""
        return x + self.map(x)


class DenseBlock(nn.Module):
    """Every layer reads all values before it."""

    def __init__(self, layers: int, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width * (place + 1), width) for place in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape `[*batch, width]` to the same."""
        values = [x]
        for layer in self.layers:
            values.append(layer(torch.cat(values, dim=-1)))
        return values[-1]


class Recurrence(nn.Module):
    """`h <- W h + U x_t`, written out."""

    def __init__(self, steps: int, width: int = 32) -> None:
        super().__init__()
        self.steps = steps
        self.state, self.read = nn.Linear(width, width), nn.Linear(8, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape `[batch, steps, 8]` to `[batch, width]`."""
        hidden = self.read(x[:, 0])
        for step in range(1, self.steps):
            hidden = self.state(hidden) + self.read(x[:, step])
        return hidden


def _bert(layers: int) -> tuple[nn.Module, Any]:
    import transformers

    config = transformers.BertConfig(
        vocab_size=200,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        num_hidden_layers=layers,
    )
    return transformers.BertModel(config), {"input_ids": torch.randint(0, 200, (2, 16))}


def _llama(layers: int) -> tuple[nn.Module, Any]:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=200,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=layers,
        use_cache=False,
    )
    return transformers.LlamaModel(config), {"input_ids": torch.randint(0, 200, (2, 16))}


def _resnet(layers: int) -> tuple[nn.Module, Any]:
    import transformers

    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16], depths=[layers], layer_type="basic"
    )
    return transformers.ResNetModel(config), {"pixel_values": torch.randn(1, 3, 32, 32)}


CASES: dict[str, tuple[Make, tuple[int, ...]]] = {
    "maps in a row": (
        lambda n: (nn.Sequential(*(nn.Linear(64, 64) for _ in range(n))), torch.randn(8, 64)),
        (16, 32, 64, 128),
    ),
    "residual blocks": (
        lambda n: (nn.Sequential(*(Residual(64) for _ in range(n))), torch.randn(8, 64)),
        (8, 16, 32, 64),
    ),
    "dense block": (lambda n: (DenseBlock(n), torch.randn(8, 16)), (4, 8, 16, 32)),
    "recurrence": (lambda n: (Recurrence(n), torch.randn(8, n, 8)), (5, 10, 20, 40)),
    "BERT": (_bert, (4, 12, 24, 48, 96)),
    "LLaMA": (_llama, (4, 12, 24, 48, 96)),
    "ResNet": (_resnet, (4, 12, 24, 48, 96)),
}


class UnknownGrowth(ValueError):
    """There is no case of a name that was asked for."""


@dataclass(frozen=True)
class Growth:
    """What one `optimize` took, in seconds of this process's time on the cores.

    Args:
        case: a key of `CASES`.
        layers: of the model.
        total: capture, passes, verification and building.
        passes: the passes, with verification.
        planning: the passes alone, as `verify=False` has them.
        parameters_before, parameters_after: of the model and of the result.
    """

    case: str
    layers: int
    total: float
    passes: float
    planning: float
    parameters_before: int
    parameters_after: int


def measure(case: str, layers: int) -> Growth:
    """Optimize one model, with verification and without."""
    torch.manual_seed(0)
    make, _ = CASES[case]
    model, example = make(layers)
    model = model.eval()
    found = [_optimized(model, example, verify) for verify in (True, False)]
    return Growth(
        case,
        layers,
        total=found[0][0],
        passes=found[0][1],
        planning=found[1][1],
        parameters_before=sum(value.numel() for value in model.parameters()),
        parameters_after=found[0][2],
    )


def _optimized(model: nn.Module, example: Any, verify: bool) -> tuple[float, float, int]:
    gc.collect()
    torch._dynamo.reset()
    with warnings.catch_warnings(action="ignore"):
        start, wall = time.process_time(), time.perf_counter()
        fast = stonefx.optimize(model, example, verify=verify, machine="default")
        total, wall = time.process_time() - start, time.perf_counter() - wall
    # The report has seconds of the clock; other programs on the cores lengthen both alike.
    busy = total / wall
    report: stonefx.Report = fast.report  # type: ignore[assignment]
    passes = busy * sum(report.seconds.values())
    return total, passes, sum(value.numel() for value in fast.parameters())


def run(
    only: Iterable[str] = (), on_result: Callable[[Growth], object] = lambda result: None
) -> list[Growth]:
    """Measure every case at every size, the smallest first.

    Raises:
        UnknownGrowth: there is no case of a name in `only`.
    """
    for name in only:
        if name not in CASES:
            raise UnknownGrowth(f"growth has no case {name!r}; it has {', '.join(CASES)}")
    for make, _ in (CASES["maps in a row"], CASES["residual blocks"]):
        _optimized(make(4)[0].eval(), make(4)[1], True)  # what torch and stonefx set up once
    results = []
    for case, (_, sizes) in CASES.items():
        if only and case not in only:
            continue
        for layers in sizes:
            results.append(measure(case, layers))
            on_result(results[-1])
    return results


def exponents(results: Iterable[Growth]) -> dict[tuple[str, int], float]:
    """For every case and size but its first: how the total grew since the size before, as a power of the layers.

    >>> one = Growth("BERT", 4, 1.0, 0.5, 0.25, 0, 0)
    >>> exponents([one, Growth("BERT", 8, 4.0, 0.5, 0.25, 0, 0)])
    {('BERT', 8): 2.0}
    """
    found: dict[tuple[str, int], float] = {}
    last: dict[str, Growth] = {}
    for one in results:
        before = last.get(one.case)
        if before is not None:
            found[one.case, one.layers] = math.log(one.total / before.total) / math.log(
                one.layers / before.layers
            )
        last[one.case] = one
    return found


def table(results: Iterable[Growth]) -> str:
    """One row a case and size."""
    results = list(results)
    powers = exponents(results)
    rows = [
        (
            one.case,
            str(one.layers),
            *(f"{seconds:.2f}" for seconds in (one.planning, one.passes, one.total)),
            "" if (power := powers.get((one.case, one.layers))) is None else f"{power:.2f}",
            str(one.parameters_before),
            str(one.parameters_after),
        )
        for one in results
    ]
    headers = ("case", "layers", "planning s", "passes s", "optimize s", "grows as n^", "parameters", "after")
    return fitted(rows, headers, right=range(1, len(headers)))


def document(results: Iterable[Growth], load: float | None) -> dict[str, Any]:
    """Everything measured in JSON's own types."""
    return {
        "schema": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "load": load,
        "cases": [asdict(one) for one in results],
    }


def as_text(results: Iterable[Growth]) -> str:
    """What was measured so far, as JSON."""
    return json.dumps(document(results, load_average()), indent=2)


def plot(results: Iterable[Growth], path: Path) -> None:
    """Draw the total against the layers, both axes logarithmic, with a line of slope 1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    by_case: dict[str, list[Growth]] = {}
    for one in results:
        by_case.setdefault(one.case, []).append(one)
    for case, found in by_case.items():
        axes.plot([one.layers for one in found], [one.total for one in found], marker="o", label=case)
    low, high = axes.get_xlim()
    base = min((one.total / one.layers for found in by_case.values() for one in found), default=1.0)
    axes.plot(
        [max(low, 4), high], [base * max(low, 4), base * high], color="0.7", linestyle="--", label="linear"
    )
    axes.set(xscale="log", yscale="log", xlabel="layers", ylabel="optimize, seconds on the cores")
    axes.legend(frameon=False, fontsize="small")
    axes.grid(alpha=0.3)
    save_figure(figure, path, dpi=150)
    pyplot.close(figure)
