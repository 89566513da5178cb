"""The module that `stonefx.optimize` returns: a rewritten graph as one generated call over owned weights."""

from .batches import other_sizes_run, with_free_batch
from .layout import row_major_arguments
from .module import LazyModule, OptimizedModule, PartlyOptimizedModule, program_of
from .parts import as_part, kept_tables, optimized_module
from .program import Program, make_program
from .weights import has_hooks, owner, weight
from .whole import run_preserved, verify_whole

__all__ = [
    "LazyModule",
    "OptimizedModule",
    "PartlyOptimizedModule",
    "Program",
    "as_part",
    "has_hooks",
    "kept_tables",
    "make_program",
    "optimized_module",
    "other_sizes_run",
    "owner",
    "program_of",
    "row_major_arguments",
    "run_preserved",
    "verify_whole",
    "weight",
    "with_free_batch",
]
