"""Case name -> a function that yields its rows; one that is done already is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stonefx.benchmarks.compress.cases.decomposition import decomposition_rows
from stonefx.benchmarks.compress.cases.digits import digits_rows
from stonefx.benchmarks.compress.cases.fcpe import fcpe_rows
from stonefx.benchmarks.compress.cases.floor import floor_rows
from stonefx.benchmarks.compress.cases.minilm import ablation_rows, minilm_rows
from stonefx.benchmarks.compress.cases.pitch import efficientnet_rows, pitch_rows
from stonefx.benchmarks.compress.cases.seed_chain import seed_chain_rows
from stonefx.benchmarks.compress.cases.smollm import smollm_rows
from stonefx.benchmarks.compress.cases.speed import speed_rows
from stonefx.benchmarks.compress.rows import Row, Wanted

CASES: dict[str, Callable[[Wanted], Iterator[Row]]] = {
    "chain": seed_chain_rows,
    "digits": digits_rows,
    "floor": floor_rows,
    "minilm": minilm_rows,
    "ablation": ablation_rows,
    "smollm": smollm_rows,
    "speed": speed_rows,
    "pitch": pitch_rows,
    "fcpe": fcpe_rows,
    "efficientnet": efficientnet_rows,
    "decomposition": decomposition_rows,
}
