"""An optimized model in one file: its weights, its graph and how it is called."""

from .load import load
from .save import save

__all__ = ["load", "save"]
