"""Affine algebra: regions of linear maps along a feature axis, merged where that is cheaper."""

from .fold_attention import ATTENTION
from .merge_fan_out import LINEAR_FAN_OUT
from .merge_maps import LINEAR_CHAINS, LINEAR_CONTRACTIONS

__all__ = ["ATTENTION", "LINEAR_CHAINS", "LINEAR_CONTRACTIONS", "LINEAR_FAN_OUT"]
