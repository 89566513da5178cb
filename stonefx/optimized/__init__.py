"""The module that `stonefx.optimize` returns: a rewritten graph as one generated call over owned weights."""

from .batches import with_free_batch
from .layout import row_major_arguments, written_weights
from .module import LazyModule, OptimizedModule, PartlyOptimizedModule, program_of
from .ownership import Borrowed
from .program import Program, make_program
from .weights import has_hooks, owner, weight
from .whole import run_preserved, verify_whole

__all__ = [
    "Borrowed",
    "LazyModule",
    "OptimizedModule",
    "PartlyOptimizedModule",
    "Program",
    "has_hooks",
    "make_program",
    "owner",
    "program_of",
    "row_major_arguments",
    "run_preserved",
    "verify_whole",
    "weight",
    "with_free_batch",
    "written_weights",
]
