"""The other table: identities on recognised operators, each with what must be proved and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import identities
from .pairs import Pair
from .rows.matching import Match
from .steps import expmap, logmap, planes


@dataclass(frozen=True)
class Rule:
    """One identity: an operator of what another one gives.

    Args:
        name: the identity.
        outer, inner: the operators.
        apply: the one operator that both make, or why they do not, in words.
        needs: the condition that is proved, and the example that shows why it is needed.
        target: what reports call the site; the operator where it is empty.
        position: which operand of the outer operator the inner one gives.
    """

    name: str
    outer: str
    inner: str
    apply: Callable[[Pair], Match | str]
    needs: str
    target: str = ""
    position: int = 0


MERGED = "project_merge"
RULES = (
    Rule(
        "dist0(x + y) = dist(-x, y)",
        "poincare_dist0",
        "mobius_add",
        identities.dist_of_sum,
        "equal curvatures; a clamp of the norm below rounding: clamped at 1e-5, all nearer points are 2e-5 apart",
    ),
    Rule(
        "r (q x) = (r q) x",
        "mobius_scalar_mul",
        "mobius_scalar_mul",
        identities.scaled_twice,
        "no limit of artanh or tanh that can act between: 0.1 (100 x) saturates and does not come back",
    ),
    Rule(
        "x + tanh(s g n / 2) / (s n) v = expmap(x, v), g = 2 / (1 - c||x||^2)",
        "mobius_add",
        "expmap_step",
        expmap,
        "g is that of the row that is added to: with the factor of another point it is no geodesic",
        position=1,
    ),
    Rule(
        "2 / (s g) artanh(s ||w||) w / ||w|| = logmap(x, y), w = -x + y",
        "logmap_step",
        "mobius_add",
        logmap,
        "g is that of the row that is taken away: with the factor of y the length is another",
    ),
    *(
        Rule(
            "the distance of -p + x to hyperplanes through 0 = that of x to those through p",
            outer,
            "mobius_add",
            planes,
            "points and hyperplanes are all pairs: of single ones the sum is no larger than they are",
            "poincare_mlr",
        )
        for outer in ("hnnpp_planes", "planes_step")
    ),
    *(
        Rule(
            f"project({name}) = {name} with a limit of tanh",
            "project",
            name,
            identities.projected_map,
            "the norms of the map are guarded alike, else its result may be shorter than tanh",
            MERGED,
        )
        for name in ("expmap0", "mobius_matvec", "mobius_scalar_mul")
    ),
    *(
        Rule(
            f"project({name}) = {name} with a largest radius",
            "project",
            name,
            identities.projected,
            "the result is taken as it is: twice it is shortened elsewhere",
            MERGED,
        )
        for name in ("mobius_add", "expmap")
    ),
    Rule(
        "project(project(x)) = project(x)",
        "project",
        "project",
        identities.projected_twice,
        "the ratio of the curvatures is a number: of two balls that vary either may be the smaller",
        MERGED,
    ),
    *(
        Rule(
            f"project({name}) = {name}, which is a point of the hyperboloid",
            "lorentz_project",
            name,
            identities.on_it_already,
            "equal curvatures: a point of c = 1 gets another time at c = 2",
            MERGED,
        )
        for name in ("lorentz_expmap0", "lorentz_expmap")
    ),
    Rule(
        "logmap0(expmap0(v)) = min(1, R / (s n)) v",
        "logmap0",
        "expmap0",
        identities.log_of_exp,
        "equal curvatures, norms that are clamped below rounding; without a limit between, the length of v: of a row "
        "of length 100 tanh is 1, and artanh of that infinite",
        "log_exp_cancel",
    ),
    Rule(
        "dist0(expmap0(v)) = 2 min(n, R / s)",
        "poincare_dist0",
        "expmap0",
        identities.dist0_of_exp,
        "as for logmap0: of a row of length 100 the distance is infinite",
        "log_exp_cancel",
    ),
    Rule(
        "-x + (x + y) = y",
        "mobius_add",
        "mobius_add",
        identities.added_and_taken,
        "no offset of a denominator, which keeps y from coming back; with numerics fast alone, since a NaN of x is "
        "lost and, of opposite points at the boundary, the denominator is 0",
        "mobius_cancel",
        1,
    ),
    *(
        Rule(
            f"{outer}({inner}(x)) = x",
            outer,
            inner,
            identities.there_and_back,
            "with numerics fast alone: of a point at twice the radius that at half of it comes back",
            "model_conversion",
        )
        for outer, inner in (
            ("klein_to_poincare", "poincare_to_klein"),
            ("poincare_to_klein", "klein_to_poincare"),
        )
    ),
)
