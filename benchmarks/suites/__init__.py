"""What can be measured: suite name -> a function of the device that yields its cases one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stonefx.benchmarks.case import Case
from stonefx.benchmarks.suites.chain import chain_cases
from stonefx.benchmarks.suites.hyperbolic import hyperbolic_cases

SUITES: dict[str, Callable[[str], Iterator[Case]]] = {
    "chain": chain_cases,
    "hyperbolic": hyperbolic_cases,
}
