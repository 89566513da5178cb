"""Guarded norms: a form is read as `max(sqrt(c) (max(sqrt(||x||^2 + a), b) + d), e)` or refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .rows.algebra import Algebra
from .rows.forms import HALF, OF_ROWS, ONE, Form, Monomial, power_of
from .rows.functions import quotient


class NoRadius(ValueError):
    """The form is no guarded norm that the operators can carry; the message says why."""


@dataclass(frozen=True)
class Radius:
    """A scaled and guarded norm.

    Args:
        scale: `sqrt(c)`, a form in constants and row scalars.
        guards: the operator's attributes that are not zero.
    """

    scale: Form
    guards: dict[str, float] = field(default_factory=dict)

    def described(self) -> str:
        """The guards as words."""
        return ", ".join(f"{name} = {value:g}" for name, value in self.guards.items()) or "nothing"


class RadiusReader:
    """Reads radii of one row vector.

    Args:
        algebra: the table of atoms.
        vector: the index of the row vector's atom.
    """

    def __init__(self, algebra: Algebra, vector: int) -> None:
        self.algebra = algebra
        self.square = algebra.index("inner", vector, vector, nonnegative=True)

    def read(self, form: Form) -> Radius:
        """The radius that a form is; `NoRadius` for any other form."""
        clamp = self.algebra.single(form)
        if clamp is None or self.algebra.atoms[clamp].kind != "clamp":
            return self._core(form)
        inside, low = self._below(clamp)
        radius = self._core(inside)
        if self.algebra.equal(radius.scale, ONE) and not {"min_norm", "norm_offset"} & radius.guards.keys():
            return self._core(form)
        if not self.algebra.nonnegative(radius.scale):
            raise NoRadius(
                f"the norm is clamped at {low:g} after scaling by {self.algebra.describe(radius.scale)}, "
                "whose sign is not known"
            )
        return replace(radius, guards={**radius.guards, "min_scaled": low})

    def _core(self, form: Form) -> Radius:
        """A radius without a clamp after scaling."""
        if len(form) == 1:
            return self._term(*form.terms[0])
        if len(form) != 2:
            raise NoRadius(f"{self.algebra.describe(form)} is not a scaled norm")
        terms = [Form((term,)) for term in form]
        rows = [term for term in terms if self._of_rows(term)]
        if len(rows) != 1:
            raise NoRadius(f"{self.algebra.describe(form)} is not a norm plus a constant")
        (offset,) = (term for term in terms if term is not rows[0])
        radius = self._term(*rows[0].terms[0])
        number = quotient(self.algebra, offset, radius.scale).number
        if number is None or number < 0:
            raise NoRadius(
                f"{self.algebra.describe(offset)} is added after the norm is scaled by "
                f"{self.algebra.describe(radius.scale)}; the operator adds a positive constant before"
            )
        return replace(radius, guards={**radius.guards, "norm_offset": number})

    def _of_rows(self, form: Form) -> bool:
        return bool(self.algebra.kinds(form) & OF_ROWS)

    def _term(self, monomial: Monomial, coefficient: float) -> Radius:
        """`scale * norm`, the norm guarded or not."""
        factors = [(i, e) for i, e in monomial if self._of_rows(power_of(i, e))]
        scale = Form(((tuple(f for f in monomial if f not in factors), coefficient),))
        for index in self.algebra.indices(Form(((tuple(factors), 1.0),))):
            if self.algebra.atoms[index].kind == "foreign":
                raise NoRadius(
                    f"it takes the {self.algebra.atoms[index].parts[0]}, not the 2-norm of the row"
                )
        if not factors:
            raise NoRadius("there is no norm")
        if len(factors) > 1:
            raise NoRadius(f"{self.algebra.describe(Form(((monomial, coefficient),)))} is not a scaled norm")
        ((index, exponent),) = factors
        atom = self.algebra.atoms[index]
        if index == self.square:
            if exponent != HALF:
                raise NoRadius(f"the norm is raised to the power {float(2 * exponent):g}")
            return Radius(scale)
        if atom.kind == "sum" and exponent == HALF:
            inner = self._root(atom.parts[0])
        elif atom.kind == "clamp" and exponent == 1:
            inside, low = self._below(index)
            inner = self._clamped(self._core(inside), low)
        else:
            raise NoRadius(f"{self.algebra.describe(power_of(index, exponent))} is not a norm")
        return replace(inner, scale=self.algebra.multiply(scale, inner.scale))

    def _root(self, form: Form) -> Radius:
        """`sqrt(k ||x||^2 + a)`."""
        squares = [(m, k) for m, k in form if m == ((self.square, 2 * HALF),)]
        offsets = [k for m, k in form if not m]
        if len(form) != 2 or len(squares) != 1 or len(offsets) != 1:
            raise NoRadius(
                f"sqrt({self.algebra.describe(form)}) is not a norm with a constant under the root"
            )
        factor, offset = squares[0][1], offsets[0]
        if factor <= 0 or offset < 0:
            raise NoRadius(f"sqrt({self.algebra.describe(form)}) is not a norm with a positive offset")
        return Radius(Form((((), factor**0.5),)), {"square_offset": offset / factor})

    def _clamped(self, radius: Radius, low: float) -> Radius:
        scale = radius.scale.number
        if scale is None:
            raise NoRadius(
                f"the norm is clamped at {low:g} after one scaling and scaled again; "
                "the operator clamps before or after all of it"
            )
        if "norm_offset" in radius.guards:
            raise NoRadius("the norm is clamped after a constant is added; the operator clamps before")
        low = max(low / scale, radius.guards.get("min_norm", 0.0))
        return Radius(radius.scale, {**radius.guards, "min_norm": low})

    def _below(self, index: int) -> tuple[Form, float]:
        """What is clamped from below, and where."""
        inside, low, high = self.algebra.atoms[index].parts
        if high != float("inf"):
            raise NoRadius(f"the norm is clamped from above at {high:g}")
        if low < 0:
            raise NoRadius(f"the norm is clamped at {low:g}, below zero")
        return inside, low
