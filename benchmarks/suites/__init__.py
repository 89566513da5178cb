"""What can be measured: suite name -> a function of the device that yields its cases one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from stonefx.benchmarks.case import Case, CaseResult, Planned
from stonefx.benchmarks.ops.table import ops_table
from stonefx.benchmarks.suites.chain import chain_cases
from stonefx.benchmarks.suites.hyperbolic import hyperbolic_suite
from stonefx.benchmarks.suites.integrations import integration_cases
from stonefx.benchmarks.suites.low_rank import low_rank_cases, low_rank_table
from stonefx.benchmarks.suites.ops import ops_cases
from stonefx.benchmarks.suites.papers import paper_cases
from stonefx.benchmarks.suites.regions import region_cases
from stonefx.benchmarks.suites.zoo import zoo_cases
from stonefx.benchmarks.zoo_table import zoo_table

SUITES: dict[str, Callable[[str], Iterator[Case] | Iterator[Planned]]] = {
    "chain": chain_cases,
    "hyperbolic": hyperbolic_suite,
    "integrations": integration_cases,
    "low-rank": low_rank_cases,
    "ops": ops_cases,
    "papers": paper_cases,
    "regions": region_cases,
    "zoo": zoo_cases,
}
# Run only when they are named: they take most of an hour, or need packages that stonefx does not.
LONG = frozenset({"integrations", "low-rank", "ops", "papers", "regions", "zoo"})
TABLES: dict[str, Callable[[Sequence[CaseResult]], str]] = {
    "low-rank": low_rank_table,
    "ops": ops_table,
    "zoo": zoo_table,
}
