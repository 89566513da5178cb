"""Affine algebra: regions of linear maps along a feature axis, merged where that is cheaper."""

from .fold_attention import ATTENTION
from .merge_contraction_sums import LINEAR_CONTRACTION_SUMS
from .merge_contractions import LINEAR_CONTRACTIONS
from .merge_fan_out import LINEAR_FAN_OUT
from .merge_maps import LINEAR_CHAINS

__all__ = ["ATTENTION", "LINEAR_CHAINS", "LINEAR_CONTRACTIONS", "LINEAR_CONTRACTION_SUMS", "LINEAR_FAN_OUT"]
