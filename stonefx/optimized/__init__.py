"""The module that `stonefx.optimize` returns: a rewritten graph as one generated call over owned weights."""

from .batches import other_sizes_run, with_free_batch
from .following import Folds
from .layout import row_major_arguments, written_weights
from .masked_attention import leave_fast_paths
from .module import LazyModule, OptimizedModule, PartlyOptimizedModule, optimized_module, program_of
from .parts import kept_state, plain_twin
from .program import Program, make_program
from .weights import has_hooks, held_elsewhere, overlapping_weights, owner, weight
from .whole import results_in_float64, run_preserved, verify_whole

__all__ = [
    "Folds",
    "LazyModule",
    "OptimizedModule",
    "PartlyOptimizedModule",
    "Program",
    "has_hooks",
    "held_elsewhere",
    "kept_state",
    "leave_fast_paths",
    "make_program",
    "optimized_module",
    "other_sizes_run",
    "overlapping_weights",
    "owner",
    "plain_twin",
    "program_of",
    "results_in_float64",
    "row_major_arguments",
    "run_preserved",
    "verify_whole",
    "weight",
    "with_free_batch",
    "written_weights",
]
