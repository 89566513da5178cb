"""Forms: what a value is, written as a sum of monomials in atoms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

Kind = Literal[
    "vector", "scalar", "inner", "sum", "clamp", "abs", "tanh", "artanh", "acosh", "asinh", "sinh", "cosh", "sigmoid",
    "log", "foreign", "above", "zero", "at_zero", "time", "mask", "sign", "side",
]  # fmt: skip
Monomial = tuple[tuple[int, Fraction], ...]
# The kinds of what differs from row to row, and is no number that is given with it.
OF_ROWS = frozenset({"vector", "inner", "foreign", "time"})
HALF = Fraction(1, 2)
MOST_TERMS = 64


class TooLarge(ArithmeticError):
    """A form grew past `MOST_TERMS` monomials: nothing this package knows looks like that."""


@dataclass(frozen=True)
class Form:
    """A sum of `coefficient * product(atom ** exponent)`; atoms are indices into `Algebra.atoms`."""

    terms: tuple[tuple[Monomial, float], ...]

    def __iter__(self) -> Iterator[tuple[Monomial, float]]:
        return iter(self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    @property
    def number(self) -> float | None:
        """The value of a constant form, None for any other."""
        if not self.terms:
            return 0.0
        if len(self.terms) == 1 and not self.terms[0][0]:
            return self.terms[0][1]
        return None


ZERO = Form(())
ONE = Form((((), 1.0),))


def constant(value: float) -> Form:
    """The form of a number."""
    return Form((((), float(value)),)) if value else ZERO


def power_of(index: int, exponent: Fraction | int = 1) -> Form:
    """The form of a power of one atom."""
    return Form(((((index, Fraction(exponent)),), 1.0),))


@dataclass(frozen=True)
class Atom:
    """What a monomial is a product of: a kind, what identifies it, and whether it is known to be >= 0."""

    kind: Kind
    parts: tuple[Any, ...]
    nonnegative: bool = False


def join(left: Monomial, right: Monomial) -> Monomial:
    """The product of two monomials."""
    exponents = dict(left)
    for index, exponent in right:
        exponents[index] = exponents.get(index, Fraction(0)) + exponent
    return tuple(sorted((i, e) for i, e in exponents.items() if e))
