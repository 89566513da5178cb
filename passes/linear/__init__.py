"""Affine algebra: regions of linear maps along a feature axis, merged where that is cheaper."""

from .attention import ATTENTION
from .chains import LINEAR_CHAINS
from .contraction_chains import LINEAR_CONTRACTIONS
from .contraction_sums import LINEAR_CONTRACTION_SUMS
from .fan_out import LINEAR_FAN_OUT

__all__ = ["ATTENTION", "LINEAR_CHAINS", "LINEAR_CONTRACTIONS", "LINEAR_CONTRACTION_SUMS", "LINEAR_FAN_OUT"]
