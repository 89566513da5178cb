"""What this machine can do, for the cost model: measured once, kept in the user's cache folder."""

from .cached import cache_path, facts, machine_for, refresh
from .check import Comparison, compare
from .host import cpu_model, usable_cores

__all__ = [
    "Comparison",
    "cache_path",
    "compare",
    "cpu_model",
    "facts",
    "machine_for",
    "refresh",
    "usable_cores",
]
