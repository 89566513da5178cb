"""The hyperboloid of curvature `-c`: rows `(x0, x)` with `-x0^2 + ||x||^2 = -1/c`, time first.

The time component of a point is taken from its space components, and that of a tangent vector from tangency: rounding
never takes a point off the hyperboloid, and the gradient of a stored time is 0. Only `inner` reads what is stored.
Inner products are summed in float64. Gradients are finite: that of `dist(x, x)` is 0. The argument of cosh is kept at
`log(max) - 2` of the dtype or less, 86.7 in float32.
"""

from .maps import expmap, expmap0, logmap, logmap0, parallel_transport
from .metric import cdist, centroid, dist, geodesic, inner
from .positions import project, to_klein, to_poincare

__all__ = [
    "cdist",
    "centroid",
    "dist",
    "expmap",
    "expmap0",
    "geodesic",
    "inner",
    "logmap",
    "logmap0",
    "parallel_transport",
    "project",
    "to_klein",
    "to_poincare",
]
