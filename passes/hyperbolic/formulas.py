"""The table: every formula that is recognised, with its operands, what it gives, its guard slots, bound and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# The guards of a norm, in the order in which they act: `max(sqrt(c) (max(sqrt(||x||^2 + a), b) + d), e)`.
NORM = ("square_offset", "min_norm", "norm_offset", "min_scaled")
RADIAL = (*NORM, "nan_at_zero", "separate", *(f"argument_{name}" for name in NORM))
SUM = ("min_denominator", "denominator_offset")
# The least that a distance may be, in units of `1 / s`: of a clamp of its function's argument from below. No operator
# has it; it is a clamp behind one.
FLOOR = "min_distance"
STRETCH = ("min_norm", "atanh_limit", "tanh_limit")


@dataclass(frozen=True, kw_only=True)
class Formula:
    """One row of the table.

    Args:
        target: the operator, and what reports call the site.
        text: the formula, with `n = ||x||` and `s = sqrt(c)`; norms, arguments and denominators are guarded in slots.
        operands: what each row vector is: "tangent", a vector at the origin; "short", one whose cosh is no
            infinity; "near" and "far", two of the hyperboloid; "point", a point of the ball; "second", a
            further point; "normal", that of a hyperplane; "any", any row.
        gives: a row, a number a row, or a number for each pair of rows; of planes, of which the last operand has one a
            row, a number for each and every row of the first.
        slots: the guards that the operator takes.
        time_in, time_out: the operands, and the result, begin with a time coordinate; that of an operand is not read.
        bound: error against float64, in units of eps, on probes that stop short of the boundary.
        apart: of the second operand the norm alone counts, so that its rows may have another length.
        per_entry, per_row: floating-point operations of the operator for each entry and row.
    """

    target: str
    text: str
    operands: tuple[Literal["tangent", "short", "point", "second", "any", "near", "far", "normal"], ...]
    gives: Literal["row", "number", "pairs", "planes"] = "row"
    slots: tuple[str, ...] = ()
    time_in: bool = False
    time_out: bool = False
    bound: float = 1024.0
    apart: bool = False
    per_entry: int = 2
    per_row: int = 3


# What a rule leaves that is no operator of ours.
OWN = ("identity", "norm", "radial_cap", "tangent")
FORMULAS = {
    formula.target: formula
    for formula in (
        Formula(
            target="expmap0",
            text="tanh(s n) / (s n) x",
            operands=("tangent",),
            slots=(*RADIAL, "tanh_limit"),
            bound=64.0,
        ),
        Formula(
            target="logmap0",
            text="artanh(s n) / (s n) x",
            operands=("point",),
            slots=(*RADIAL, "atanh_limit"),
        ),
        Formula(
            target="mobius_scalar_mul",
            text="tanh(r artanh(s n)) / (s n) x",
            operands=("point",),
            slots=STRETCH,
            per_row=8,
        ),
        Formula(
            target="mobius_matvec",
            text="tanh(||m|| / n artanh(s n)) / (s ||m||) m",
            operands=("any", "point"),
            slots=STRETCH,
            apart=True,
            per_entry=3,
            per_row=8,
        ),
        Formula(
            target="mobius_add",
            text="((1 + 2c<x, y> + c||y||^2) x + (1 - c||x||^2) y) / (1 + 2c<x, y> + c^2||x||^2||y||^2)",
            operands=("point", "second"),
            slots=SUM,
            per_entry=6,
            per_row=12,
        ),
        Formula(
            target="project",
            text="x where n <= (1 - eps) / s, else (1 - eps) / s x / n",
            operands=("any",),
            slots=("eps", "curvature_offset", "min_norm"),
            bound=64.0,
        ),
        Formula(
            target="poincare_dist0",
            text="2 / s artanh(s n)",
            operands=("point",),
            gives="number",
            slots=("min_norm", "atanh_limit"),
            per_entry=1,
            per_row=8,
        ),
        Formula(
            target="poincare_dist",
            text="2 / s artanh(s ||-x + y||), with Möbius addition",
            operands=("point", "second"),
            gives="number",
            slots=("min_gap", *SUM, "atanh_limit", FLOOR),
            per_entry=3,
            per_row=12,
        ),
        Formula(
            target="poincare_cdist",
            text="2 / s artanh(s ||-x + y||) of all pairs, with Möbius addition",
            operands=("point", "second"),
            gives="pairs",
            slots=("min_alpha", *SUM, "atanh_limit", FLOOR),
            per_entry=3,
            per_row=12,
        ),
        Formula(
            target="poincare_planes",
            text="asinh(2 s <w, a> / (||a|| (1 - c||w||^2))) of all points x and planes (p, a), w = -p + x",
            operands=("point", "second", "normal"),
            gives="planes",
            slots=(*SUM, "min_gap", "min_square", "min_length", "quotient_offset", "min_result", "unsigned"),
            per_entry=4,
            per_row=20,
        ),
        Formula(
            target="hnnpp_planes",
            text="asinh((2 s <x, z> / ||z|| cosh(t) - (1 + c||x||^2) sinh(t)) / (1 - c||x||^2)) of all x and planes z",
            operands=("point", "normal"),
            gives="planes",
            slots=("min_alpha", "min_length", "min_result", "unit"),
            per_entry=2,
            per_row=12,
        ),
        Formula(
            target="conformal_factor",
            text="2 / (1 - c||x||^2)",
            operands=("point",),
            gives="number",
            slots=("min_gap",),
            per_entry=1,
            per_row=3,
        ),
        Formula(
            target="klein_dist",
            text="arcosh((1 - c<x, y>) / sqrt((1 - c||x||^2) (1 - c||y||^2))) / s",
            operands=("point", "second"),
            gives="number",
            slots=(FLOOR,),
            per_entry=3,
            per_row=12,
        ),
        Formula(
            target="klein_cdist",
            text="arcosh((1 - c<x, y>) / sqrt((1 - c||x||^2) (1 - c||y||^2))) / s of all pairs",
            operands=("point", "second"),
            gives="pairs",
            slots=(FLOOR,),
            per_entry=3,
            per_row=12,
        ),
        Formula(
            target="poincare_to_klein",
            text="2 / (1 + c||x||^2) x",
            operands=("point",),
            bound=64.0,
        ),
        Formula(
            target="expmap",
            text="x + tanh(s g n / 2) / (s n) v, with Möbius addition, n = ||v|| and g = 2 / (1 - c||x||^2)",
            operands=("second", "short"),
            slots=("min_gap", "min_norm", "tanh_limit", *SUM, "max_radius"),
            per_entry=8,
            per_row=24,
        ),
        Formula(
            target="logmap",
            text="2 / (s g) artanh(s ||w||) w / ||w|| with w = -x + y, g = 2 / (1 - c||x||^2)",
            operands=("second", "point"),
            slots=("min_gap", *SUM, "atanh_limit"),
            per_entry=8,
            per_row=24,
        ),
        Formula(target="identity", text="x", operands=("point",), per_entry=0, per_row=0),
        Formula(
            target="radial_cap",
            text="min(1, largest / (s n)) x",
            operands=("tangent",),
            slots=("largest",),
        ),
        Formula(
            target="norm",
            text="min(||x||, max_norm)",
            operands=("short",),
            gives="number",
            slots=("max_norm",),
            bound=64.0,
        ),
        Formula(
            target="add_time",
            text="(sqrt(1 / c + ||x||^2), x)",
            operands=("any",),
            time_out=True,
            bound=64.0,
        ),
        Formula(
            target="lorentz_project",
            text="(sqrt(1 / c + ||x||^2), x), of a row (t, x)",
            operands=("any",),
            time_in=True,
            time_out=True,
            bound=64.0,
        ),
        Formula(
            target="lorentz_expmap0",
            text="(cosh(s n) / s, sinh(s n) / (s n) x)",
            operands=("short",),
            slots=("min_norm", "max_argument"),
            time_in=True,
            time_out=True,
            per_row=12,
        ),
        Formula(
            target="lorentz_logmap0",
            text="(0, arcosh(s t) / (s n) x), of a point (t, x)",
            operands=("any",),
            time_in=True,
            time_out=True,
            per_row=12,
        ),
        Formula(
            target="lorentz_expmap",
            text="cosh(s n) x + sinh(s n) / (s n) v, of a point x and v tangent there, n = sqrt(-v0^2 + ||v||^2)",
            operands=("any", "short"),
            slots=("max_argument",),
            time_in=True,
            time_out=True,
            per_entry=8,
            per_row=24,
        ),
        Formula(
            target="lorentz_logmap",
            text="d(x, y) / n w, w = y + c (-t u + <x, y>) x, n = sqrt(-w0^2 + ||w||^2), of points (t, x) and (u, y)",
            operands=("any", "second"),
            # Of the length n of w; no operator has it.
            slots=("min_norm",),
            time_in=True,
            time_out=True,
            per_entry=8,
            per_row=24,
        ),
        Formula(
            target="tangent",
            text="any w with -t w0 + <x, w> = 0, of a point (t, x)",
            operands=("any", "any"),
            time_in=True,
            time_out=True,
        ),
        Formula(
            target="lorentz_dist",
            text="arcosh(c (t u - <x, y>)) / s, of points (t, x) and (u, y)",
            operands=("any", "second"),
            gives="number",
            slots=("min_argument",),
            time_in=True,
            per_entry=3,
            per_row=12,
        ),
        Formula(
            target="lorentz_cdist",
            text="arcosh(c (t u - <x, y>)) / s of all pairs of points (t, x) and (u, y)",
            operands=("near", "far"),
            gives="pairs",
            slots=(FLOOR,),
            time_in=True,
            per_entry=3,
            per_row=12,
        ),
        Formula(
            target="lorentz_rescale",
            text="(w / s, sqrt((w^2 - 1) / (c n^2)) x), w = offset + scale sigmoid(t), of a row (t, x)",
            operands=("any",),
            slots=("offset", "min_squares"),
            time_in=True,
            time_out=True,
            per_row=12,
        ),
        Formula(
            target="klein_to_lorentz",
            text="(1 / s, x) / sqrt(1 - c||x||^2)",
            operands=("point",),
            slots=("min_gap",),
            time_out=True,
            per_row=6,
        ),
        Formula(
            target="lorentz_to_poincare",
            text="x / (1 + s t), of a point (t, x)",
            operands=("any",),
            time_in=True,
            bound=64.0,
        ),
        Formula(
            target="lorentz_to_klein",
            text="x / (s t), of a point (t, x)",
            operands=("any",),
            time_in=True,
            bound=64.0,
        ),
        Formula(
            target="klein_to_poincare",
            text="x / (1 + sqrt(1 - c||x||^2))",
            operands=("point",),
            slots=("min_gap",),
        ),
    )
}
