"""Affine algebra: regions of linear maps along a feature axis, merged where that is cheaper."""

from .attention import ATTENTION
from .chains import LINEAR_CHAINS
from .contraction_chains import LINEAR_CONTRACTIONS
from .fan_out import LINEAR_FAN_OUT

__all__ = ["ATTENTION", "LINEAR_CHAINS", "LINEAR_CONTRACTIONS", "LINEAR_FAN_OUT"]
