"""The hyperboloid of curvature `-c`: rows `(x0, x)` with `-x0^2 + ||x||^2 = -1/c`, time first.

The time component of a point is taken from its space components, and that of a tangent vector from tangency: rounding
never takes a point off the hyperboloid, and the gradient of a stored time is 0. Only `inner` reads what is stored.
Inner products are summed in float64. Gradients are finite: that of `dist(x, x)` is 0. The argument of cosh is kept at
`log(max) - 2` of the dtype or less, 86.7 in float32.

Far from the origin too, whichever of two points is the farther one and however nearly they lie on one ray, `dist`,
`logmap`, `geodesic` (for `t` in [0, 1]), `parallel_transport`, `expmap` and their gradients are what the stored entries
say: to one rounding of the dtype and `8 + 2 sqrt(c) d` of float64, for points up to 86 (float32) and 200 (float64) over
`sqrt(c)` from the origin. `cdist` has 1e-8 of a distance in float32 and 1e-12 in float64, to 150 there. The error of a
tangent vector is one of its length in the tangent space: in entries, that length times `sqrt(c) x0`.
A curvature that is not positive gives NaN where it is a tensor with more than one number, or not on the CPU, which
would have to be waited for; one number on the CPU gives an error.
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
