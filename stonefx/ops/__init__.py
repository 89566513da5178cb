"""`torch.ops.stone.*`: fused operators, with fake, native gradient, batching and a reference in torch."""

from .butterfly import butterfly
from .expmap0 import expmap0
from .library import load
from .logmap0 import logmap0
from .low_rank_linear import low_rank_linear
from .mobius_add import mobius_add
from .poincare_cdist import poincare_cdist

load()

__all__ = ["butterfly", "expmap0", "logmap0", "low_rank_linear", "mobius_add", "poincare_cdist"]
