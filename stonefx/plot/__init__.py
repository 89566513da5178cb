"""Pictures of hyperbolic space, for the extra `plot` (`pip install "stonefx[plot]"`).

Every function returns the matplotlib figure that it drew on: `figure.savefig("disk.png")` keeps it.
"""

from .models import compare_models
from .paths import geodesics
from .reduction import reduce_points
from .tilings import tessellation
from .trees import tree

__all__ = ["compare_models", "geodesics", "reduce_points", "tessellation", "tree"]
