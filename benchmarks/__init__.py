"""The benchmark harness and its suites, installed as `stonefx.benchmarks`.

`case` is the vocabulary, `harness` times interleaved arms, `load` watches for stolen cores,
`machine` states where it ran, `results` makes the tables and the JSON, `suites` holds what is measured.
"""

from stonefx.benchmarks.case import Arm, ArmResult, Case, CaseResult, Settings
from stonefx.benchmarks.harness import measure
from stonefx.benchmarks.results import result_document, result_table

__all__ = ["Arm", "ArmResult", "Case", "CaseResult", "Settings", "measure", "result_document", "result_table"]
