"""Affine algebra along the last axis: chains of linear maps, merged where that is cheaper."""

from .chains import LINEAR_CHAINS

__all__ = ["LINEAR_CHAINS"]
