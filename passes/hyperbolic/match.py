"""Unifies a form with the rows of the table: curvature, guards and factors are what is solved for."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from .addition import match_addition
from .distances import match_distance
from .formulas import FORMULAS, NORM
from .guards import NoRadius, Radius, RadiusReader
from .rows.algebra import Algebra
from .rows.forms import ONE, Form, constant, join
from .rows.functions import INFINITY, quotient
from .rows.matching import Match, NearMiss, Operand

TARGETS = {"tanh": "expmap0", "artanh": "logmap0", "log": "logmap0"}
LIMITS = {"tanh": "tanh_limit", "artanh": "atanh_limit"}


def match(algebra: Algebra, form: Form, vectors: Sequence[int]) -> Match | NearMiss | None:
    """Compare a form in one or two row vectors with the table; None where it looks like no row of it."""
    if not len(form):  # zero, whatever the rows are
        return None
    degrees = {algebra.degree(monomial) for monomial, _ in form}
    if degrees == {Fraction(1)}:
        if len(vectors) == 1:
            return _RowMatcher(algebra, vectors[0]).match(form)
        return match_addition(algebra, form, *vectors) or _matvec(algebra, form, vectors)
    if degrees == {Fraction(0)}:
        if len(vectors) == 1:
            return _number(algebra, form, vectors[0])
        return match_distance(algebra, form, *vectors)
    return None


class _RowMatcher:
    """Rows that are a multiple of one row vector: the multiple depends on its norm alone.

    Args:
        algebra: the table of atoms.
        vector: the index of the row vector's atom.
    """

    def __init__(self, algebra: Algebra, vector: int) -> None:
        self.algebra, self.vector = algebra, vector
        self.reader = RadiusReader(algebra, vector)

    def match(self, form: Form) -> Match | NearMiss | None:
        """Compare with a profile of the norm over the norm, and with the maps along the ray of the row."""
        if len(form) == 1:
            for compare in (self._shortened, self._to_klein, self._from_klein):
                if (found := compare(form)) is not None:
                    return found
        return self._profile(form)

    def _profile(self, form: Form) -> Match | NearMiss | None:
        """`tanh(u) / u * x`, `artanh(u) / u * x` and `tanh(r artanh(u)) / u * x`."""
        algebra = self.algebra
        found = self._function_of_norm(form)
        if found is None:
            return None
        index, exponent = found
        kind = algebra.atoms[index].kind
        target = TARGETS[kind]
        if kind == "log":
            return NearMiss(
                target,
                f"{algebra.describe(form)} holds logarithms that are not those of artanh(u) for one u",
            )
        if exponent != 1:
            return NearMiss(target, f"{kind} is raised to the power {float(exponent):g}")
        ((monomial, coefficient),) = form.terms
        monomial, at_zero = without_zero(algebra, monomial)
        divisor = ((self.vector, Fraction(-1)), (index, Fraction(-1)))
        rest = Form(((join(monomial, tuple(sorted(divisor))), abs(coefficient)),))
        sign = 1.0 if coefficient > 0 else -1.0
        try:
            argument, limit = _limited(algebra, kind, algebra.atoms[index].parts[0])
            outside = self._read(algebra.power(rest, -1), "the denominator")
            if kind == "tanh" and (inner := _artanh_in(algebra, argument)) is not None:
                return self._scalar_mul(inner, argument, limit, outside, sign)
            inside = self._read(argument, f"the argument of {kind}")
        except NoRadius as error:
            return NearMiss(target, str(error))
        return self._radial(kind, inside, outside, limit, sign, at_zero)

    def _read(self, form: Form, where: str) -> Radius:
        try:
            return self.reader.read(form)
        except NoRadius as error:
            raise NoRadius(f"in {where}: {error}") from None

    def _function_of_norm(self, form: Form) -> tuple[int, Fraction] | None:
        """The factor tanh, artanh or log of the row in a form that is linear in it; logs may come in a sum."""
        algebra = self.algebra
        if not 1 <= len(form) <= 2:
            return None
        found = []
        for monomial, _ in form:
            if (self.vector, Fraction(1)) not in monomial:
                return None
            functions = [
                (i, e) for i, e in monomial if algebra.atoms[i].kind in TARGETS and of_rows(algebra, i)
            ]
            if len(functions) != 1:
                return None
            found += functions
        if len(found) > 1 and any(algebra.atoms[i].kind != "log" for i, _ in found):
            return None
        return found[0]

    def _radial(
        self, kind: str, inside: Radius, outside: Radius, limit: float, sign: float, at_zero: Form | None
    ) -> Match | NearMiss:
        """Of two scales, that of the denominator is the curvature's root: `tanh(a n) / (b n) x` is that of `(a / b) x`.

        Where their quotient is no number, that of the argument is, and the result is multiplied.
        """
        algebra, target = self.algebra, TARGETS[kind]
        ratio = quotient(algebra, inside.scale, outside.scale)
        number = 1.0 if algebra.equal(inside.scale, outside.scale) else ratio.number
        if number is not None and number <= 0:
            return NearMiss(
                target, f"{kind} of a norm that is scaled by {algebra.describe(ratio)} is divided by it"
            )
        factor, multiple, scale = constant(sign * (number or 1.0)), ONE, outside.scale
        of_argument, of_divisor = inside.guards, outside.guards
        if number is None:
            multiple, scale = ratio, inside.scale
            if "min_scaled" in outside.guards:
                return NearMiss(
                    target,
                    f"different curvature inside and outside: the norm is scaled by {algebra.describe(inside.scale)} "
                    f"inside {kind} and by {algebra.describe(outside.scale)} in the denominator, where it is "
                    "clamped after scaling",
                )
        elif number != 1.0:
            of_argument, of_divisor = (_stretched(g, number) for g in (of_argument, of_divisor))
            # The clamp after scaling is one of the scaled norm itself inside, and of its 1 / number outside.
            if "min_scaled" in inside.guards:
                of_argument = {**of_argument, "min_scaled": inside.guards["min_scaled"]}
        guards: dict[str, float | bool] = dict(of_divisor)
        if not same_guards(algebra, of_argument, of_divisor):
            guards |= {"separate": True} | {f"argument_{name}": value for name, value in of_argument.items()}
        elif not of_divisor and at_zero is None:
            guards["nan_at_zero"] = True
        if limit != INFINITY:
            guards[LIMITS[kind]] = limit
        curvature = algebra.power(scale, 2)
        return Match(target, (Operand(self.vector, factor),), curvature, guards, multiple=multiple)

    def _scalar_mul(
        self, inner: int, argument: Form, limit: float, outside: Radius, sign: float
    ) -> Match | NearMiss:
        """`tanh(r artanh(u)) / u * x`."""
        algebra, target = self.algebra, "mobius_scalar_mul"
        number = quotient(algebra, argument, Form(((((inner, Fraction(1)),), 1.0),)))
        if any(of_rows(algebra, i) for m, _ in number for i, _ in m):
            return NearMiss(target, f"the factor {algebra.describe(number)} depends on the row")
        reduced, below = _limited(algebra, "artanh", algebra.atoms[inner].parts[0])
        inside = self._read(reduced, "the argument of artanh")
        if not algebra.equal(inside.scale, outside.scale):
            return NearMiss(
                target,
                f"different curvature inside and outside: the norm is scaled by {algebra.describe(inside.scale)} in "
                f"artanh and by {algebra.describe(outside.scale)} in the denominator",
            )
        guards = _one_clamp(algebra, target, inside, outside)
        if isinstance(guards, NearMiss):
            return guards
        if below != INFINITY:
            guards["atanh_limit"] = below
        if limit != INFINITY:
            guards["tanh_limit"] = limit
        operand = Operand(self.vector, constant(sign))
        return Match(target, (operand,), algebra.power(inside.scale, 2), guards, (number,))

    def _shortened(self, form: Form) -> Match | None:
        """`min(1, R / n) x`, which `where(n > R, R x / n, x)` is."""
        algebra = self.algebra
        ((monomial, coefficient),) = form.terms
        rest = [f for f in monomial if f != (self.vector, Fraction(1))]
        if len(rest) != 1 or rest[0][1] != 1 or (self.vector, Fraction(1)) not in monomial:
            return None
        atom = algebra.atoms[rest[0][0]]
        if atom.kind != "clamp" or atom.parts[1:] != (-INFINITY, 1.0):
            return None
        try:
            radius = self.reader.read(algebra.power(atom.parts[0], -1))
        except (NoRadius, ArithmeticError):
            return None
        if radius.guards.keys() - {"min_norm"}:
            return None
        # radius.scale is sqrt(c) / (1 - eps); where c is a number, both are one.
        curvature, eps = algebra.power(radius.scale, 2), 0.0
        largest = max((k for m, k in curvature if m), default=0.0)
        if curvature.number is None and largest > 1:
            eps = 1 - largest**-0.5
            curvature = algebra.scale(curvature, 1 / largest)
        if coefficient != 1:
            return None
        guards: dict[str, float | bool] = dict(radius.guards)
        if eps:
            guards["eps"] = float(f"{eps:.12g}")
        return Match("project", (Operand(self.vector),), curvature, guards)

    def _over_sum(self, form: Form) -> tuple[float, Form] | None:
        """The factor and the sum of a form `factor x / sum`; None for any other."""
        ((monomial, coefficient),) = form.terms
        rest = [f for f in monomial if f != (self.vector, Fraction(1))]
        if len(rest) != 1 or rest[0][1] != -1 or self.algebra.atoms[rest[0][0]].kind != "sum":
            return None
        return coefficient, self.algebra.atoms[rest[0][0]].parts[0]

    def _to_klein(self, form: Form) -> Match | None:
        """`2 / (1 + c||x||^2) x`."""
        algebra = self.algebra
        if (parts := self._over_sum(form)) is None:
            return None
        coefficient, denominator = parts
        curvature = self._curvature_of(denominator, 1.0)
        if curvature is None:
            return None
        plain = next(k for m, k in denominator if not m)
        if not algebra.close(coefficient, 2 * plain):
            return None
        return Match("poincare_to_klein", (Operand(self.vector),), curvature)

    def _from_klein(self, form: Form) -> Match | None:
        """`x / (1 + sqrt(1 - c||x||^2))`."""
        algebra = self.algebra
        if (parts := self._over_sum(form)) is None:
            return None
        coefficient, below = parts
        plain = next((k for m, k in below if not m), 0.0)
        roots = [(m, k) for m, k in below if m]
        if len(below) != 2 or plain == 0 or len(roots) != 1:
            return None
        width = algebra.scale(Form((roots[0],)), 1 / plain)
        gap, guards = algebra.power(width, 2), {}
        index = algebra.single(gap)
        if index is not None and algebra.atoms[index].kind == "clamp":
            gap, low, high = algebra.atoms[index].parts
            if high != INFINITY or low < 0:
                return None
            guards["min_gap"] = low
        if width.terms[0][1] < 0 or (curvature := self._curvature_of(gap, -1.0)) is None:
            return None
        if not algebra.close(coefficient, plain):
            return None
        return Match("klein_to_poincare", (Operand(self.vector),), curvature, guards)

    def _curvature_of(self, form: Form, sign: float) -> Form | None:
        """`c` in a multiple of `1 + sign c||x||^2`."""
        return gap_curvature(self.algebra, form, self.vector, sign)


def gap_curvature(algebra: Algebra, form: Form, vector: int, sign: float = -1.0) -> Form | None:
    """`c` in a positive multiple of `1 + sign c||x||^2`; None for any other form."""
    square = algebra.index("inner", vector, vector, nonnegative=True)
    plain = next((k for m, k in form if not m), 0.0)
    others = [(m, k) for m, k in form if m]
    # 1 + 1e-8 is no 1: what is added there keeps a quotient finite at the boundary.
    if plain <= 0 or 1e-14 < abs(plain - float(f"{plain:.3g}")) < 1e-3:
        return None
    if len(form) != 2 or (square, Fraction(1)) not in others[0][0]:
        return None
    monomial = join(others[0][0], ((square, Fraction(-1)),))
    curvature = Form(((monomial, sign * others[0][1] / plain),))
    if any(of_rows(algebra, i) for i, _ in monomial) or (curvature.number or 1.0) <= 0:
        return None
    return curvature


def _matvec(algebra: Algebra, form: Form, vectors: Sequence[int]) -> Match | NearMiss | None:
    """`tanh(||m|| / ||x|| artanh(s ||x||)) / (s ||m||) m`, of the product `m = M x` and `x`."""
    if len(form) != 1:
        return None
    ((monomial, coefficient),) = form.terms
    monomial, _ = without_zero(algebra, monomial)
    found = [i for i, e in monomial if e == 1 and algebra.atoms[i].kind == "tanh"]
    image = [v for v in vectors if (v, Fraction(1)) in monomial]
    if len(found) != 1 or len(image) != 1:
        return None
    (m,), target = image, "mobius_matvec"
    (x,) = (v for v in vectors if v != m)
    try:
        argument, limit = _limited(algebra, "tanh", algebra.atoms[found[0]].parts[0])
        inner = _artanh_in(algebra, argument)
        if inner is None:
            return None
        divisor = tuple(sorted(((m, Fraction(-1)), (found[0], Fraction(-1)))))
        rest = Form(((join(monomial, divisor), abs(coefficient)),))
        outside = RadiusReader(algebra, m).read(algebra.power(rest, -1))
        ratio = quotient(algebra, argument, Form(((((inner, Fraction(1)),), 1.0),)))
        reduced, below = _limited(algebra, "artanh", algebra.atoms[inner].parts[0])
        inside = RadiusReader(algebra, x).read(reduced)
        stretch, shrink = _split(algebra, ratio, m, x)
    except NoRadius as error:
        return NearMiss(target, str(error))
    if not algebra.equal(inside.scale, outside.scale):
        return NearMiss(
            target,
            f"different curvature inside and outside: {algebra.describe(inside.scale)} in artanh and "
            f"{algebra.describe(outside.scale)} in the denominator",
        )
    if not algebra.equal(stretch.scale, shrink.scale):
        factor = quotient(algebra, stretch.scale, shrink.scale)
        return NearMiss(
            target, f"the quotient of norms has the factor {algebra.describe(factor)}, expected 1"
        )
    guards = _one_clamp(algebra, target, inside, outside, stretch, shrink)
    if isinstance(guards, NearMiss):
        return guards
    if below != INFINITY:
        guards["atanh_limit"] = below
    if limit != INFINITY:
        guards["tanh_limit"] = limit
    sign = constant(1.0 if coefficient > 0 else -1.0)
    return Match(target, (Operand(m, sign), Operand(x)), algebra.power(inside.scale, 2), guards)


def _split(algebra: Algebra, ratio: Form, m: int, x: int) -> tuple[Radius, Radius]:
    """`||m|| / ||x||` as its two norms."""
    if len(ratio) != 1:
        raise NoRadius(f"{algebra.describe(ratio)} is not a quotient of two norms")
    ((monomial, coefficient),) = ratio.terms
    upper: list[tuple[int, Fraction]] = []
    lower: list[tuple[int, Fraction]] = []
    for index, exponent in monomial:
        (lower if exponent < 0 else upper).append((index, exponent))
    over = RadiusReader(algebra, m).read(Form(((tuple(upper), coefficient),)))
    under = RadiusReader(algebra, x).read(algebra.power(Form(((tuple(lower), 1.0),)), -1))
    return over, under


def _number(algebra: Algebra, form: Form, vector: int) -> Match | NearMiss | None:
    """`2 / s artanh(s n)` and `2 / (1 - c||x||^2)`, or multiples of them."""
    if len(form) != 1:
        return None
    ((monomial, coefficient),) = form.terms
    monomial, _ = without_zero(algebra, monomial)
    functions = [(i, e) for i, e in monomial if of_rows(algebra, i)]
    if len(functions) != 1:
        return None
    ((index, exponent),) = functions
    rest = Form(((tuple(f for f in monomial if f != functions[0]), coefficient),))
    atom = algebra.atoms[index]
    if atom.kind == "artanh" and exponent == 1:
        target = "poincare_dist0"
        try:
            argument, limit = _limited(algebra, "artanh", atom.parts[0])
            radius = RadiusReader(algebra, vector).read(argument)
        except NoRadius as error:
            return NearMiss(target, f"in the argument of artanh: {error}")
        guards = _one_clamp(algebra, target, radius)
        if isinstance(guards, NearMiss):
            return guards
        if limit != INFINITY:
            guards["atanh_limit"] = limit
        multiple = algebra.scale(algebra.multiply(rest, radius.scale), 0.5)
        curvature = algebra.power(radius.scale, 2)
        return Match(target, (Operand(vector),), curvature, guards, multiple=multiple)
    if atom.kind in ("sum", "clamp") and exponent == -1:
        inside, guards = atom.parts[0], {}
        if atom.kind == "clamp":
            if atom.parts[2] != INFINITY or atom.parts[1] < 0:
                return None
            guards["min_gap"] = atom.parts[1]
        of_gap = gap_curvature(algebra, inside, vector)
        plain = next((k for m, k in inside if not m), 0.0)
        if of_gap is None:
            return None
        if guards and plain != 1.0:
            guards["min_gap"] /= plain
        if not algebra.equal(rest, constant(2 * plain)):
            return None
        return Match("conformal_factor", (Operand(vector),), of_gap, guards)
    return None


def without_zero(
    algebra: Algebra, monomial: tuple[tuple[int, Fraction], ...]
) -> tuple[tuple[tuple[int, Fraction], ...], Form | None]:
    """A monomial without what `where` puts in place at zero, and the value there."""
    found = [i for i, _ in monomial if algebra.atoms[i].kind == "at_zero"]
    value = algebra.atoms[found[0]].parts[1] if found else None
    return tuple(f for f in monomial if f[0] not in found), value


def of_rows(algebra: Algebra, index: int) -> bool:
    """Whether an atom depends on the rows."""
    kinds = algebra.kinds(Form(((((index, Fraction(1)),), 1.0),)))
    return bool(kinds & {"vector", "inner", "foreign"})


def _artanh_in(algebra: Algebra, argument: Form) -> int | None:
    """The artanh of the row that the argument of a tanh is a multiple of."""
    if len(argument) != 1:
        return None
    found = [i for i, e in argument.terms[0][0] if e == 1 and algebra.atoms[i].kind == "artanh"]
    return found[0] if len(found) == 1 else None


def _limited(algebra: Algebra, kind: str, argument: Form) -> tuple[Form, float]:
    """Split the clamp from above off the argument of tanh or artanh; one from below stays."""
    index = algebra.single(argument)
    if index is None or algebra.atoms[index].kind != "clamp" or algebra.atoms[index].parts[2] == INFINITY:
        return argument, INFINITY
    inside, low, high = algebra.atoms[index].parts
    if low == -high or low == -INFINITY:
        if low == -high or algebra.nonnegative(inside):
            return inside, high
    elif 0 <= low < high:
        return algebra.atom("clamp", inside, low, INFINITY, nonnegative=True), high
    raise NoRadius(
        f"the argument of {kind} is clamped to [{low:g}, {high:g}]; the operator clamps it from above, and from below "
        "at zero or more"
    )


def same_guards(algebra: Algebra, left: dict[str, float], right: dict[str, float]) -> bool:
    """Whether two norms are guarded alike."""
    return left.keys() == right.keys() and all(algebra.close(left[name], right[name]) for name in left)


def _stretched(guards: dict[str, float], factor: float) -> dict[str, float]:
    """The guards of the norm of `factor * x` that act on it as the given ones on the norm of `x`."""
    powers = dict(zip(NORM, (2, 1, 1, 1), strict=True))
    return {name: value * factor ** powers[name] for name, value in guards.items()}


def _one_clamp(algebra: Algebra, target: str, *radii: Radius) -> dict[str, float | bool] | NearMiss:
    """The one clamp of all norms that the operator takes; the first other guard as a near miss."""
    clamps: dict[float, None] = {}
    for radius in radii:
        rest = radius.guards.keys() - {"min_norm"}
        if rest:
            name = sorted(rest)[0]
            slots = ", ".join(FORMULAS[target].slots)
            return NearMiss(
                target, f"a norm is guarded by {name} = {radius.guards[name]:g}; the operator has {slots}"
            )
        clamps[radius.guards.get("min_norm", 0.0)] = None
    lows = sorted(clamps)
    # The maps are smooth in the square of the norm, with a derivative of 12 at most for the limits that artanh has: a
    # clamp at e changes them by 12 e^2, relatively.
    if 12 * lows[-1] ** 2 > algebra.eps / 16 and any(not algebra.close(low, lows[-1]) for low in lows):
        found = " and at ".join(f"{low:g}" for low in lows)
        return NearMiss(target, f"norms are clamped at {found}; the operator has one clamp for all")
    return {"min_norm": lows[-1]} if lows[-1] else {}
