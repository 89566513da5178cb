"""The module that `stonefx.optimize` returns: a rewritten graph as one generated call over owned weights."""

from .batches import with_free_batch
from .module import LazyModule, OptimizedModule, PartlyOptimizedModule
from .program import Program, make_program, row_major_arguments
from .weights import weight
from .whole import run_preserved, verify_whole

__all__ = [
    "LazyModule",
    "OptimizedModule",
    "PartlyOptimizedModule",
    "Program",
    "make_program",
    "row_major_arguments",
    "run_preserved",
    "verify_whole",
    "weight",
    "with_free_batch",
]
